"""Turns a base model's folder into a model that fills masks, with a neutral head if the checkpoint has none."""

from pathlib import Path

import torch
from transformers import MODEL_FOR_MASKED_LM_MAPPING, AutoModelForMaskedLM, PreTrainedModel

from finetrail.model.loading import checked


def with_lm_head(folder: Path) -> tuple[PreTrainedModel, set[str]]:
    """Load a model in fp32, and return it with the names of the head's weights that the checkpoint lacks.

    A new head is the same each time: matrices are the identity, norms are neutral. It is tied to the word embeddings.
    UserError if the checkpoint lacks weights of the encoder.
    """
    model, missing = checked(folder, AutoModelForMaskedLM, MODEL_FOR_MASKED_LM_MAPPING)
    if missing:
        model.config.tie_word_embeddings = True
        model.tie_weights()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in missing:
                    _reset(name, parameter)
    return model, missing


def _reset(name: str, parameter: torch.Tensor) -> None:
    """Make a parameter of a new head neutral, so that the head passes on its input."""
    if parameter.ndim > 1:
        torch.nn.init.eye_(parameter)
    else:
        torch.nn.init.constant_(parameter, float(name.endswith("weight")))
