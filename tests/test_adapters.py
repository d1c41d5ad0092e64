"""LoRA: only adapters and head train, and what is saved is a plain model that answers as the trained one did."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import toy_models
from conftest import toy_settings
from peft import PeftModel
from pydantic import ValidationError
from safetensors.torch import load_file
from toy_models import BATCHES, steps, without_dropout

from finetrail import tasks
from finetrail.errors import UserError
from finetrail.schema import Lora, Train
from finetrail.training import adapters
from finetrail.training.optimizers import parameter_groups

RANK = 2
LORA = Lora(rank=RANK, alpha=4.0, dropout=0.1, target_modules=None, keep=False, quantize=None)
# Inputs and outputs of each linear layer: of BERT's attention and its two wide ones, and of GPT-2's four.
BERT, GPT2 = 4 * (32 + 32) + 2 * (32 + 64), (16 + 48) + (16 + 16) + 2 * (16 + 64)
LAYERS = 2
HEADS = {
    "masked_lm": {
        "cls.predictions.bias",
        *(
            f"cls.predictions.transform.{layer}.{kind}"
            for layer in ("dense", "LayerNorm")
            for kind in ("weight", "bias")
        ),
    },
    "question_answering": {"qa_outputs.weight", "qa_outputs.bias"},
    "retrieval": set(),
    "text_classification": {
        *("bert.pooler.dense.weight", "bert.pooler.dense.bias"),  # new: a masked language model has none
        *("classifier.weight", "classifier.bias"),
    },
    "text_generation": set(),
    "token_classification": {"classifier.weight", "classifier.bias"},
}

Build = Callable[..., Any]


@pytest.fixture
def build(tiny_checkpoint: Path, tmp_path: Path) -> Build:
    """Return the function that builds the tiny model of a task."""
    return lambda task, seed=0: toy_models.build(task, tiny_checkpoint, tmp_path, seed)


def tensors(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def is_adapter(name: str) -> bool:
    return ".lora_" in name


def alike(one: list[torch.Tensor], other: list[torch.Tensor], tolerance: float) -> bool:
    return all(torch.allclose(*pair, atol=tolerance) for pair in zip(one, other, strict=True))


def outputs(model: Any, task: str) -> list[torch.Tensor]:
    return outputs_of(model, BATCHES[task])


def outputs_of(model: Any, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    with torch.inference_mode():
        found = model.eval()(**batch).to_tuple()
    return [output for output in found if isinstance(output, torch.Tensor)]


@pytest.mark.parametrize("task", tasks.names())
def test_only_adapters_and_the_head_train(build: Build, task: str) -> None:
    model = build(task)
    adapters.add(model, LORA)
    before = tensors(model)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}

    assert {name for name in trained if not is_adapter(name)} == HEADS[task]
    size = sum(before[name].numel() for name in trained if is_adapter(name))
    assert size == RANK * LAYERS * (GPT2 if task == "text_generation" else BERT)
    steps(model, BATCHES[task])
    assert {name for name, tensor in tensors(model).items() if not torch.equal(tensor, before[name])} == trained


@pytest.mark.parametrize("task", tasks.names())
def test_a_saved_model_is_plain_with_the_trained_outputs(build: Build, tmp_path: Path, task: str) -> None:
    build(task).save_pretrained(tmp_path / "plain")
    model = build(task)
    names = set(model.state_dict())
    untrained = outputs(model, task)
    adapters.add(model, LORA)
    steps(model, BATCHES[task])
    adapted = outputs(model, task)
    adapters.merge(model, {})
    model.save_pretrained(tmp_path / "merged")

    assert not all(torch.allclose(*pair, atol=1e-3) for pair in zip(untrained, adapted, strict=True))
    assert all(torch.allclose(*pair, atol=1e-5) for pair in zip(adapted, outputs(model, task), strict=True))
    assert set(model.state_dict()) == names
    plain, merged = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "merged"))
    assert {name: tensor.shape for name, tensor in merged.items()} == {n: t.shape for n, t in plain.items()}
    for file in (tmp_path / "plain").rglob("*.json"):
        assert file.read_bytes() == (tmp_path / "merged" / file.relative_to(tmp_path / "plain")).read_bytes()
    assert {file.name for file in (tmp_path / "merged").iterdir()} == {f.name for f in (tmp_path / "plain").iterdir()}
    loaded = tasks.module(task, "loading").load_model(tmp_path / "merged").state_dict()
    assert loaded and all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in loaded.items())


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT's own (0.21)
@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize("task", tasks.names())
def test_kept_adapters_give_peft_the_outputs_of_the_merged_model(
    build: Build, tmp_path: Path, task: str, halves: bool
) -> None:
    model = build(task)
    adapters.add(model, LORA)
    whole = adapters.halve(model) if halves else {}
    with torch.autocast("cpu", torch.bfloat16, enabled=halves):
        steps(model, BATCHES[task])
    adapters.save(model, LORA, tmp_path / "adapter")
    adapters.merge(model, whole)

    assert {file.name for file in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    base, batch = build(task, seed=1), BATCHES[task]  # another new head: the adapter's own replaces it
    if task == "retrieval":  # what it saves is its encoder
        base, model, batch = base.encoder, model.encoder, toy_models.TEXTS
        base.pooler = model.pooler = None  # new in both, and not used
    expected = outputs_of(model, batch)
    assert not alike(outputs_of(base, batch), expected, 1e-3)
    loaded = PeftModel.from_pretrained(base, tmp_path / "adapter")
    assert alike(outputs_of(loaded, batch), expected, 1e-5)


def test_kept_adapters_are_small_and_their_bytes_repeat(build: Build, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        model = build("text_generation")
        adapters.add(model, LORA.model_copy(update={"target_modules": ["c_attn"]}))
        adapters.save(model, LORA, tmp_path / folder)
    files = [{file.name: file.read_bytes() for file in (tmp_path / folder).iterdir()} for folder in ("one", "two")]
    assert files[0] == files[1]
    config = json.loads(files[0]["adapter_config.json"])
    assert config["target_modules"] == ["transformer.h.0.attn.c_attn", "transformer.h.1.attn.c_attn"]
    keys = ("r", "lora_alpha", "fan_in_fan_out", "modules_to_save")
    assert [config[key] for key in keys] == [2, 4.0, True, None]
    sizes = [tensor.numel() for tensor in load_file(tmp_path / "one/adapter_model.safetensors").values()]
    assert sum(sizes) == RANK * LAYERS * (16 + 48)


@pytest.mark.parametrize("task", tasks.names())
def test_weights_kept_in_bf16_train_to_the_same_bytes(build: Build, task: str) -> None:
    found = []
    for halves in (False, True):
        model = build(task)
        adapters.add(model, LORA)
        whole = adapters.halve(model) if halves else {}
        halved = {name for name, weight in model.named_parameters() if weight.dtype == torch.bfloat16}
        assert len(halved) == len(whole) and halved.isdisjoint(
            name for name, weight in model.named_parameters() if weight.requires_grad
        )
        torch.manual_seed(5)
        with torch.autocast("cpu", torch.bfloat16):
            steps(model, BATCHES[task])
        adapters.merge(model, whole)
        found.append(tensors(model))
        assert halves == bool(whole)
    assert all(torch.equal(weight, found[1][name]) for name, weight in found[0].items())
    assert {weight.dtype for weight in found[1].values()} == {torch.float32}


@pytest.mark.parametrize("task", tasks.names())
def test_hooks_and_losses_work_on_as_they_do_without_adapters(build: Build, task: str) -> None:
    model = without_dropout(build(task))
    expected = model.train()(**BATCHES[task]).loss
    adapters.add(model, LORA)  # new ones add nothing: one of their two matrices is zero
    trained = without_dropout(model).train()(**BATCHES[task]).loss
    assert torch.allclose(trained, expected, atol=1e-6)
    assert torch.allclose(model.eval()(**BATCHES[task]).loss, expected, atol=1e-6)


@pytest.mark.parametrize("task", tasks.names())
def test_the_optimizer_gets_all_that_trains_once(build: Build, task: str) -> None:
    model = build(task)
    adapters.add(model, LORA)
    given = [p for group in parameter_groups(model, 0.1, 0.01, 1.0) for p in group["params"]]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert len(given) == len(trained) and set(map(id, given)) == set(map(id, trained))


def test_adapters_are_drawn_from_the_seed(build: Build) -> None:
    found = []
    for seed in (1, 1, 2):
        model = build("token_classification", seed)
        adapters.add(model, LORA)
        found.append({name: tensor for name, tensor in tensors(model).items() if "lora_A" in name})
    one, same, other = found
    assert all(torch.equal(tensor, same[name]) for name, tensor in one.items())
    assert not any(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize(
    ("target_modules", "expected"),
    [
        (["query", "value"], {"attention.self.query", "attention.self.value"}),
        (["attention.output.dense"], {"attention.output.dense"}),
        (["dense"], {"attention.output.dense", "intermediate.dense", "output.dense"}),
    ],
)
def test_layers_can_be_chosen_by_the_end_of_their_names(
    build: Build, target_modules: list[str], expected: set[str]
) -> None:
    model = build("text_classification")
    adapters.add(model, LORA.model_copy(update={"target_modules": target_modules}))
    adapted = {name.split(".lora_")[0] for name in tensors(model) if is_adapter(name)}
    assert adapted == {f"bert.encoder.layer.{layer}.{name}" for layer in range(LAYERS) for name in expected}
    assert all(parameter.requires_grad for parameter in model.bert.pooler.parameters())


@pytest.mark.parametrize(
    ("task", "there"), [("retrieval", "dense, key, query, value"), ("text_generation", "c_attn, c_fc, c_proj")]
)
def test_a_layer_that_is_not_there_is_told_with_those_that_are(build: Build, task: str, there: str) -> None:
    lora = LORA.model_copy(update={"target_modules": ["query" if task == "retrieval" else "c_fc", "ense"]})
    message = f"train.lora.target_modules: no linear layer of the base model is called 'ense'; expected one of {there}$"
    with pytest.raises(UserError, match=message):
        adapters.add(build(task), lora)


@pytest.mark.parametrize("changes", [{"layer_decay": 0.9}, {"unfreeze_layers": 1}])
def test_what_says_how_layers_train_does_not_go_with_frozen_ones(changes: dict[str, Any]) -> None:
    with pytest.raises(
        ValidationError, match="lora freezes the layers that .* expected layer_decay 1.0 and no unfreeze"
    ):
        Train(**toy_settings(lora=LORA.model_dump(), **changes))
    assert Train(**toy_settings(lora=LORA.model_dump())).lora == LORA
