"""Shards a model's weights over the processes with FSDP 2, and gathers them again.

1. `accelerate launch --use_fsdp --fsdp_version 2` starts the processes. `validate` refuses other ways of sharding.
2. `prepare` names the layer class that is one unit of sharding, and copies the whole model, for the end.
3. Accelerate shards the model when an engine prepares it. Each process has a part of each weight and of AdamW's state.
4. Each forward pass gathers the weights of a layer and frees them again. It is collective: all ranks need equally many
   micro-batches, so batches are not split. Passes are autocast, as with DDP.
5. Checkpoints are torch's distributed ones: each process writes its part.
6. `gather` loads the trained weights into the copy, in the main process, which writes the model.
"""

import copy
from contextlib import AbstractContextManager, nullcontext

from accelerate import Accelerator, DistributedType
from transformers import PreTrainedModel

from finetrail.errors import UserError
from finetrail.patches.fsdp_tied_bias import forget_second_names
from finetrail.schema import Train
from finetrail.training.optimizers import layer_stack


def is_used(accelerator: Accelerator) -> bool:
    """Return True if each process has only a part of the weights."""
    return accelerator.distributed_type == DistributedType.FSDP


def validate(accelerator: Accelerator, settings: Train) -> None:
    """Raise UserError if gather() or the settings do not work with this way of sharding."""
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
    """Return the model; if it will be sharded, a copy into which the weights are gathered.

    The copy is in the main process's main memory, and empty in the others. UserError if the model cannot be sharded.
    """
    if not is_used(accelerator):
        return model
    # torch's distributed checkpoints identify weights by their names.
    if not model.state_dict().keys() >= {name for name, _ in model.named_parameters()}:
        raise UserError(f"launcher: FSDP has no checkpoints for {type(model).__name__}; expected DDP")
    plugin = accelerator.state.fsdp_plugin
    # Accelerate's own choice (1.15) may contain the embeddings twice, which torch refuses.
    if plugin.transformer_cls_names_to_wrap is None:
        plugin.transformer_cls_names_to_wrap = [type(layer_stack(model)[1][0]).__name__]
    # With a mixed-precision policy everything is computed in bf16, also loss and norms. autocast() is as in DDP.
    plugin.mixed_precision_policy = None
    whole = copy.deepcopy(model)
    forget_second_names(model)
    return whole if accelerator.is_main_process else whole.to("meta")  # type: ignore[arg-type]


def autocast(accelerator: Accelerator) -> AbstractContextManager[None]:
    """Return the context of a forward pass. Accelerate (1.15) autocasts all models except sharded ones."""
    return accelerator.autocast() if is_used(accelerator) else nullcontext()


def gather(accelerator: Accelerator, model: PreTrainedModel, whole: PreTrainedModel) -> None:
    """Load a sharded model's weights into the copy of the main process; all processes have to call it."""
    state = accelerator.get_state_dict(model)
    if accelerator.is_main_process:
        missing, unexpected = whole.load_state_dict(state, strict=False)
        weights = whole.state_dict()
        loaded = {weights[name].data_ptr() for name in state}
        # A missing name is a second name of a weight that is there.
        assert not unexpected and all(weights[name].data_ptr() in loaded for name in missing)
