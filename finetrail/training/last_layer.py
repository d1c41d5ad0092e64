"""Turns a model's last layer into one that computes, while it trains, only the tokens that its head has to read."""

from collections.abc import Callable
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

from finetrail.labels import IGNORE_INDEX
from finetrail.training import attention

# Architectures with BERT's layer, and with a head for sequences that reads the first token.
LIKE_BERT = {"bert", "camembert", "electra", "roberta", "xlm-roberta"}


def fills_masks(model: PreTrainedModel) -> bool:
    """Tell whether a model's head is for masked language modeling."""
    return has_head(model, MODEL_FOR_MASKED_LM_MAPPING)


def labels_tokens(model: PreTrainedModel) -> bool:
    """Tell whether a model's head is for token classification, behind layers like BERT's."""
    return has_head(model, MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING) and model.config.model_type in LIKE_BERT


def has_head(model: PreTrainedModel, mapping: Any) -> bool:
    """Tell whether a model has the head of one of transformers' mappings from configurations to classes."""
    # By its config: to look through the values of the mapping would import each architecture, which takes seconds.
    return type(model) is mapping.get(type(model.config), None)


def only_labelled(model: PreTrainedModel, compiles: bool) -> None:
    """Let a model, while it trains, compute only the tokens with labels: in its head, and behind its last attention.

    The others do not count in the loss, which stays the same. The projection onto a vocabulary is half of the work of a
    small encoder; behind the attention are three quarters of a layer's. That is left as it is in other layers than
    BERT's, and where torch compiles, which does not call the hook there (2.13).
    """
    from_attention = model.config.model_type in LIKE_BERT and not compiles
    last: LastOfAll = _attention_output if from_attention else _base
    last(model).labelled = None
    model.register_forward_pre_hook(partial(_keep_labels, last), with_kwargs=True)
    if from_attention:
        last(model).register_forward_pre_hook(_keep_inputs)
    else:
        last(model).register_forward_hook(_keep_output)


# From a model to the module that is the last one to have all tokens, or the first to have only those with labels.
LastOfAll = Callable[[Any], Any]


def _attention_output(model: Any) -> Any:
    return model.base_model.encoder.layer[-1].attention.output


def _base(model: Any) -> Any:
    return model.base_model


def _keep_labels(last: LastOfAll, model: Any, args: Any, inputs: dict[str, Any]) -> Any:
    labelled = None
    if model.training and inputs.get("labels") is not None:
        labelled = inputs["labels"] != IGNORE_INDEX
        inputs["labels"] = inputs["labels"][labelled][None]
    # Left where the other hook finds it; it stays, because checkpointed gradients compute the last layer anew.
    last(model).labelled = labelled
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
    classifies = has_head(model, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING)
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
