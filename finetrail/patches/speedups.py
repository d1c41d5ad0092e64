"""Applies the patches that make training with padding faster (`train.speedups`).

The losses are those of the unpatched model, but for what dropout draws. The weights and the exported configuration
stay as they are.
"""

import torch
from transformers import PreTrainedModel

from finetrail.patches import labelled_tokens, memory
from finetrail.patches.architectures import fills_masks
from finetrail.patches.attention import use_attention_with_dropout
from finetrail.patches.attention_masks import use_masks_unread
from finetrail.patches.dropout import use_scaled_masks
from finetrail.patches.first_token import compute_first_token_only


def speed_up(model: PreTrainedModel, compiles: bool) -> None:
    """Make training with padding faster.

    On an accelerator only attention masks change, and the head of models that fill masks.
    compiles: torch.compile follows.
    """
    if fills_masks(model) and labelled_tokens.knows(model):
        labelled_tokens.compute_labelled_tokens_only(model, compiles)
    if torch.accelerator.is_available():
        use_masks_unread(model)
        return
    memory.keep_memory()
    memory.keep_few_prepared()
    use_scaled_masks(model)
    use_attention_with_dropout(model)
    compute_first_token_only(model)
    if not fills_masks(model) and labelled_tokens.knows(model) and not compiles:
        labelled_tokens.compute_labelled_tokens_only(model, compiles)
