"""Turns a model's last layer into one that computes, behind its attention, only the tokens that the head reads."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, PreTrainedModel

# Architectures with BERT's layer, and with a head for sequences that reads the first token.
LIKE_BERT = {"bert", "camembert", "electra", "roberta", "xlm-roberta"}


def only_first(model: PreTrainedModel) -> None:
    """Let a model that classifies by its first token compute the last layer for that one: the logits stay the same."""
    # By its config: to look through the values of the mapping would import each architecture, which takes seconds.
    if type(model) is MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(model.config), None):
        select_in_last_layer(model, lambda states: states[:, :1])


def select_in_last_layer(model: PreTrainedModel, select: Callable[[torch.Tensor], torch.Tensor]) -> bool:
    """Let the base model end with select(its states), made before the last layer's products behind its attention.

    select: [batch, length, width] -> the rows to keep of it, in as many dimensions. Returns False, and does nothing,
    for an architecture whose layers are not BERT's.
    """
    if model.config.model_type not in LIKE_BERT:
        return False

    def selected(module: nn.Module, states: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(map(select, states))  # what attention gives, and what it is added to

    encoder: Any = model.base_model.encoder
    encoder.layer[-1].attention.output.register_forward_pre_hook(selected)
    return True
