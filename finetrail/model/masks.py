"""Turns a model into one that makes its attention masks without reading from its device."""

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "finetrail_sdpa"


def use_masks_unread(model: PreTrainedModel) -> None:
    """Let a model that attends by torch's sdpa take each mask that it is given.

    transformers (5.17 to 5.23) first reads whether a mask leaves anything out: each pass then waits for the GPU. The
    outputs are the same. A batch without padding is faster without a mask.
    """
    if model.config._attn_implementation == "sdpa":
        AttentionInterface.register(NAME, sdpa_attention_forward)
        AttentionMaskInterface.register(NAME, _mask)
        model.set_attn_implementation(NAME)


def _mask(*args: Any, **options: Any) -> torch.Tensor | None:
    """Return sdpa_mask's mask; with a mask of padding always one."""
    if options.get("attention_mask") is not None:
        options |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    return sdpa_mask(*args, **options)
