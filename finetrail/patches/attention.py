"""Computes attention with dropout by plain matrix products.

Library: transformers 5.23 (AttentionInterface), torch 2.13
Reason: on a CPU, torch's scaled_dot_product_attention has no fast kernel with dropout.
Upstream: none known
Guard: models that attend by sdpa; calls on a CPU with dropout, as many heads of keys as of queries, no other keyword
    arguments than KNOWN that are set, not compiled. Other calls go to sdpa_attention_forward.
"""

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from finetrail.patches.dropout import DTYPES, scaled_mask

NAME = "finetrail_dropout"
# What layers pass on and sdpa_attention_forward ignores: the mask has positions and windows in it already.
KNOWN = {"cache_position", "deterministic", "position_ids", "sliding_window", "use_cache"}


def use_attention_with_dropout(model: PreTrainedModel) -> None:
    """Make a model that attends by torch's sdpa compute the same products with a faster dropout."""
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
    """Attend as transformers' sdpa_attention_forward, which gets every call that this function does not know."""
    causal = attention_mask is None and (getattr(module, "is_causal", True) if is_causal is None else is_causal)
    if not _applies(query, key, dropout, causal, kwargs):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **kwargs
        )
    batch, heads, length, width = query.shape
    if causal:
        attention_mask = torch.ones(1, 1, length, length, dtype=torch.bool).tril()
    # One dimension for batch and heads: torch.matmul would make it as well, and undo it.
    queries, keys, values = (states.flatten(0, 1) for states in (query, key, value))
    scores = torch.bmm(queries * (width**-0.5 if scaling is None else scaling), keys.transpose(1, 2))
    if attention_mask is not None:
        masked = scores.view(batch, heads, length, -1) + _as_addend(attention_mask, scores.dtype)
        scores = masked.view_as(scores)
    weights = scores.softmax(-1)
    weights = weights * scaled_mask(weights.shape, dropout, weights.dtype)
    attended = torch.bmm(weights, values).view(batch, heads, length, -1)
    return attended.transpose(1, 2).contiguous(), None


def _applies(query: torch.Tensor, key: torch.Tensor, dropout: float, causal: bool, kwargs: dict[str, Any]) -> bool:
    """Return True if a call is one that this module knows."""
    known = all(value is None or value is False or name in KNOWN for name, value in kwargs.items())
    heads_match = query.shape[1] == key.shape[1] and (not causal or query.shape[2] == key.shape[2])
    on_cpu = query.device.type == "cpu" and query.dtype in DTYPES
    return known and on_cpu and heads_match and 0 < dropout < 1 and not torch.compiler.is_compiling()


def _as_addend(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return what to add to the scores: for a bool mask, the lowest number where it is False."""
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)
