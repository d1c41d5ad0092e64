"""Loads a base model's folder as a model of transformers, and refuses a checkpoint that lacks weights."""

from collections.abc import Container
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedModel

from finetrail.errors import UserError


def with_new_head(
    base_model: Path, auto_class: Any, mapping: Container[type], label_names: list[str], **config: Any
) -> tuple[PreTrainedModel, bool]:
    """Load a base model with a head for the labels, drawn from torch's generator if the checkpoint has none.

    A head for the same labels in the same order is kept; another one is drawn anew. The second value is True if the
    head was kept.
    """
    names = {"id2label": dict(enumerate(label_names)), "label2id": {name: i for i, name in enumerate(label_names)}}
    model, drawn = checked(base_model, auto_class, mapping, ignore_mismatched_sizes=True, **names, **config)
    encoder = f"{model.base_model_prefix}."
    has_same_labels = AutoConfig.from_pretrained(base_model).id2label == model.config.id2label
    if not has_same_labels:
        for name, module in model.named_modules():
            # With equally many labels, the head was loaded although they are others, or in another order.
            is_head = isinstance(module, torch.nn.Linear) and module.out_features == len(label_names)
            if is_head and not name.startswith(encoder) and f"{name}.weight" not in drawn:
                module.reset_parameters()
    return model, has_same_labels and all(name.startswith(encoder) for name in drawn)


def checked(
    base_model: Path, auto_class: Any, mapping: Container[type], **options: Any
) -> tuple[PreTrainedModel, set[str]]:
    """Load a model in fp32, and return it with the names of the weights that are not from the checkpoint.

    mapping: the configurations that the AutoModel class knows. options: passed on to from_pretrained.
    UserError if the class does not know the architecture, or if weights of the encoder would be random.
    """
    config = AutoConfig.from_pretrained(base_model)
    if type(config) not in mapping:
        name = auto_class.__name__.removeprefix("AutoModelFor")
        raise UserError(f"{base_model}: {config.model_type} has no {name} in transformers; expected a model that has")
    # transformers 5 keeps the checkpoint's dtype by default, and would train in half precision.
    model, loading = auto_class.from_pretrained(
        base_model, output_loading_info=True, use_safetensors=True, dtype=torch.float32, **options
    )
    drawn = set(loading["missing_keys"]) | {name for name, *_ in loading["mismatched_keys"]}
    encoder = f"{model.base_model_prefix}."
    # A pooler belongs to the head: a masked language model has none.
    missing = sorted(name for name in drawn if name.startswith(encoder) and not name.startswith(f"{encoder}pooler."))
    if missing:
        raise UserError(
            f"{base_model}: {len(missing)} weights of the encoder are not in its safetensors with the shape that "
            f"config.json gives them, such as {missing[0]}; expected those of a {config.model_type} model"
        )
    return model, drawn
