"""Turns the folder of a trained or a base model into a model that continues text; training never imports it."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

# Optional in tasks/contract.py, and not used here.
models = None


def load_model(folder: Path) -> PreTrainedModel:
    """Load a trained or a base model, in fp32; its outputs are the logits alone."""
    model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, dtype=torch.float32)
    model.config.use_cache = False
    return model
