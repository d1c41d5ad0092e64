"""Draws dropout masks from random bits.

Library: torch 2.13
Reason: on a CPU, nn.Dropout draws number by number, which takes as long as a small matrix product.
Upstream: none known
Guard: layers whose type is exactly nn.Dropout, not in place, 0 < p < 1, on a CPU, in one of DTYPES, not compiled.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn

VALUES = 2**16  # of the 16 random bits that decide on a number
LOWEST = -(2**15)  # of them, as int16
DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


def scaled_mask(shape: Sequence[int], p: float, dtype: torch.dtype) -> torch.Tensor:
    """Return what dropout multiplies by: 0 with probability p, to within 2**-17, and 1 / (1 - p) else; 0 < p < 1.

    It is drawn from torch's own CPU generator. dtype is one of DTYPES.
    """
    count = math.prod(shape)
    words = torch.empty(math.ceil(count / 4), dtype=torch.int64).random_(LOWEST * 2**48, None)
    bits = words.view(torch.int16)[:count]
    kept = torch.ge(bits, min(round(p * VALUES), VALUES - 1) + LOWEST, out=bits)  # writing bool would be far slower
    if dtype.itemsize > bits.itemsize:
        return kept.to(dtype).mul_(1 / (1 - p)).view(tuple(shape))
    # For 16-bit floats, the bits of the scale times 0 or 1: a conversion would take longer than everything else.
    scale = torch.tensor(1 / (1 - p), dtype=dtype).view(torch.int16)
    return kept.mul_(scale).view(dtype).view(tuple(shape))


class Dropout(nn.Dropout):
    """nn.Dropout with scaled_mask, on a CPU."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        applies = self.training and 0 < self.p < 1 and input.device.type == "cpu" and input.dtype in DTYPES
        if not applies or self.inplace or torch.compiler.is_compiling():
            return super().forward(input)
        return input * scaled_mask(input.shape, self.p, input.dtype)


def use_scaled_masks(model: nn.Module) -> None:
    """Make a model's dropout layers draw scaled masks; functional dropout stays torch's."""
    for module in model.modules():
        if type(module) is nn.Dropout:
            module.__class__ = Dropout
