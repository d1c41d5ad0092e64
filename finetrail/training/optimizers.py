"""Parameter groups of AdamW with a learning rate each, and which parameters train in which epoch.

The depth of a parameter is 0 in the embeddings, 1 to n in the n layers from the bottom, and n + 1 above them.
"""

from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.trainer_pt_utils import get_parameter_names

from finetrail.errors import UserError

# Same as Trainer.get_decay_parameter_names (transformers 5.23): biases and norms do not decay.
WITHOUT_DECAY = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]


def parameter_groups(
    model: PreTrainedModel, lr: float, weight_decay: float, layer_decay: float
) -> list[dict[str, Any]]:
    """Return AdamW's groups: lr above the layers, multiplied by layer_decay for each step down (Sun et al. 2019).

    With layer_decay 1 they are the Trainer's own two groups. UserError if a model has no stack of layers.
    """
    decaying = set(get_parameter_names(model, [nn.LayerNorm], WITHOUT_DECAY))
    depths = depth_of_parameters(model) if layer_decay < 1 else {}
    top = max(depths.values(), default=0)
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for depth in range(top, -1, -1):
        for decays in (True, False):
            rate = {"lr": lr * layer_decay ** (top - depth), "weight_decay": weight_decay if decays else 0.0}
            groups[depth, decays] = {"params": []} | rate
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[depths.get(name, 0), name in decaying]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]


def depth_of_parameters(model: PreTrainedModel) -> dict[str, int]:
    """Return the depth of each parameter by its name; UserError if the base model has no stack of layers."""
    stack, layers = layer_stack(model)
    top = len(layers) + 1
    depths: dict[str, int] = {}
    below = True
    base = f"{model.base_model_prefix}."
    for name, _ in model.named_parameters():
        if name.startswith(f"{stack}."):
            below = False
            depths[name] = int(name.removeprefix(f"{stack}.").split(".")[0]) + 1
        else:
            # Modules are in the order of their use: embeddings before the layers, poolers and last norms after them.
            depths[name] = 0 if below and name.startswith(base) else top
    return depths


def layer_stack(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """Return the name and the modules of the longest ModuleList in the base model, the first of several.

    UserError if there is none.
    """
    base = model.base_model_prefix
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and name.startswith(f"{base}.")
    ]
    if not lists:
        raise UserError(
            f"train.layer_decay, train.unfreeze_layers and FSDP need a stack of layers, which {type(model).__name__} "
            "lacks; expected layer_decay 1.0, no unfreeze_layers, and DDP"
        )
    return max(lists, key=lambda item: len(item[1]))


def frozen_for_epoch(model: PreTrainedModel, epoch: int, unfreeze_layers: int) -> Iterator[str]:
    """Yield the names of the parameters that do not train yet in an epoch, counted from 0 (Howard and Ruder 2018).

    At the start of each epoch unfreeze_layers more layers train, from the top. What is above the layers trains from
    the first epoch on. The embeddings count as the last layer.
    """
    depths = depth_of_parameters(model)
    lowest = max(depths.values()) - (epoch + 1) * unfreeze_layers
    yield from (name for name, depth in depths.items() if depth < lowest)


def freeze(model: PreTrainedModel, epoch: int, unfreeze_layers: int) -> None:
    """Freeze the parameters that do not train in this epoch. AdamW does not even decay a weight without gradient."""
    frozen = set(frozen_for_epoch(model, epoch, unfreeze_layers))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
