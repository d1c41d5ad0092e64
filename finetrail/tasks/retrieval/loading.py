"""Turns the folder of a trained or a base model into an encoder of texts; training never imports it."""

from pathlib import Path

import torch
from transformers import AutoModel, PreTrainedModel

# Optional in tasks/contract.py, and not used here.
models = None


def load_model(folder: Path) -> PreTrainedModel:
    """Load an encoder in fp32; it gives last_hidden_state, which scoring pools."""
    encoder = AutoModel.from_pretrained(folder, use_safetensors=True, dtype=torch.float32)
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None  # its output is not used, and ONNX would compute it
    return encoder
