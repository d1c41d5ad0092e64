"""Calls torch's flash attention for sequences of several lengths in one row.

Library: torch 2.11 to 2.13, the private operator aten::_flash_attention_forward
Reason: torch.nn.attention.varlen calls the same operator, but has no dropout.
Upstream: none known
Guard: the arguments of the operator begin with ARGUMENTS, and further ones have defaults; `training/packing.py` else
    trains with padding.
"""

import torch

ARGUMENTS = (
    "query", "key", "value", "cum_seq_q", "cum_seq_k", "max_q", "max_k", "dropout_p", "is_causal", "return_debug_mask",
    "scale", "window_size_left", "window_size_right",
)  # fmt: skip


def arguments() -> dict[str, bool]:
    """Return the operator's arguments in this version of torch -> whether each has a default; {} without it."""
    operator = getattr(torch.ops.aten, "_flash_attention_forward", None)
    found = [] if operator is None else operator.default._schema.arguments
    return {argument.name: argument.has_default_value() for argument in found}


def is_known() -> bool:
    """Return True if this version of torch has the operator as it is called here."""
    known, further = tuple(arguments())[: len(ARGUMENTS)], tuple(arguments().values())[len(ARGUMENTS) :]
    return known == ARGUMENTS and all(further)


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: torch.Tensor,
    longest: int,
    dropout: float,
    causal: bool,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """Attend within features on a GPU: [tokens, heads, width] -> the same. See `packing.reference`."""
    side = None if window is None else window - 1
    attended: torch.Tensor = torch.ops.aten._flash_attention_forward(
        query,
        key,
        value,
        bounds,
        bounds,
        longest,
        longest,
        dropout,
        causal,
        False,
        scale=scaling,
        window_size_left=side,
        window_size_right=0 if causal and window is not None else side,
    )[0]
    return attended
