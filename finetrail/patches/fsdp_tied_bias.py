"""Gives the output embeddings' bias one name, before FSDP spreads a model. For correctness, not for speed.

Library: accelerate 1.15 (fsdp2_prepare_model), torch 2.13, transformers 5.23 (PreTrainedModel._tied_weights_keys)
Reason: a masked language model has this bias under two names. accelerate spreads it once for each, which torch refuses.
Upstream: none known
Guard: only parameters that are the output embeddings' own bias, found by identity.
"""

from typing import Any

from transformers import PreTrainedModel


def forget_second_names(model: PreTrainedModel) -> None:
    """Remove every other name of the output embeddings' bias. The model computes the same."""
    embeddings: Any = model.get_output_embeddings()
    bias = getattr(embeddings, "bias", None)
    for prefix, module in model.named_modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter is bias and module is not embeddings:
                delattr(module, name)
                tied = (model._tied_weights_keys or {}).items()
                model._tied_weights_keys = {one: other for one, other in tied if other != f"{prefix}.{name}"}
