"""Computes the last layer of a classifier for the first token alone, which is all that its head reads.

Library: transformers 5.23, BertSelfAttention and its copies for other architectures
Reason: a layer computes every token. In a model of 6 layers the last is a sixth of the work, and most is not read.
Upstream: none known
Guard: encoders of LIKE_BERT with a head for sequences, whose self-attention is one of SELF_ATTENTIONS and attends by
    `attention`; calls without keyword arguments that are set. Other calls run the class's own forward().

1. forward() of the last self-attention is replaced: one query per text, keys and values for all tokens.
2. A hook cuts the layer's input, which is added to what was attended, to the first token.
3. The rest of the layer, and the head, get [batch, 1, width] and compute the same logits.
"""

from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, PreTrainedModel

from finetrail.patches import attention
from finetrail.patches.architectures import SELF_ATTENTIONS, has_berts_layers, has_head


def compute_first_token_only(model: PreTrainedModel) -> None:
    """Make a model that classifies by its first token compute its last layer for that token; the logits stay the same.

    Call it after use_attention_with_dropout().
    """
    classifies = has_head(model, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING) and has_berts_layers(model)
    if classifies and model.config._attn_implementation == attention.NAME:
        encoder: Any = model.base_model.encoder
        last = encoder.layer[-1].attention
        if type(last.self).__name__ in SELF_ATTENTIONS:
            last.self.forward = partial(attend_to_first, last.self)
            last.output.register_forward_pre_hook(lambda module, states: tuple(part[:, :1] for part in states))


def attend_to_first(
    module: Any, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
) -> tuple[torch.Tensor, None]:
    """Attend as BertSelfAttention, by the first token's query alone: [batch, length, width] -> [batch, 1, width].

    With a keyword argument that is set, the class's own forward() attends by all queries: [batch, length, width].
    """
    if any(value is not None for value in kwargs.values()):
        all_tokens: tuple[torch.Tensor, None] = type(module).forward(module, hidden_states, attention_mask, **kwargs)
        return all_tokens

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
    )
    return attended.flatten(2), weights
