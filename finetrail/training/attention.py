"""Turns queries, keys and values into attention with dropout, for which torch (2.13) has no fast way on a CPU."""

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from finetrail.training.dropout import scaled_mask

NAME = "finetrail_dropout"


def use_attention_with_dropout(model: PreTrainedModel) -> None:
    """Let a model that attends by torch's sdpa attend by the same products with a faster dropout."""
    if model.config._attn_implementation == "sdpa":
        AttentionInterface.register(NAME, attend)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        model.set_attn_implementation(NAME)


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend as transformers' sdpa_attention_forward, to which all goes that has no dropout or is special."""
    causal = attention_mask is None and (getattr(module, "is_causal", True) if is_causal is None else is_causal)
    applies = query.device.type == "cpu" and 0 < dropout < 1 and query.shape[1] == key.shape[1]
    applies &= not causal or query.shape[2] == key.shape[2]
    special = any(kwargs.get(name) is not None for name in ("position_bias", "cache", "softcap"))
    if not applies or special or torch.compiler.is_compiling():
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **kwargs
        )
    batch, heads, length, width = query.shape
    if causal:
        attention_mask = torch.ones(1, 1, length, length, dtype=torch.bool).tril()
    # One dimension of batches and heads: torch.matmul would make it too, and undo it.
    queries, keys, values = (states.flatten(0, 1) for states in (query, key, value))
    scores = torch.bmm(queries * (width**-0.5 if scaling is None else scaling), keys.transpose(1, 2))
    if attention_mask is not None:
        masked = scores.view(batch, heads, length, -1) + _as_addend(attention_mask, scores.dtype)
        scores = masked.view_as(scores)
    weights = scores.softmax(-1)
    weights = weights * scaled_mask(weights.shape, dropout, weights.dtype)
    attended = torch.bmm(weights, values).view(batch, heads, length, -1)
    return attended.transpose(1, 2).contiguous(), None


def _as_addend(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return what to add to scores: of a bool mask, the lowest number where it is false."""
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)
