"""Turns the folder of a trained or a base model into a model that fills masks; training never imports it."""

from pathlib import Path

from transformers import PreTrainedModel

from finetrail.model.lm_head import with_lm_head

# Optional in tasks/contract.py, and not used here.
models = None


def load_model(folder: Path) -> PreTrainedModel:
    """Load a model in fp32; a head that the checkpoint lacks is the same each time."""
    return with_lm_head(folder)[0]
