"""Turns the folder of a trained model into a model that labels or scores texts; training never imports it."""

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from finetrail.tasks.text_classification.settings import Target, heads_of


def load_model(folder: Path) -> PreTrainedModel:
    """Load a trained model with its head, in fp32."""
    return AutoModelForSequenceClassification.from_pretrained(folder, use_safetensors=True, dtype=torch.float32)


def models(model: PreTrainedModel, target: Target) -> dict[str, tuple[PreTrainedModel, dict[str, Any]]]:
    """Return a plain model and its target per head; none if the model has a single head."""
    found = {}
    for name, outputs in heads_of(target).items():
        names = [target["label_names"][output].partition("/")[2] for output in outputs]
        config = copy.deepcopy(model.config)
        config.id2label, config.label2id = dict(enumerate(names)), {label: i for i, label in enumerate(names)}
        own = type(model)(config)
        wanted, weights = own.state_dict(), model.state_dict()
        # Weights of other shapes have a row per label.
        cut = {name: weight[outputs] for name, weight in weights.items() if weight.shape != wanted[name].shape}
        own.load_state_dict(weights | cut)
        of_one = {key: value for key, value in target.items() if key != "heads"} | {"label_names": names}
        found[name] = own, of_one
    return found
