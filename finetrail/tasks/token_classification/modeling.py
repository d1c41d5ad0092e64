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
)

from finetrail.encoding import padding
from finetrail.labels import IGNORE_INDEX
from finetrail.model import distillation, losses
from finetrail.model.loading import with_new_head
from finetrail.tasks.token_classification.settings import Target, Train, label_names

# Of the features, what the collator takes.
COLUMNS = ("input_ids", "labels", distillation.TAUGHT)
# A batch's loss is the mean of the losses of its items, so it may go through in parts.
SEPARABLE = True
# Each epoch gives a model the same inputs, so that a teacher has to see them once.
INPUTS_STAY = True


def notes(base_model: Path) -> list[str]:
    """Return what people should know of the base model, a sentence each."""
    return []


def build_model(base_model: Path, target: Target, settings: Train, train: Dataset) -> PreTrainedModel:
    """Load a base model with a new head, drawn from torch's generator: seed it before.

    A tagger of the same labels keeps its head, to be trained on.
    UserError where the checkpoint lacks weights of the encoder, which would start random too, or class weights do not
    go with the labels.
    """
    names = label_names(target)
    model, _ = with_new_head(base_model, AutoModelForTokenClassification, MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING, names)
    losses.adjust(model, names, settings, train)
    return model


def load_teacher(folder: Path, target: Target) -> PreTrainedModel:
    """Load a finished tagger of the same labels, in fp32; UserError where it is none."""
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


def build_collator(tokenizer: Any, settings: Train) -> Callable[[pa.Table], dict[str, torch.Tensor]]:
    """Return what pads a batch of features to its longest, labels with IGNORE_INDEX."""

    def collate(features: pa.Table) -> dict[str, torch.Tensor]:
        labels = padding.filled(*padding.runs(features["labels"]), IGNORE_INDEX, tokenizer.padding_side == "left")
        arrays = padding.model_inputs(features, tokenizer) | {"labels": labels}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    return collate


def items(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return over how many items the loss of a batch is a mean: its tokens with labels."""
    return (batch["labels"] != IGNORE_INDEX).sum()


def reduce(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Keep the best label of each token: int64 [batch, length]."""
    return logits.argmax(-1)
