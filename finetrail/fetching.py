"""Turns tensors of a device into arrays of the CPU, without waiting for the device until they are needed."""

from collections.abc import Callable, Sequence

import numpy as np
import torch


def fetch(tensors: Sequence[torch.Tensor]) -> Callable[[], list[np.ndarray]]:
    """Begin to copy tensors to the CPU, and return the function that waits for them and gives them as arrays.

    Those of CUDA go into pinned memory, and what is launched after this call is not waited for.
    """
    copies = [tensor.detach().to("cpu", non_blocking=tensor.is_cuda) for tensor in tensors]
    copied = torch.cuda.Event() if any(tensor.is_cuda for tensor in tensors) else None
    if copied is not None:
        copied.record()

    def arrays() -> list[np.ndarray]:
        if copied is not None:
            copied.synchronize()
        return [copy.numpy() for copy in copies]

    return arrays
