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
    PreTrainedTokenizerBase,
)

from finetrail.encoding import padding
from finetrail.model import distillation, losses, standardization
from finetrail.model.loading import with_new_head
from finetrail.tasks.text_classification.settings import TARGETS, Target, Train, heads_of

COLUMNS = ("input_ids", "token_type_ids", "labels", distillation.TAUGHT)
SEPARABLE = True

# The problem as transformers names it, by which its models choose their loss.
PROBLEM_TYPES = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}


def notes(base_model: Path) -> list[str]:
    return []


def build_model(base_model: Path, target: Target, settings: Train, train: Dataset) -> PreTrainedModel:
    """Load a base model with a new head; a classifier with the same labels keeps its head.

    A head for scores is trained on standardized scores until finish(). UserError if weights of the encoder are missing,
    which would be random too, or if class weights do not fit the labels.
    """
    problem = target["problem"]
    model, head_is_kept = with_new_head(
        base_model,
        AutoModelForSequenceClassification,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
        target["label_names"] or [TARGETS[problem]],
        problem_type=PROBLEM_TYPES[problem],
    )
    # GPT-2's head reads the last token that is not padding, and its tokenizer pads with eos.
    if model.config.pad_token_id is None:
        model.config.pad_token_id = model.config.eos_token_id
    if heads := heads_of(target):
        losses.separate(model, list(heads.values()))
    losses.adjust(model, target["label_names"], settings, train)
    if problem == "regression":
        standardization.standardize(model, target["mean"], target["std"], head_is_kept)
    return model


def finish(model: PreTrainedModel) -> None:
    """Fold the standardization into the head, so that the plain model gives scores in their own unit."""
    if model.config.problem_type == PROBLEM_TYPES["regression"]:
        standardization.fold(model)


def load_teacher(folder: Path, target: Target) -> PreTrainedModel:
    """Load a finished classifier with the same labels; UserError for any other."""
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
    """Return the mean divergence over features; with several labels per text, over these binary choices."""
    logits = outputs["logits"]
    if inputs["labels"].is_floating_point():  # as many labels as apply
        logits, taught = (torch.stack([values, torch.zeros_like(values)], dim=-1) for values in (logits, taught))
    return distillation.divergences(logits, taught, temperature).mean()


# Each epoch has the same inputs, so a teacher has to see them only once.
TEACHING = distillation.Teaching(load_teacher, divergence, taught=taught)


def build_collator(
    tokenizer: PreTrainedTokenizerBase, settings: Train
) -> Callable[[pa.Table], dict[str, torch.Tensor]]:

    def collate(features: pa.Table) -> dict[str, torch.Tensor]:
        labels = features["labels"]
        of_lists = pa.types.is_list(labels.type)  # a number for each label, of which no feature lacks one
        values = padding.filled(*padding.runs(labels), 0) if of_lists else padding.numbers(labels)
        arrays = padding.model_inputs(features, tokenizer) | {"labels": values}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    return collate


def num_items(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Count the features; the loss of one is the mean over its labels."""
    return torch.tensor(len(batch["labels"]))


def reduce(logits: Any, labels: torch.Tensor) -> torch.Tensor:
    """Return the logits, float32 [batch, labels]; some models return hidden states after them."""
    return (logits[0] if isinstance(logits, tuple) else logits).float()
