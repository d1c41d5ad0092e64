"""Gradient checkpointing: training in less memory."""

from transformers import PreTrainedModel

from finetrail.errors import UserError


def checkpoint_gradients(model: PreTrainedModel) -> None:
    """Make the base model's layers keep only their inputs, and recompute the rest in the backward pass.

    The gradients stay the same, dropout included (Chen et al. 2016). UserError if the architecture does not support it.
    """
    base: PreTrainedModel = model.base_model  # type: ignore[assignment]
    if not base.supports_gradient_checkpointing:
        raise UserError(
            f"train.gradient_checkpointing: transformers has none for {base.config.model_type}; expected false"
        )
    # The second is the method's name in transformers 5.17, which later versions deprecate.
    enable = getattr(base, "activation_checkpointing_enable", None) or base.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    # Only reentrant checkpoints need it. With it, gradients would pass through frozen layers down to the embeddings.
    base.disable_input_require_grads()
