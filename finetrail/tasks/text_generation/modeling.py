"""Turns a base model's folder into a model that continues text, and features into its batches."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
)

from finetrail import layout
from finetrail.encoding import padding
from finetrail.errors import UserError
from finetrail.labels import IGNORE_INDEX
from finetrail.model.loading import checked
from finetrail.tasks.text_generation.settings import Train

# Of the features, what the collator takes.
COLUMNS = ("input_ids", "labels")
# A batch's loss is the mean of the losses of its items, so it may go through in parts.
SEPARABLE = True


def notes(base_model: Path) -> list[str]:
    """Return what people should know of the base model, a sentence each."""
    return []


def build_model(base_model: Path, target: dict[str, Any], settings: Train, train: Dataset) -> PreTrainedModel:
    """Load a base model, or make a new one of its config, drawn from torch's generator: seed it before; fp32.

    UserError where the architecture is no causal language model, or the checkpoint lacks weights.
    """
    if layout.has_weights(base_model):
        model, _ = checked(base_model, AutoModelForCausalLM, MODEL_FOR_CAUSAL_LM_MAPPING)
    else:
        config = AutoConfig.from_pretrained(base_model)
        if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
            raise UserError(f"{base_model}: {config.model_type} has no CausalLM in transformers; expected such as gpt2")
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    if not is_causal(model):
        raise UserError(f"{base_model}: {model.config.model_type} sees the tokens it is to predict; expected a decoder")
    return model


@torch.no_grad()
def is_causal(model: PreTrainedModel) -> bool:
    """Tell whether later tokens leave earlier logits as they are: BERT's do not, though it is made a causal LM."""
    training = model.training
    model.eval()
    first, second = (model(input_ids=torch.tensor([[1, 2, 3, last]])).logits[0, :3] for last in (4, 5))
    model.train(training)
    return torch.allclose(first, second, atol=1e-5)


def build_collator(tokenizer: Any, settings: Train) -> Callable[[pa.Table], dict[str, torch.Tensor]]:
    """Return what pads a batch of features to its longest, labels with IGNORE_INDEX."""

    def collate(features: pa.Table) -> dict[str, torch.Tensor]:
        labels = padding.filled(*padding.runs(features["labels"]), IGNORE_INDEX, tokenizer.padding_side == "left")
        arrays = padding.model_inputs(features, tokenizer) | {"labels": labels}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    return collate


def items(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return over how many items the loss of a batch is a mean: tokens with labels, but each first one."""
    return (batch["labels"][:, 1:] != IGNORE_INDEX).sum()


def reduce(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Keep the loss of each token, at its own position: float32 [batch, length], 0 where there is no label.

    One feature after the other: the softmax of a whole batch would take as much memory as its logits once more.
    """
    losses = torch.zeros(labels.shape, dtype=torch.float32, device=logits.device)
    for row, scores, wanted in zip(losses, logits, labels, strict=True):
        row[1:] = cross_entropy(scores[:-1].float(), wanted[1:], ignore_index=IGNORE_INDEX, reduction="none")
    return losses
