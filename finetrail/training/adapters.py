"""Trains low-rank adapters (LoRA) and the head instead of all weights, and merges them into a plain model."""

import os
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from finetrail import schema, stage
from finetrail.errors import UserError
from finetrail.training import four_bits

# A masked language model has no pooler, so it may be new. It is in the base model, but trains with the head.
POOLER = "pooler."
# The prefix of all names in PEFT's files, and the part of adapters' names in a model that the files lack.
IN_PEFT, IN_MODEL = "base_model.model.", ".default"


def add(model: PreTrainedModel, lora: schema.Lora) -> None:
    """Freeze the base model and add adapters to its linear layers, with weights from torch's generator: seed it first.

    The head trains in full, except for a language model's projection onto the vocabulary, which is frozen as the
    embeddings are. Until merge(), the layers' weights have other names. UserError if a target module does not exist.
    """
    base = model.base_model
    layers = {
        name: layer
        for name, layer in base.named_modules()
        if isinstance(layer, nn.Linear | Conv1D) and not name.startswith(POOLER)
    }
    transposed = any(isinstance(layer, Conv1D) for layer in layers.values())  # as GPT-2's weights
    config = LoraConfig(
        **_settings(lora), target_modules=chosen(list(layers), lora.target_modules), fan_in_fan_out=transposed
    )
    trained = [p for name, p in base.named_parameters() if name.startswith(POOLER) and p.requires_grad]
    inject_adapter_in_model(config, base)  # freezes everything else in it
    del base.peft_config  # the rest is a plain transformers model with other layers
    for parameter in trained:
        parameter.requires_grad_(True)
    projection = model.get_output_embeddings()
    if projection is not None:
        projection.weight.requires_grad_(False)


def _settings(lora: schema.Lora) -> dict[str, Any]:
    return {"r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout}


def chosen(layers: list[str], target_modules: list[str] | None) -> list[str]:
    """Return the layers whose names end with one of target_modules, all if it is None.

    UserError if a target module matches no layer.
    """
    if target_modules is None:
        return layers
    for module in target_modules:
        if not any(f".{name}".endswith(f".{module}") for name in layers):
            there = sorted({name.rsplit(".", 1)[-1] for name in layers})
            raise UserError(
                f"train.lora.target_modules: no linear layer of the base model is called {module!r}; "
                f"expected one of {', '.join(there)}"
            )
    return [name for name in layers if any(f".{name}".endswith(f".{module}") for module in target_modules)]


def shrink(model: PreTrainedModel, lora: schema.Lora, precision: str) -> dict[str, torch.Tensor]:
    """Keep the weights below the adapters in fewer bits where possible, and return what merge() needs."""
    spread = os.environ.get("ACCELERATE_USE_FSDP") == "true"  # FSDP shards weights of one dtype only
    if lora.quantize is not None:
        four_bits.quantize(adapted(model), four_bits.device(spread), precision)
        return {}
    return halve(model) if precision == "bf16" and not spread else {}


def halve(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Keep the weights below the adapters in bf16, as autocast casts them in each pass: the results are equal.

    On a GPU they then take half of the memory. Returns the original weights by name, for merge().
    """
    whole = {}
    for name, layer in adapted(model).items():
        for key, weight in layer.get_base_layer().named_parameters():
            whole[f"{name}.{key}"] = weight.data
            weight.data = weight.data.to(torch.bfloat16)
    return whole


def merge(model: PreTrainedModel, whole: dict[str, torch.Tensor]) -> None:
    """Add the adapters' products to the weights below them. The model is then a plain one, with its original names.

    whole: what shrink() returned. Weights that were in 4 bits keep the values that the adapters were trained with.
    """
    four_bits.restore(adapted(model))
    for name, layer in adapted(model).items():
        for key, weight in layer.get_base_layer().named_parameters():
            weight.data = whole.get(f"{name}.{key}", weight.data).to(weight.device)
        layer.merge()
        model.base_model.set_submodule(name, layer.get_base_layer())


def save(model: PreTrainedModel, lora: schema.Lora, folder: Path) -> None:
    """Write the adapters and the trained head in PEFT's format. Call it before merge().

    PEFT's own function needs a PeftModel, and writes sets in an order that differs between processes.
    """
    weights = model.state_dict()  # its names may differ from the modules': retrieval saves its encoder alone
    layers = sorted({name.split(".lora_")[0] for name in weights if ".lora_" in name})
    heads = _trained_beside(model)
    config = LoraConfig(
        **_settings(lora),
        target_modules=layers,
        modules_to_save=heads or None,
        fan_in_fan_out=any(isinstance(layer.get_base_layer(), Conv1D) for layer in adapted(model).values()),
        inference_mode=True,
    )
    values = config.to_dict()
    tensors = {
        IN_PEFT + name.replace(IN_MODEL, ""): tensor.detach().contiguous().clone().cpu()
        for name, tensor in weights.items()
        if ".lora_" in name or any(name.startswith(f"{head}.") for head in heads)
    }
    folder.mkdir(parents=True, exist_ok=True)
    listed = {key: sorted(value) if isinstance(value, set) else value for key, value in values.items()}
    stage.write_json(folder / CONFIG_NAME, listed)
    save_file(tensors, folder / SAFETENSORS_WEIGHTS_NAME, {"format": "pt"})


def _trained_beside(model: PreTrainedModel) -> list[str]:
    """Return the modules without adapters that train, such as classifier, without those inside another of them."""
    names = (name for name, p in model.named_parameters() if p.requires_grad and ".lora_" not in name)
    trained = {name.rpartition(".")[0] for name in names}
    return sorted(name for name in trained if not any(name.startswith(f"{other}.") for other in trained))


def adapted(model: PreTrainedModel) -> dict[str, LoraLayer]:
    """Return the layers that have adapters, by their names in the base model."""
    return {name: layer for name, layer in model.base_model.named_modules() if isinstance(layer, LoraLayer)}
