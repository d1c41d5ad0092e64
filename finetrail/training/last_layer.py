"""Turns a classifier's last layer into one that computes only the first token, where the head reads no other."""

from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, PreTrainedModel

from finetrail.training import attention

# Architectures with BERT's layer, and with a head for sequences that reads the first token.
LIKE_BERT = {"bert", "camembert", "electra", "roberta", "xlm-roberta"}


def only_first(model: PreTrainedModel) -> None:
    """Let a model that attends by our attention, and classifies by its first token, compute its last layer for that.

    The logits stay the same.
    """
    # By its config: to look through the values of the mapping would import each architecture, which takes seconds.
    classifies = type(model) is MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(model.config), None)
    config = model.config
    if classifies and config.model_type in LIKE_BERT and config._attn_implementation == attention.NAME:
        encoder: Any = model.base_model.encoder
        last = encoder.layer[-1].attention
        last.self.forward = partial(attend_to_first, last.self)
        last.output.register_forward_pre_hook(lambda module, states: (states[0], states[1][:, :1]))


def attend_to_first(
    module: Any, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
) -> tuple[torch.Tensor, None]:
    """Attend as BertSelfAttention, by the first token's query alone: [batch, length, width] -> [batch, 1, width]."""

    def heads(layer: nn.Module, states: torch.Tensor) -> torch.Tensor:
        return layer(states).unflatten(-1, (-1, module.attention_head_size)).transpose(1, 2)

    attended, weights = attention.attend(
        module,
        heads(module.query, hidden_states[:, :1]),
        heads(module.key, hidden_states),
        heads(module.value, hidden_states),
        None if attention_mask is None else attention_mask[:, :, :1],
        dropout=module.dropout.p if module.training else 0.0,
        scaling=module.scaling,
        is_causal=False,
        **kwargs,
    )
    return attended.flatten(2), weights
