"""Knowledge distillation: a teacher's logits as a part of a student's loss (Hinton et al. 2015).

1. The stage teach checks the teacher (`load_teacher`, `check_tokens`, `check_lengths`), and writes its logits of the
   train split as a `column`: for each feature a list of items (texts, tokens with labels, or tokens).
2. In training, `collator` adds the logits of a batch's items to the batch.
3. `teach` adds two hooks to the student. The first takes the logits out of the batch, or asks the teacher if each epoch
   has other inputs. The second adds the divergence from them to the loss.
"""

from collections.abc import Callable, Container
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch.nn.functional import kl_div, log_softmax
from transformers import PreTrainedModel

from finetrail.encoding import padding
from finetrail.encoding.tokenizer import model_positions
from finetrail.errors import UserError
from finetrail.model.loading import checked
from finetrail.schema import Distillation

# The column of the features, and the name in the batch.
TAUGHT = "teacher_logits"

# A model's outputs, its inputs, the teacher's logits of the batch [items, choices], temperature -> the mean divergence
# over the items of the batch.
Divergence = Callable[[Any, dict[str, Any], torch.Tensor, float], torch.Tensor]


class Teaching(NamedTuple):
    """How a task's models learn from a teacher. Exactly one of the last two is there.

    taught: where each epoch has the same inputs. A teacher sees them once, before training.
    asking: where each epoch draws its inputs anew. The teacher sees each batch, during training.
    """

    # A finished model's folder and the target -> the model, in fp32; UserError if it does not fit.
    load_teacher: Callable[[Path, Any], PreTrainedModel]
    divergence: Divergence
    # A teacher's outputs of a batch, by name, and its features -> the logits of each feature: [items, choices].
    taught: Callable[[dict[str, np.ndarray], pa.Table], list[np.ndarray]] | None = None
    # A teacher, and train.precision -> the function from a batch to the teacher's logits: [items, choices].
    asking: Callable[[PreTrainedModel, str], Callable[[dict[str, Any]], torch.Tensor]] | None = None


def load_teacher(
    folder: Path, auto_class: Any, mapping: Container[type], label_names: list[str] | None, **settings: Any
) -> PreTrainedModel:
    """Load a teacher in fp32.

    label_names: the labels that it must have, in this order, or None. settings: values that its config must have.
    UserError if it was not trained for this task and these labels.
    """
    model, drawn = checked(folder, auto_class, mapping)
    if drawn:
        raise UserError(
            f"model.teacher: its weights lack {min(drawn)}; expected a finished {type(model).__name__}, as a run of "
            "this task exports it"
        )
    config: Any = model.config
    found = [config.id2label[number] for number in range(config.num_labels)]
    if label_names is not None and found != label_names:
        raise UserError(
            f"model.teacher: its labels are {_some(found)}; expected those of the corpus, in their order: "
            f"{_some(label_names)}"
        )
    for key, value in settings.items():
        if (own := getattr(config, key)) != value:
            raise UserError(f"model.teacher: its {key} is {own}; expected {value}")
    return model


def _some(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def check_tokens(teacher: Any, student: Any) -> None:
    """Raise UserError if two tokenizers differ in a token or its id."""
    own, expected = teacher.get_vocab(), student.get_vocab()
    for token in sorted(own.keys() | expected.keys()):
        ids = [vocabulary.get(token) for vocabulary in (own, expected)]
        if ids[0] != ids[1]:
            where = ["no token" if number is None else f"token {number}" for number in ids]
            raise UserError(
                f"model.teacher: {token!r} is {where[0]} of its tokenizer and {where[1]} of the student's; expected a "
                "teacher with the vocabulary of the base model"
            )


def check_lengths(config: Any, features: pa.Table) -> None:
    """Raise UserError if a feature has more tokens than a teacher takes."""
    limit, longest = model_positions(config), pc.max(pc.list_value_length(features["input_ids"])).as_py()
    if limit is not None and longest > limit:
        raise UserError(f"model.teacher: it takes {limit} tokens, and a feature of train has {longest}; expected fewer")


def column(rows: list[np.ndarray]) -> pa.Array:
    """Return the logits of each feature, [items, choices], as list<fixed_size_list<float>>."""
    choices = rows[0].shape[1]
    values = pa.array(np.concatenate(rows).astype(np.float32).ravel())
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.FixedSizeListArray.from_arrays(values, choices))


def collator(collate: Callable[[pa.Table], dict[str, Any]]) -> Callable[[pa.Table], dict[str, Any]]:
    """Return a collator that adds the teacher's logits of all items, concatenated: float32 [items, choices]."""

    def taught(features: pa.Table) -> dict[str, Any]:
        batch = dict(collate(features))
        if TAUGHT in features.column_names:  # which validation lacks
            items = features[TAUGHT].combine_chunks().flatten()
            logits = padding.numbers(items.flatten()).reshape(-1, items.type.list_size)
            batch[TAUGHT] = torch.from_numpy(logits)
        return batch

    return taught


def teach(
    model: PreTrainedModel,
    divergence: Divergence,
    settings: Distillation,
    ask: Callable[[dict[str, Any]], torch.Tensor] | None = None,
) -> None:
    """Make the model, while it trains, add the divergence from the teacher's logits to its loss.

    The logits are in its batch, or `ask` returns those of a batch. Call it when the model has the loss of the labels.
    """
    asked: dict[str, torch.Tensor] = {}

    def take(model: Any, args: Any, inputs: dict[str, Any]) -> Any:
        given = inputs.pop(TAUGHT, None)
        if model.training:
            asked[TAUGHT] = ask(inputs) if ask else given
        return args, inputs

    def add(model: Any, _: Any, inputs: dict[str, Any], outputs: Any) -> Any:
        if model.training:
            soft = divergence(outputs, inputs, asked.pop(TAUGHT), settings.temperature)
            outputs["loss"] = settings.labels_weight * outputs["loss"] + settings.teacher_weight * soft
        return outputs

    # The first hook to see the batch, because others may take labels and tokens out of it.
    model.register_forward_pre_hook(take, with_kwargs=True, prepend=True)
    model.register_forward_hook(add, with_kwargs=True)


def divergences(logits: torch.Tensor, taught: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the Kullback-Leibler divergence of each item from the teacher's distribution, times temperature squared.

    logits, taught: [..., choices]. The square keeps the gradients as large as those of the labels at any temperature
    (Hinton et al. 2015, section 2).
    """
    student, teacher = (log_softmax(values.float() / temperature, dim=-1) for values in (logits, taught))
    return kl_div(student, teacher, reduction="none", log_target=True).sum(-1) * temperature**2
