"""Keeps the weights below adapters in 4 bits while the adapters train (QLoRA, Dettmers et al. 2023)."""

import os

import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from finetrail.errors import UserError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class FourBits(nn.Module):
    """A linear layer whose weight is NF4, with scales in 8 bits. Each pass computes with a temporary copy in dtype.

    The weight is not part of the state dict: checkpoints hold what trains, and a resumed run quantizes again.
    """

    packed: torch.Tensor

    def __init__(self, layer: nn.Linear, device: torch.device, dtype: torch.dtype) -> None:
        from bitsandbytes import functional

        super().__init__()
        self.in_features, self.out_features, self.bias = layer.in_features, layer.out_features, layer.bias
        weight = layer.weight.data.to(device, dtype)
        packed, self.scales = functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
        self.register_buffer("packed", packed, persistent=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        from bitsandbytes import matmul_4bit

        return matmul_4bit(inputs.to(self.scales.dtype), self.packed, quant_state=self.scales, bias=self.bias)

    def whole(self) -> nn.Linear:
        """Return a plain layer in fp32 with the weight that this one computes with."""
        from bitsandbytes import functional

        weight = functional.dequantize_4bit(self.packed, self.scales).float()
        layer = nn.Linear(self.in_features, self.out_features, bias=False, device=weight.device)
        layer.weight.data, layer.bias = weight, self.bias
        return layer.requires_grad_(False)


def device(spread: bool) -> torch.device:
    """Return the device of this process's layers in 4 bits.

    UserError without a CUDA device or bitsandbytes, or with FSDP.
    """
    if not torch.cuda.is_available():
        raise UserError("train.lora.quantize: nf4 needs a CUDA device and there is none; expected null")
    if spread:
        raise UserError("train.lora.quantize: FSDP cannot spread weights in 4 bits; expected null, or DDP")
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise UserError(
            "train.lora.quantize: bitsandbytes is not installed; expected `pip install bitsandbytes`, or null"
        ) from None
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def quantize(adapted: dict[str, LoraLayer], device: torch.device, precision: str) -> None:
    """Keep the weights of the layers below adapters in 4 bits; UserError if one is not nn.Linear."""
    for name, layer in adapted.items():
        base = layer.get_base_layer()
        if not isinstance(base, nn.Linear):
            raise UserError(
                f"train.lora.quantize: the layer {name} is a {type(base).__name__}; expected a model with linear "
                "layers, or null"
            )
        layer.base_layer = FourBits(base, device, DTYPES[precision])


def restore(adapted: dict[str, LoraLayer]) -> None:
    """Replace the layers that quantize() inserted by plain ones."""
    for layer in adapted.values():
        if isinstance(layer.base_layer, FourBits):
            layer.base_layer = layer.base_layer.whole()
