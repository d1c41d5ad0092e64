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
    PreTrainedTokenizerBase,
)

from finetrail.encoding import padding
from finetrail.model import distillation, loading
from finetrail.tasks.question_answering.settings import Target, Train

# Optional in tasks/contract.py, and not used here.
finish = None

COLUMNS = ("input_ids", "token_type_ids", "start_positions", "end_positions", distillation.TAUGHT)
SEPARABLE = True

# Logit of positions that cannot be chosen. Not -inf: 0 * log 0 is nan.
NEVER = -1e9


def notes(base_model: Path) -> list[str]:
    return []


def build_model(base_model: Path, target: Target, settings: Train, train: Dataset) -> PreTrainedModel:
    """Load a base model with a new head; a model that answers questions keeps its head."""
    # Two outputs a token, start and end; a base model that was a classifier has as many as it had classes.
    model, _ = loading.checked(
        base_model,
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


def load_teacher(folder: Path, target: Target) -> PreTrainedModel:
    """Load a finished extractive question-answering model; UserError for any other."""
    return distillation.load_teacher(
        folder, AutoModelForQuestionAnswering, MODEL_FOR_QUESTION_ANSWERING_MAPPING, label_names=None
    )


def taught(outputs: dict[str, np.ndarray], features: pa.Table) -> list[np.ndarray]:
    """Return a teacher's logits of each feature of a batch, of start and end at each token: [tokens, 2]."""
    both = np.stack([outputs["start_logits"], outputs["end_logits"]], axis=-1)
    lengths = pc.list_value_length(features["input_ids"]).to_pylist()
    return [of_one[:length] for of_one, length in zip(both, lengths, strict=True)]


def divergence(outputs: Any, inputs: dict[str, Any], taught: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the mean divergence over features, each with a choice among its tokens for start and end."""
    tokens = inputs["attention_mask"].bool()
    whole = taught.new_full((*tokens.shape, 2), NEVER)
    whole[tokens] = taught
    logits = torch.stack([outputs["start_logits"], outputs["end_logits"]], dim=-1).float()
    logits = logits.masked_fill(~tokens[..., None], NEVER)
    return distillation.divergences(logits.mT, whole.mT, temperature).mean()


# Each epoch has the same inputs, so a teacher has to see them only once.
TEACHING = distillation.Teaching(load_teacher, divergence, taught=taught)


def build_collator(
    tokenizer: PreTrainedTokenizerBase, settings: Train
) -> Callable[[pa.Table], dict[str, torch.Tensor]]:

    def collate(features: pa.Table) -> dict[str, torch.Tensor]:
        places = {name: padding.numbers(features[name]) for name in ("start_positions", "end_positions")}
        arrays = padding.model_inputs(features, tokenizer) | places
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    return collate


def num_items(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Count the features."""
    return torch.tensor(len(batch["start_positions"]))


def reduce(logits: tuple[torch.Tensor, ...], labels: Any) -> tuple[torch.Tensor, ...]:
    """Return the logits of start and end: only the features tell where the context is."""
    return logits[:2]
