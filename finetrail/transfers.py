"""Turns tensors of the CPU into a device's, and those into arrays, without waiting for what the device computes."""

from collections.abc import Callable, Sequence

import numpy as np
import torch


def send(tensors: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """Begin to copy tensors to the device, whose work takes its turn behind that."""
    on_cuda = device.type == "cuda"
    if on_cuda:  # only from there it copies on its own
        tensors = {name: tensor.pin_memory() for name, tensor in tensors.items()}
    return {name: tensor.to(device, non_blocking=on_cuda) for name, tensor in tensors.items()}


def fetch(tensors: Sequence[torch.Tensor]) -> Callable[[], list[np.ndarray]]:
    """Begin to copy tensors of one device to the CPU; return the function that waits for them and gives them as arrays.

    Those of CUDA go into pinned memory, and what is launched after this call is not waited for.
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
