"""Regression on standardised scores, with logits in the scores' own unit.

1. `standardize` adds mean and spread of the train scores as buffers, and a hook on forward().
2. The hook computes the loss of the standardised scores, and converts the logits to the scores' unit. Engines,
   validation and checkpoints are not affected.
3. After training, `fold` multiplies mean and spread into the head's weights: a plain model with the same scores.
"""

import math
from typing import Any

import torch
from torch.nn.functional import mse_loss
from transformers import PreTrainedModel

from finetrail.errors import UserError


def standardize(model: PreTrainedModel, mean: float, std: float, head_is_kept: bool) -> None:
    """Make the head learn scores as standard deviations from their mean; the model's logits stay in the scores' unit.

    The loss is the mean squared error of the standardised scores: 1 for a model that always predicts the mean. A head
    without bias, as decoders have, cannot add the mean: its scores are divided by their root mean square instead.
    head_is_kept: the head is from a base model that predicts the scores in their own unit.
    UserError if the model has no linear head with one output.
    """
    head = _head(model)
    shift, scale = (mean, std) if head.bias is not None else (0.0, math.hypot(mean, std))
    # Buffers move to the model's device; they are not saved.
    model.register_buffer("score_shift", torch.tensor(shift), persistent=False)
    model.register_buffer("score_scale", torch.tensor(scale), persistent=False)
    if head_is_kept:
        _rescale(head, torch.tensor(-shift / scale), torch.tensor(1 / scale))
    model.register_forward_hook(_in_own_unit, with_kwargs=True)


def fold(model: PreTrainedModel) -> None:
    """Multiply mean and spread into the head's weights: a plain model of transformers with the same scores."""
    shift, scale = model.get_buffer("score_shift"), model.get_buffer("score_scale")
    _rescale(_head(model), shift, scale)
    shift.zero_()
    scale.fill_(1)


def _in_own_unit(model: Any, _: Any, inputs: dict[str, Any], outputs: Any) -> Any:
    """Compute the loss of the standardised scores, and convert them to their unit in fp32: 1,050 is 1,048 in bf16."""
    standardised = outputs["logits"].float()
    if inputs.get("labels") is not None:
        targets = (inputs["labels"] - model.score_shift) / model.score_scale
        outputs["loss"] = mse_loss(standardised[:, 0], targets)
    outputs["logits"] = standardised * model.score_scale + model.score_shift
    return outputs


@torch.no_grad()
def _rescale(head: torch.nn.Linear, shift: torch.Tensor, scale: torch.Tensor) -> None:
    head.weight.mul_(scale)
    if head.bias is not None:
        head.bias.mul_(scale).add_(shift)


def _head(model: PreTrainedModel) -> torch.nn.Linear:
    """Return the layer that outputs the logits: the last linear one outside the base model, with one output."""
    base = f"{model.base_model_prefix}."
    layers = [
        layer
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and layer.out_features == 1 and not name.startswith(base)
    ]
    if not layers:
        raise UserError(
            f"data/model: the head of {model.config.model_type} is not a linear layer, so it cannot predict scores in "
            "their own unit; expected another model for corpus.problem regression"
        )
    return layers[-1]
