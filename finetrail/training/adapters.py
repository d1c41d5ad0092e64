"""Turns a model into one of which only small adapters and the head train, and back into a plain model (LoRA)."""

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

# A masked language model has none to give, so it may be new: it stands in the base model, and belongs to the head.
POOLER = "pooler."
# What the names of all weights begin with in PEFT's files, and what those of adapters have in a model.
IN_PEFT, IN_MODEL = "base_model.model.", ".default"


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
    transposed = any(isinstance(layer, Conv1D) for layer in layers.values())  # GPT-2's weights are
    config = LoraConfig(
        **_settings(lora), target_modules=chosen(list(layers), lora.target_modules), fan_in_fan_out=transposed
    )
    trained = [p for name, p in base.named_parameters() if name.startswith(POOLER) and p.requires_grad]
    inject_adapter_in_model(config, base)  # which freezes all else in it
    del base.peft_config  # what is left is a plain model of transformers with other layers
    for parameter in trained:
        parameter.requires_grad_(True)
    projection = model.get_output_embeddings()
    if projection is not None:
        projection.weight.requires_grad_(False)


def _settings(lora: schema.Lora) -> dict[str, Any]:
    return {"r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout}


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


def shrink(model: PreTrainedModel, lora: schema.Lora, precision: str) -> dict[str, torch.Tensor]:
    """Keep the weights below the adapters in fewer bits, where that may be, and return what merge() needs for it."""
    spread = os.environ.get("ACCELERATE_USE_FSDP") == "true"  # FSDP spreads weights of one type only
    if lora.quantize is not None:
        four_bits.quantize(adapted(model), four_bits.device(spread), precision)
        return {}
    return halve(model) if precision == "bf16" and not spread else {}


def halve(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Keep the weights below the adapters in bf16, as autocast would make them for each pass: the results are the same.

    Returns those weights as they were, by name, for merge(); on a GPU they then take half of its memory.
    """
    whole = {}
    for name, layer in adapted(model).items():
        for key, weight in layer.get_base_layer().named_parameters():
            whole[f"{name}.{key}"] = weight.data
            weight.data = weight.data.to(torch.bfloat16)
    return whole


def merge(model: PreTrainedModel, whole: dict[str, torch.Tensor]) -> None:
    """Add what the adapters learned to the weights below them: a plain model again, with the names it had.

    whole: what shrink() returned. Weights that were in 4 bits keep the values that the adapters learned beside.
    """
    four_bits.restore(adapted(model))
    for name, layer in adapted(model).items():
        for key, weight in layer.get_base_layer().named_parameters():
            weight.data = whole.get(f"{name}.{key}", weight.data).to(weight.device)
        layer.merge()
        model.base_model.set_submodule(name, layer.get_base_layer())


def save(model: PreTrainedModel, lora: schema.Lora, folder: Path) -> None:
    """Write the adapters, and what else trained (the head), as PEFT loads them on the base model; before merge().

    PEFT's own writing would need its model, and would write sets in another order in each process.
    """
    weights = model.state_dict()  # whose names may be others than the modules': retrieval saves its encoder alone
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
    """Return the modules without adapters that train, such as classifier; those inside of another are in that one."""
    names = (name for name, p in model.named_parameters() if p.requires_grad and ".lora_" not in name)
    trained = {name.rpartition(".")[0] for name in names}
    return sorted(name for name in trained if not any(name.startswith(f"{other}.") for other in trained))


def adapted(model: PreTrainedModel) -> dict[str, LoraLayer]:
    """Return the layers that have adapters, by their names in the base model."""
    return {name: layer for name, layer in model.base_model.named_modules() if isinstance(layer, LoraLayer)}
