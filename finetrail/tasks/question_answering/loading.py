"""Turns the folder of a trained model into a model that points at answers; training never imports it."""

from pathlib import Path

import torch
from transformers import AutoModelForQuestionAnswering, PreTrainedModel

# Optional in tasks/contract.py, and not used here.
models = None


def load_model(folder: Path) -> PreTrainedModel:
    """Load a trained model with its head, in fp32."""
    return AutoModelForQuestionAnswering.from_pretrained(folder, use_safetensors=True, dtype=torch.float32)
