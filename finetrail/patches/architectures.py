"""The architectures and heads that patches know. They were compared with the unpatched model, one by one."""

from typing import Any

from transformers import (
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    PreTrainedModel,
)

# Architectures with BERT's layer, and with a head for sequences that reads the first token.
LIKE_BERT = {"bert", "camembert", "electra", "roberta", "xlm-roberta"}
# Their self-attention classes: transformers copies BertSelfAttention under these names.
SELF_ATTENTIONS = {
    "BertSelfAttention",
    "CamembertSelfAttention",
    "ElectraSelfAttention",
    "RobertaSelfAttention",
    "XLMRobertaSelfAttention",
}
# Architectures whose masked language modeling head computes each token by itself.
HEAD_PER_TOKEN = LIKE_BERT | {"albert", "deberta-v2", "distilbert", "modernbert", "mpnet"}


def fills_masks(model: PreTrainedModel) -> bool:
    """Return True if a model's head is for masked language modeling."""
    return has_head(model, MODEL_FOR_MASKED_LM_MAPPING)


def labels_tokens(model: PreTrainedModel) -> bool:
    """Return True if a model's head is for token classification."""
    return has_head(model, MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING)


def has_head(model: PreTrainedModel, mapping: Any) -> bool:
    """Return True if a model has the head of one of transformers' mappings from configurations to classes."""
    # By its config: iterating over the mapping's values would import every architecture, which takes seconds.
    return type(model) is mapping.get(type(model.config), None)


def has_berts_layers(model: PreTrainedModel) -> bool:
    """Return True if a model is an encoder of BERT's layers; as a decoder it attends in another way."""
    return model.config.model_type in LIKE_BERT and not getattr(model.config, "is_decoder", False)
