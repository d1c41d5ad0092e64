"""Turns a base model's folder into a model that labels words, and features into its batches."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from transformers import (
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    AutoModelForTokenClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from finetrail.encoding import padding
from finetrail.labels import IGNORE_INDEX
from finetrail.model import distillation, losses
from finetrail.model.loading import with_new_head
from finetrail.tasks.token_classification.settings import Target, Train, label_names

# Optional in tasks/contract.py, and not used here.
finish = None

COLUMNS = ("input_ids", "labels", distillation.TAUGHT)
SEPARABLE = True


def notes(base_model: Path) -> list[str]:
    return []


def build_model(base_model: Path, target: Target, settings: Train, train: Dataset) -> PreTrainedModel:
    """Load a base model with a new head; a tagger with the same labels keeps its head.

    UserError if weights of the encoder are missing, which would be random too, or if class weights do not fit the
    labels.
    """
    names = label_names(target)
    model, _ = with_new_head(base_model, AutoModelForTokenClassification, MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING, names)
    losses.adjust(model, names, settings, train)
    return model


def load_teacher(folder: Path, target: Target) -> PreTrainedModel:
    """Load a finished tagger with the same labels; UserError for any other."""
    return distillation.load_teacher(
        folder, AutoModelForTokenClassification, MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING, label_names(target)
    )


def taught(outputs: dict[str, np.ndarray], features: pa.Table) -> list[np.ndarray]:
    """Return a teacher's logits of each feature of a batch, of its tokens with labels: [labelled, labels]."""
    known = [np.array(labels) != IGNORE_INDEX for labels in features["labels"].to_pylist()]
    return [of_one[: len(kept)][kept] for of_one, kept in zip(outputs["logits"], known, strict=True)]


def divergence(outputs: Any, inputs: dict[str, Any], taught: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the mean divergence over the tokens with labels."""
    logits = outputs["logits"][inputs["labels"] != IGNORE_INDEX]
    return distillation.divergences(logits, taught, temperature).mean()


# Each epoch has the same inputs, so a teacher has to see them only once.
TEACHING = distillation.Teaching(load_teacher, divergence, taught=taught)


def build_collator(
    tokenizer: PreTrainedTokenizerBase, settings: Train
) -> Callable[[pa.Table], dict[str, torch.Tensor]]:

    def collate(features: pa.Table) -> dict[str, torch.Tensor]:
        labels = padding.filled(*padding.runs(features["labels"]), IGNORE_INDEX, tokenizer.padding_side == "left")
        arrays = padding.model_inputs(features, tokenizer) | {"labels": labels}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    return collate


def num_items(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Count the tokens with labels."""
    return (batch["labels"] != IGNORE_INDEX).sum()


def reduce(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the best label of each token: int64 [batch, length]."""
    return logits.argmax(-1)
