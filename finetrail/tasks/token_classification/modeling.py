"""Turns a base model's folder into a model that labels words, and features into its batches."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModelForTokenClassification,
    DataCollatorForTokenClassification,
    PreTrainedModel,
)

from finetrail.errors import UserError
from finetrail.tasks import IGNORE_INDEX
from finetrail.tasks.token_classification.metrics import validate as validate

PIPELINE_TAG = "token-classification"


def build_model(base_model: Path, label_names: list[str]) -> PreTrainedModel:
    """Load a base model with a new head, drawn from torch's generator: seed it before.

    A tagger of the same labels keeps its head, to be trained on.
    UserError where the checkpoint lacks weights of the encoder, which would start random too.
    """
    config = AutoConfig.from_pretrained(base_model)
    if type(config) not in MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING:
        raise UserError(
            f"{base_model}: {config.model_type} has no token classification in transformers; expected an encoder"
        )
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
    drawn = loading["missing_keys"] | {name for name, *_ in loading["mismatched_keys"]}
    encoder = f"{model.base_model_prefix}."
    missing = sorted(name for name in drawn if name.startswith(encoder))
    if missing:
        raise UserError(
            f"{base_model}: {len(missing)} weights of the encoder are not in its safetensors with the shape that "
            f"config.json gives them, such as {missing[0]}; expected those of a {model.config.model_type} model"
        )
    if config.id2label != model.config.id2label:
        for name, module in model.named_modules():
            # As many labels as ours: loaded although they are others, or in another order.
            is_head = isinstance(module, torch.nn.Linear) and module.out_features == len(label_names)
            if is_head and not name.startswith(encoder) and f"{name}.weight" not in drawn:
                module.reset_parameters()
    return model


def load_model(folder: Path) -> PreTrainedModel:
    """Load a trained model with its head, in fp32."""
    return AutoModelForTokenClassification.from_pretrained(folder, use_safetensors=True, dtype=torch.float32)


def build_collator(tokenizer: Any) -> Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]:
    """Return what pads a batch of features to its longest, labels with IGNORE_INDEX."""
    return DataCollatorForTokenClassification(tokenizer, label_pad_token_id=IGNORE_INDEX)
