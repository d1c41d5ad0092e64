"""Copies tensors to a device, and from it to arrays, without waiting for its computations."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_map


def send(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Start to copy the tensors of a batch, nested ones too, to the device, whose later work waits for them."""
    on_cuda = device.type == "cuda"

    def sent(value: Any) -> Any:
        if not torch.is_tensor(value):
            return value
        # CUDA copies asynchronously from pinned memory only.
        return value.pin_memory().to(device, non_blocking=True) if on_cuda else value.to(device)

    sent_batch: dict[str, Any] = tree_map(sent, batch)
    return sent_batch


def fetch(tensors: Sequence[torch.Tensor]) -> Callable[[], list[np.ndarray]]:
    """Start to copy tensors of one device to the CPU; return the function that waits for them and returns arrays.

    CUDA copies into pinned memory. The function does not wait for work that is launched after this call.
    """
    copies = [tensor.detach().to("cpu", non_blocking=tensor.is_cuda) for tensor in tensors]
    copied = torch.cuda.Event() if tensors and tensors[0].is_cuda else None
    if copied is not None:
        copied.record(torch.cuda.current_stream(tensors[0].device))

    def arrays() -> list[np.ndarray]:
        if copied is not None:
            copied.synchronize()
        return [copy.numpy() for copy in copies]

    return arrays
