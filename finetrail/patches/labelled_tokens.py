"""Computes, while a model trains, its head and most of its last layer only for the tokens that have labels.

Library: transformers 5.23, torch 2.13 (hooks)
Reason: tokens without labels do not count in the loss. In masked language modeling they are 85%, and the projection
    onto the vocabulary is half of the work of a small encoder.
Upstream: none known
Guard: heads for masked language modeling of HEAD_PER_TOKEN, and for token classification of encoders of LIKE_BERT.

1. A hook on the model finds the tokens with labels, and reduces the labels to them: [batch, length] -> [1, labelled].
2. In BERT's layers, a hook after the last attention keeps only these tokens: three quarters of a layer follow it.
   In other architectures, and where torch compiles (which does not call that hook, 2.13), a hook on the base model
   keeps them in its output.
3. The head computes [1, labelled, width]. The loss is the mean over the same tokens as before.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel

from finetrail.labels import IGNORE_INDEX
from finetrail.patches.architectures import HEAD_PER_TOKEN, fills_masks, has_berts_layers, labels_tokens

# From a model to the module that is the last one to have all tokens, or the first to have only those with labels.
Border = Callable[[Any], Any]


def knows(model: PreTrainedModel) -> bool:
    """Return True if a model's head may get the tokens with labels alone."""
    return (fills_masks(model) and model.config.model_type in HEAD_PER_TOKEN) or (
        labels_tokens(model) and has_berts_layers(model)
    )


def compute_labelled_tokens_only(model: PreTrainedModel, compiles: bool) -> None:
    """Make a model, while it trains, compute head and last layer for the tokens with labels; the loss stays the same.

    compiles: torch.compile follows.
    """
    from_attention = has_berts_layers(model) and not compiles
    border: Border = _attention_output if from_attention else _base
    border(model).labelled = None
    model.register_forward_pre_hook(partial(_keep_labels, border), with_kwargs=True)
    if from_attention:
        border(model).register_forward_pre_hook(_keep_inputs)
    else:
        border(model).register_forward_hook(_keep_output)


def _attention_output(model: Any) -> Any:
    return model.base_model.encoder.layer[-1].attention.output


def _base(model: Any) -> Any:
    return model.base_model


def _keep_labels(border: Border, model: Any, args: Any, inputs: dict[str, Any]) -> Any:
    labelled = None
    if model.training and inputs.get("labels") is not None:
        labelled = inputs["labels"] != IGNORE_INDEX
        inputs["labels"] = inputs["labels"][labelled][None]
    # The other hook reads it here. It is kept, because checkpointed gradients compute the last layer again.
    border(model).labelled = labelled
    return args, inputs


def _keep_inputs(module: Any, states: tuple[torch.Tensor, ...]) -> Any:
    """Keep the tokens with labels of what was attended and of the layer's input, both [batch, length, width]."""
    applies = module.training and module.labelled is not None
    return tuple(part[module.labelled][None] for part in states) if applies else states


def _keep_output(encoder: Any, args: Any, output: Any) -> None:
    if encoder.training and encoder.labelled is not None:
        output.last_hidden_state = output.last_hidden_state[encoder.labelled][None]
