"""Makes torch compute the same bytes for the same seed."""

import os

import torch
from transformers import set_seed


def make_deterministic(seed: int) -> None:
    """Seed all generators and allow deterministic algorithms only. Call it before a model is made."""
    # cuBLAS reads it when CUDA starts; the larger of the two values that are deterministic.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Otherwise torch fills every new tensor with NaN, which only helps to find reads of uninitialized memory.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    set_seed(seed)
