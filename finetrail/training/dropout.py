"""Turns random bits into dropout, which torch draws number by number on a CPU."""

import math
from collections.abc import Sequence

import torch
from torch import nn

VALUES = 2**16  # of the 16 random bits that decide on a number
LOWEST = -(2**15)  # of them, as int16


def scaled_mask(shape: Sequence[int], p: float, dtype: torch.dtype) -> torch.Tensor:
    """Return what dropout multiplies by: 0 with probability p, to within 2**-17, and 1 / (1 - p) else; 0 < p < 1.

    Drawn from torch's own generator, of the CPU.
    """
    count = math.prod(shape)
    words = torch.empty(math.ceil(count / 4), dtype=torch.int64).random_(LOWEST * 2**48, None)
    bits = words.view(torch.int16)[:count]
    kept = torch.ge(bits, min(round(p * VALUES), VALUES - 1) + LOWEST, out=bits)  # bool would be written far slower
    if dtype.itemsize > bits.itemsize:
        return kept.to(dtype).mul_(1 / (1 - p)).view(tuple(shape))
    # Of 16-bit floats, the bits of the scale times 0 or 1: converting would take longer than all the rest.
    scale = torch.tensor(1 / (1 - p), dtype=dtype).view(torch.int16)
    return kept.mul_(scale).view(dtype).view(tuple(shape))


class Dropout(nn.Dropout):
    """nn.Dropout with scaled_mask, on a CPU."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        applies = self.training and 0 < self.p < 1 and input.device.type == "cpu" and input.dtype.itemsize > 1
        if not applies or self.inplace or torch.compiler.is_compiling():
            return super().forward(input)
        return input * scaled_mask(input.shape, self.p, input.dtype)


def use_scaled_masks(model: nn.Module) -> None:
    """Let a model's dropout layers, functional ones left out, draw scaled masks."""
    for module in model.modules():
        if type(module) is nn.Dropout:
            module.__class__ = Dropout
