"""Makes attention masks without reading from the device.

Library: transformers 5.17 to 5.23 (sdpa_mask, AttentionMaskInterface)
Reason: sdpa_mask reads whether a mask leaves anything out, so that every pass waits for the GPU.
Upstream: none known
Guard: models that attend by sdpa, and a sdpa_mask with the two options in SKIPS.
"""

import inspect
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "finetrail_sdpa"
SKIPS = {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}


def use_masks_unread(model: PreTrainedModel) -> None:
    """Make a model that attends by torch's sdpa use each mask that it is given, without reading it first.

    The outputs are the same. A batch without padding is faster without a mask.
    """
    if model.config._attn_implementation == "sdpa" and SKIPS.keys() <= inspect.signature(sdpa_mask).parameters.keys():
        AttentionInterface.register(NAME, sdpa_attention_forward)
        AttentionMaskInterface.register(NAME, _mask)
        model.set_attn_implementation(NAME)


def _mask(*args: Any, **options: Any) -> torch.Tensor | None:
    """Return sdpa_mask's mask; it is always one for a mask of padding."""
    if options.get("attention_mask") is not None:
        options |= SKIPS
    return sdpa_mask(*args, **options)
