"""Turns a model's last layer into one that computes, while it trains, only the tokens that its head has to read."""

from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import (
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    PreTrainedModel,
)

from finetrail.tasks import IGNORE_INDEX
from finetrail.training import attention

# Architectures with BERT's layer, and with a head for sequences that reads the first token.
LIKE_BERT = {"bert", "camembert", "electra", "roberta", "xlm-roberta"}


def fills_masks(model: PreTrainedModel) -> bool:
    """Tell whether a model's head is for masked language modeling."""
    return _has_head(model, MODEL_FOR_MASKED_LM_MAPPING)


def labels_tokens(model: PreTrainedModel) -> bool:
    """Tell whether a model's head is for token classification."""
    return _has_head(model, MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING)


def _has_head(model: PreTrainedModel, mapping: Any) -> bool:
    # By its config: to look through the values of the mapping would import each architecture, which takes seconds.
    return type(model) is mapping.get(type(model.config), None)


def only_labelled(model: PreTrainedModel) -> None:
    """Let a model, while it trains, compute only the tokens with labels: in its head, and behind its last attention.

    The others do not count in the loss, which stays the same. The projection onto a vocabulary is half of the work of a
    small encoder; behind the attention are three quarters of a layer's.
    """
    _last_to_compute_all(model).labelled = None
    model.register_forward_pre_hook(_keep_labels, with_kwargs=True)
    if model.config.model_type in LIKE_BERT:
        _last_to_compute_all(model).register_forward_pre_hook(_keep_inputs)
    else:
        _last_to_compute_all(model).register_forward_hook(_keep_output)


def _last_to_compute_all(model: PreTrainedModel) -> Any:
    """Return the module from which on there are only tokens with labels."""
    base: Any = model.base_model
    return base.encoder.layer[-1].attention.output if model.config.model_type in LIKE_BERT else base


def _keep_labels(model: Any, args: Any, inputs: dict[str, Any]) -> Any:
    labelled = None
    if model.training and inputs.get("labels") is not None:
        labelled = inputs["labels"] != IGNORE_INDEX
        inputs["labels"] = inputs["labels"][labelled][None]
    # Left where the other hook finds it, also in each copy that DataParallel makes of a model; it stays, because
    # checkpointed gradients compute the last layer anew.
    _last_to_compute_all(model).labelled = labelled
    return args, inputs


def _keep_inputs(module: Any, states: tuple[torch.Tensor, ...]) -> Any:
    """Keep, of what was attended and of the layer's input, both [batch, length, width], what has labels."""
    applies = module.training and module.labelled is not None
    return tuple(part[module.labelled][None] for part in states) if applies else states


def _keep_output(encoder: Any, args: Any, output: Any) -> None:
    if encoder.training and encoder.labelled is not None:
        output.last_hidden_state = output.last_hidden_state[encoder.labelled][None]


def only_first(model: PreTrainedModel) -> None:
    """Let a model that attends by our attention, and classifies by its first token, compute its last layer for that.

    The logits stay the same.
    """
    config = model.config
    classifies = _has_head(model, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING)
    if classifies and config.model_type in LIKE_BERT and config._attn_implementation == attention.NAME:
        encoder: Any = model.base_model.encoder
        last = encoder.layer[-1].attention
        last.self.forward = partial(attend_to_first, last.self)
        last.output.register_forward_pre_hook(lambda module, states: (states[0], states[1][:, :1]))


def attend_to_first(
    module: Any, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
) -> tuple[torch.Tensor, None]:
    """Attend as BertSelfAttention, by the first token's query alone: [batch, length, width] -> [batch, 1, width]."""

    def heads(layer: nn.Module, states: torch.Tensor) -> torch.Tensor:
        return layer(states).unflatten(-1, (-1, module.attention_head_size)).transpose(1, 2)

    attended, weights = attention.attend(
        module,
        heads(module.query, hidden_states[:, :1]),
        heads(module.key, hidden_states),
        heads(module.value, hidden_states),
        None if attention_mask is None else attention_mask[:, :, :1],
        dropout=module.dropout.p if module.training else 0.0,
        scaling=module.scaling,
        is_causal=False,
        **kwargs,
    )
    return attended.flatten(2), weights
