"""Turns a model into one of which only small adapters and the head train, and back into a plain model (LoRA)."""

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from finetrail import schema
from finetrail.errors import UserError

# A masked language model has none to give, so it may be new: it stands in the base model, and belongs to the head.
POOLER = "pooler."


def add(model: PreTrainedModel, lora: schema.Lora) -> None:
    """Freeze the base model and put adapters into its linear layers, drawn from torch's generator: seed it before.

    The head trains in full, but for the projection of a language model onto its vocabulary, which goes with the
    embeddings. Until merge(), the weights of the layers have other names. UserError where target_modules are not there.
    """
    base = model.base_model
    layers = {
        name: layer
        for name, layer in base.named_modules()
        if isinstance(layer, nn.Linear | Conv1D) and not name.startswith(POOLER)
    }
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # PEFT takes any number
        lora_dropout=lora.dropout,
        target_modules=chosen(list(layers), lora.target_modules),
        fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in layers.values()),  # GPT-2's weights are transposed
    )
    trained = [p for name, p in base.named_parameters() if name.startswith(POOLER) and p.requires_grad]
    inject_adapter_in_model(config, base)  # which freezes all else in it
    del base.peft_config  # PEFT's mark on a model, by which transformers would save adapters
    for parameter in trained:
        parameter.requires_grad_(True)
    projection = model.get_output_embeddings()
    if projection is not None:
        projection.weight.requires_grad_(False)


def chosen(layers: list[str], target_modules: list[str] | None) -> list[str]:
    """Return the layers whose names end with one of target_modules, or all of them; UserError for one without any."""
    if target_modules is None:
        return layers
    for module in target_modules:
        if not any(f".{name}".endswith(f".{module}") for name in layers):
            there = sorted({name.rsplit(".", 1)[-1] for name in layers})
            raise UserError(
                f"train.lora.target_modules: no linear layer of the base model is called {module!r}; "
                f"expected of those there: {', '.join(there)}"
            )
    return [name for name in layers if any(f".{name}".endswith(f".{module}") for module in target_modules)]


def halve(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Keep the weights below the adapters in bf16, as autocast would make them for each pass: the results are the same.

    Returns those weights as they were, by name, for merge(); on a GPU they then take half of its memory.
    """
    whole = {}
    for name, layer in _adapted(model).items():
        for key, weight in layer.get_base_layer().named_parameters():
            whole[f"{name}.{key}"] = weight.data
            weight.data = weight.data.to(torch.bfloat16)
    return whole


def merge(model: PreTrainedModel, whole: dict[str, torch.Tensor]) -> None:
    """Add what the adapters learned to the weights below them: a plain model again, with the names it had.

    whole: what halve() returned, or nothing.
    """
    for name, layer in _adapted(model).items():
        for key, weight in layer.get_base_layer().named_parameters():
            weight.data = whole.get(f"{name}.{key}", weight.data).to(weight.device)
        layer.merge()
        model.base_model.set_submodule(name, layer.get_base_layer())


def _adapted(model: PreTrainedModel) -> dict[str, LoraLayer]:
    return {name: layer for name, layer in model.base_model.named_modules() if isinstance(layer, LoraLayer)}
