"""Turns a base model's folder into a model that labels or scores texts, and features into its batches."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from finetrail.encoding import padding
from finetrail.model import distillation, losses, standardization
from finetrail.model.loading import with_new_head
from finetrail.tasks.text_classification.settings import TARGETS, Train, heads_of

# Of the features, what the collator takes.
COLUMNS = ("input_ids", "token_type_ids", "labels", distillation.TAUGHT)
# A batch's loss is the mean of the losses of its items, so it may go through in parts.
SEPARABLE = True
# Each epoch gives a model the same inputs, so that a teacher has to see them once.
INPUTS_STAY = True

# The problem as transformers names it, by which its models choose their loss.
PROBLEM_TYPES = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}


def notes(base_model: Path) -> list[str]:
    """Return what people should know of the base model, a sentence each."""
    return []


def build_model(base_model: Path, target: dict[str, Any], settings: Train, train: Dataset) -> PreTrainedModel:
    """Load a base model with a new head, drawn from torch's generator: seed it before.

    A classifier of the same labels keeps its head, to be trained on. A head for scores learns them standardised, until
    finish(). UserError where the checkpoint lacks weights of the encoder, which would start random too, or class
    weights do not go with the labels.
    """
    problem = target["problem"]
    model, head_is_kept = with_new_head(
        base_model,
        AutoModelForSequenceClassification,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
        target["label_names"] or [TARGETS[problem]],
        problem_type=PROBLEM_TYPES[problem],
    )
    if (
        model.config.pad_token_id is None
    ):  # GPT-2: its head looks for the last token that is none, as its tokenizer pads
        model.config.pad_token_id = model.config.eos_token_id
    if heads := heads_of(target):
        losses.separate(model, list(heads.values()))
    losses.adjust(model, target["label_names"], settings, train)
    if problem == "regression":
        standardization.standardize(model, target["mean"], target["std"], head_is_kept)
    return model


def finish(model: PreTrainedModel) -> None:
    """Make the model that has trained a plain one, which by itself gives scores in their own unit."""
    if model.config.problem_type == PROBLEM_TYPES["regression"]:
        standardization.fold(model)


def load_teacher(folder: Path, target: dict[str, Any]) -> PreTrainedModel:
    """Load a finished classifier of the same labels, in fp32; UserError where it is none."""
    return distillation.load_teacher(
        folder,
        AutoModelForSequenceClassification,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
        target["label_names"],
        problem_type=PROBLEM_TYPES[target["problem"]],
    )


def taught(outputs: dict[str, np.ndarray], features: pa.Table) -> list[np.ndarray]:
    """Return a teacher's logits of each feature of a batch: [1, labels]."""
    return list(outputs["logits"][:, None])


def divergence(outputs: Any, inputs: dict[str, Any], taught: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the mean divergence over features; of several labels at once, over all of them, each a yes or no."""
    logits = outputs["logits"]
    if inputs["labels"].is_floating_point():  # as many labels as apply
        logits, taught = (torch.stack([values, torch.zeros_like(values)], dim=-1) for values in (logits, taught))
    return distillation.divergences(logits, taught, temperature).mean()


def build_collator(tokenizer: Any, settings: Train) -> Callable[[pa.Table], dict[str, torch.Tensor]]:
    """Return what pads a batch of features to its longest."""

    def collate(features: pa.Table) -> dict[str, torch.Tensor]:
        labels = features["labels"]
        of_lists = pa.types.is_list(labels.type)  # a number for each label, of which no feature lacks one
        values = padding.filled(*padding.runs(labels), 0) if of_lists else padding.numbers(labels)
        arrays = padding.model_inputs(features, tokenizer) | {"labels": values}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    return collate


def items(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return over how many items the loss of a batch is a mean: its features, each with all its labels."""
    return torch.tensor(len(batch["labels"]))


def reduce(logits: Any, labels: torch.Tensor) -> torch.Tensor:
    """Keep the logits, float32 [batch, labels]; some models give hidden states behind them."""
    return (logits[0] if isinstance(logits, tuple) else logits).float()
