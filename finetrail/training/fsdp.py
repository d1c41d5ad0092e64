"""Turns a model that trains into one whose weights FSDP spreads over the processes, and back into a whole one."""

import copy
from contextlib import AbstractContextManager, nullcontext

from accelerate import Accelerator, DistributedType
from transformers import PreTrainedModel

from finetrail.errors import UserError
from finetrail.patches.fsdp_tied_bias import forget_second_names
from finetrail.schema import Train
from finetrail.training.optimizers import layer_stack


def is_used(accelerator: Accelerator) -> bool:
    """Tell whether each process has but a part of the weights."""
    return accelerator.distributed_type == DistributedType.FSDP


def validate(accelerator: Accelerator, settings: Train) -> None:
    """Raise UserError where the weights are spread in a way that settings, or the gathering at the end, rule out."""
    kind, spread = accelerator.distributed_type, is_used(accelerator)
    if kind in (DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM) or (spread and not accelerator.is_fsdp2):
        raise UserError(
            f"launcher: {kind.value}{' version 1' if spread else ''} spreads the weights over processes in a way that "
            "finetrail does not gather; expected DDP, or accelerate launch --use_fsdp --fsdp_version 2"
        )
    if spread and (settings.unfreeze_layers is not None or settings.execution == "compile"):
        raise UserError(
            "train.unfreeze_layers and train.execution: compile change a model that FSDP has spread; expected null and "
            "auto, or DDP"
        )


def prepare(accelerator: Accelerator, model: PreTrainedModel) -> PreTrainedModel:
    """Return the model; where it is about to be spread, a copy for the weights to be gathered in.

    The copy is in the main memory of the main process, and empty in the others. UserError where the model cannot be
    spread.
    """
    if not is_used(accelerator):
        return model
    # torch's checkpoints of such a model go by the names of its weights.
    if not model.state_dict().keys() >= {name for name, _ in model.named_parameters()}:
        raise UserError(f"launcher: FSDP has no checkpoints for {type(model).__name__}; expected DDP")
    plugin = accelerator.state.fsdp_plugin
    # Accelerate's own choice (1.15) may have the embeddings twice, which torch refuses.
    if plugin.transformer_cls_names_to_wrap is None:
        plugin.transformer_cls_names_to_wrap = [type(layer_stack(model)[1][0]).__name__]
    # Else all would be computed in bf16, the loss and norms too: autocast, below, computes as by DDP.
    plugin.mixed_precision_policy = None
    whole = copy.deepcopy(model)
    forget_second_names(model)
    return whole if accelerator.is_main_process else whole.to("meta")  # type: ignore[arg-type]


def autocast(accelerator: Accelerator) -> AbstractContextManager[None]:
    """Return the context of a pass: that which Accelerate (1.15) gives all models but those that are spread."""
    return accelerator.autocast() if is_used(accelerator) else nullcontext()


def gather(accelerator: Accelerator, model: PreTrainedModel, whole: PreTrainedModel) -> None:
    """Load the weights of a spread model into a whole one, in the main process; all processes have to call it."""
    state = accelerator.get_state_dict(model)
    if accelerator.is_main_process:
        missing, unexpected = whole.load_state_dict(state, strict=False)
        weights = whole.state_dict()
        loaded = {weights[name].data_ptr() for name in state}
        # What is missing is a second name of something else.
        assert not unexpected and all(weights[name].data_ptr() in loaded for name in missing)
