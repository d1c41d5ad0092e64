"""Makes torch compute the same bytes from the same seed."""

import os

import torch
from transformers import set_seed


def make_deterministic(seed: int) -> None:
    """Seed all generators and allow deterministic algorithms only; call it before a model is made."""
    # cuBLAS reads it when CUDA starts; the larger of the two values that are deterministic.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Else torch writes NaN into every new tensor, only so that reading it by mistake would show.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    set_seed(seed)
