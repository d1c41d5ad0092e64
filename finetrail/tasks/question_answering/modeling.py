"""Turns a base model's folder into a model that points at answers, and features into its batches."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy
from transformers import (
    MODEL_FOR_QUESTION_ANSWERING_MAPPING,
    AutoModelForQuestionAnswering,
    PreTrainedModel,
)

from finetrail.encoding import padding
from finetrail.model import distillation, loading
from finetrail.tasks.question_answering.settings import Train

# Of the features, what the collator takes.
COLUMNS = ("input_ids", "token_type_ids", "start_positions", "end_positions", distillation.TAUGHT)
# A batch's loss is the mean of the losses of its items, so it may go through in parts.
SEPARABLE = True
# Each epoch gives a model the same inputs, so that a teacher has to see them once.
INPUTS_STAY = True

# The logit of what is no choice. Not infinity: probability times logarithm would be no number.
NEVER = -1e9


def notes(folder: Path) -> list[str]:
    """Return what people should know of the base model, a sentence each."""
    return []


def build_model(folder: Path, target: dict[str, bool], settings: Train, train: Dataset) -> PreTrainedModel:
    """Load a base model with a new head, drawn from torch's generator: seed it before.

    A model that answers questions keeps its head, to be trained on.
    """
    # Two outputs a token, start and end; a base model that was a classifier has as many as it had classes.
    model, _ = loading.checked(
        folder,
        AutoModelForQuestionAnswering,
        MODEL_FOR_QUESTION_ANSWERING_MAPPING,
        num_labels=2,
        ignore_mismatched_sizes=True,
    )
    model.register_forward_hook(_without_padding, with_kwargs=True)
    return model


def _without_padding(model: torch.nn.Module, _: Any, inputs: dict[str, Any], outputs: Any) -> Any:
    """Take the loss over the tokens of each feature: that of transformers 5.23 also counts the padding as a choice."""
    if "start_positions" in inputs:
        losses = [
            cross_entropy(outputs[f"{end}_logits"].masked_fill(inputs["attention_mask"] == 0, -torch.inf), positions)
            for end, positions in (("start", inputs["start_positions"]), ("end", inputs["end_positions"]))
        ]
        outputs["loss"] = (losses[0] + losses[1]) / 2
    return outputs


def load_teacher(folder: Path, target: dict[str, bool]) -> PreTrainedModel:
    """Load a finished model that points at answers, in fp32; UserError where it is none."""
    return distillation.load_teacher(
        folder, AutoModelForQuestionAnswering, MODEL_FOR_QUESTION_ANSWERING_MAPPING, label_names=None
    )


def taught(outputs: dict[str, np.ndarray], features: pa.Table) -> list[np.ndarray]:
    """Return a teacher's logits of each feature of a batch, of start and end at each token: [tokens, 2]."""
    both = np.stack([outputs["start_logits"], outputs["end_logits"]], axis=-1)
    lengths = pc.list_value_length(features["input_ids"]).to_pylist()
    return [of_one[:length] for of_one, length in zip(both, lengths, strict=True)]


def divergence(outputs: Any, inputs: dict[str, Any], taught: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the mean divergence over features, each with a choice among its tokens for start and for end."""
    tokens = inputs["attention_mask"].bool()
    whole = taught.new_full((*tokens.shape, 2), NEVER)
    whole[tokens] = taught
    logits = torch.stack([outputs["start_logits"], outputs["end_logits"]], dim=-1).float()
    logits = logits.masked_fill(~tokens[..., None], NEVER)
    return distillation.divergences(logits.mT, whole.mT, temperature).mean()


def build_collator(tokenizer: Any, settings: Train) -> Callable[[pa.Table], dict[str, torch.Tensor]]:
    """Return what pads a batch of features to its longest."""

    def collate(features: pa.Table) -> dict[str, torch.Tensor]:
        places = {name: padding.numbers(features[name]) for name in ("start_positions", "end_positions")}
        arrays = padding.model_inputs(features, tokenizer) | places
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    return collate


def items(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return over how many items the loss of a batch is a mean: its features."""
    return torch.tensor(len(batch["start_positions"]))


def reduce(logits: tuple[torch.Tensor, ...], labels: Any) -> tuple[torch.Tensor, ...]:
    """Keep the logits of start and end: only with the features is it known where a context stands."""
    return logits[:2]
