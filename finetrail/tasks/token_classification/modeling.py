"""Turns a base model's folder into a model that labels words, and features into its batches."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForTokenClassification, DataCollatorForTokenClassification, PreTrainedModel

from finetrail.errors import UserError
from finetrail.tasks import IGNORE_INDEX
from finetrail.tasks.token_classification.metrics import validate as validate

PIPELINE_TAG = "token-classification"


def build_model(base_model: Path, label_names: list[str]) -> PreTrainedModel:
    """Load a base model with a new head, drawn from torch's generator: seed it before.

    UserError where the checkpoint lacks weights of the encoder, which would start random too.
    """
    # transformers 5 would keep the checkpoint's dtype, and train a half-precision checkpoint in half precision.
    model, loading = AutoModelForTokenClassification.from_pretrained(
        base_model,
        id2label=dict(enumerate(label_names)),
        label2id={name: index for index, name in enumerate(label_names)},
        ignore_mismatched_sizes=True,  # the base model may be a tagger itself, with labels of its own
        output_loading_info=True,
        use_safetensors=True,
        dtype=torch.float32,
    )
    missing = sorted(name for name in loading["missing_keys"] if name.startswith(f"{model.base_model_prefix}."))
    if missing:
        raise UserError(
            f"{base_model}: {len(missing)} weights of the encoder are not in its safetensors, such as {missing[0]}; "
            f"expected those of a {model.config.model_type} model"
        )
    return model


def load_model(folder: Path) -> PreTrainedModel:
    """Load a trained model with its head, in fp32."""
    return AutoModelForTokenClassification.from_pretrained(folder, use_safetensors=True, dtype=torch.float32)


def build_collator(tokenizer: Any) -> Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]:
    """Return what pads a batch of features to its longest, labels with IGNORE_INDEX."""
    return DataCollatorForTokenClassification(tokenizer, label_pad_token_id=IGNORE_INDEX)
