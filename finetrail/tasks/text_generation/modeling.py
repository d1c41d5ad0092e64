"""Turns a base model's folder into a model that continues text, and features into its batches."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from finetrail import layout
from finetrail.encoding import padding
from finetrail.errors import UserError
from finetrail.labels import IGNORE_INDEX
from finetrail.model.loading import checked
from finetrail.tasks.text_generation.settings import Target, Train

# Optional in tasks/contract.py, and not used here.
TEACHING = finish = None

COLUMNS = ("input_ids", "labels")
SEPARABLE = True


def notes(base_model: Path) -> list[str]:
    return []


def build_model(base_model: Path, target: Target, settings: Train, train: Dataset) -> PreTrainedModel:
    """Load a base model, or initialize a new one from its config.

    UserError if the architecture is no causal language model, or weights are missing.
    """
    if layout.has_weights(base_model):
        model, _ = checked(base_model, AutoModelForCausalLM, MODEL_FOR_CAUSAL_LM_MAPPING)
    else:
        config = AutoConfig.from_pretrained(base_model)
        if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
            raise UserError(f"{base_model}: no CausalLM of {config.model_type} in transformers; expected e.g. gpt2")
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    if not is_causal(model):
        raise UserError(f"{base_model}: {model.config.model_type} attends to the tokens to predict; expected a decoder")
    return model


@torch.no_grad()
def is_causal(model: PreTrainedModel) -> bool:
    """Return True if later tokens do not change earlier logits, which they do in BERT, also as a causal LM."""
    training = model.training
    model.eval()
    first, second = (model(input_ids=torch.tensor([[1, 2, 3, last]])).logits[0, :3] for last in (4, 5))
    model.train(training)
    return torch.allclose(first, second, atol=1e-5)


def build_collator(
    tokenizer: PreTrainedTokenizerBase, settings: Train
) -> Callable[[pa.Table], dict[str, torch.Tensor]]:

    def collate(features: pa.Table) -> dict[str, torch.Tensor]:
        labels = padding.filled(*padding.runs(features["labels"]), IGNORE_INDEX, tokenizer.padding_side == "left")
        arrays = padding.model_inputs(features, tokenizer) | {"labels": labels}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    return collate


def num_items(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Count the tokens with labels, without the first of each feature, which nothing predicts."""
    return (batch["labels"][:, 1:] != IGNORE_INDEX).sum()


def reduce(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the loss of each token at its own position: float32 [batch, length], 0 without a label.

    The features are processed one by one, because the softmax of a batch would need as much memory as its logits.
    """
    losses = torch.zeros(labels.shape, dtype=torch.float32, device=logits.device)
    for row, scores, wanted in zip(losses, logits, labels, strict=True):
        row[1:] = cross_entropy(scores[:-1].float(), wanted[1:], ignore_index=IGNORE_INDEX, reduction="none")
    return losses
