"""QLoRA: layers in 4 bits below adapters, on the CPU, where bitsandbytes computes the same as on a GPU."""

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import toy_models
from safetensors.torch import load_file
from test_adapters import LORA, outputs, tensors
from torch import nn
from toy_models import BATCHES, steps

from finetrail import tasks
from finetrail.errors import UserError
from finetrail.training import adapters, four_bits

CPU = torch.device("cpu")
quantizes = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs `pip install bitsandbytes`")
QLORA = LORA.model_copy(update={"quantize": "nf4"})
LINEAR = [task for task in tasks.names() if task != "text_generation"]  # whose toy is a GPT-2
# Dettmers et al. 2023, appendix E.
NF4 = torch.tensor(
    [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334]
    + [-0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224]
    + [0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]
)


@pytest.fixture
def build(tiny_checkpoint: Path, tmp_path: Path) -> Callable[..., Any]:
    """Return the function that builds the tiny model of a task."""
    return lambda task, seed=0: toy_models.build(task, tiny_checkpoint, tmp_path, seed)


@pytest.fixture
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have layers in 4 bits here, where train refuses them because they would be slow."""
    monkeypatch.setattr(four_bits, "device", lambda spread: CPU)


def nearest(weight: torch.Tensor) -> torch.Tensor:
    """Round each weight to the nearest of 16 shares of the largest of its block of 64."""
    blocks = weight.reshape(-1, 64)
    scales = blocks.abs().amax(dim=1, keepdim=True)
    chosen = (blocks[..., None] / scales[..., None] - NF4).abs().argmin(dim=-1)
    return (NF4[chosen] * scales).reshape(weight.shape)


@quantizes
def test_nf4_weights_are_nearest_values_with_8_bit_scales() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(192, 96)
    found = four_bits.FourBits(layer, CPU, torch.float32).whole()
    expected = nearest(layer.weight.data)
    off = (found.weight - expected).abs() / layer.weight.data.abs().max()
    assert off.max() < 0.02
    assert (found.weight - layer.weight).abs().mean() > 10 * off.mean()
    assert torch.equal(found.bias, layer.bias)


@quantizes
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_computes_with_its_weight_and_has_no_own_state(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = four_bits.FourBits(nn.Linear(64, 32), CPU, dtype)
    inputs = torch.randn(5, 64, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        outputs = layer(inputs)
        expected = layer.whole()(inputs)
    assert torch.equal(outputs, expected)
    outputs.float().sum().backward()
    assert torch.allclose(inputs.grad, layer.whole().weight.sum(dim=0).expand(5, 64), atol=1e-2)
    assert set(layer.state_dict()) == {"bias"}
    assert layer.packed.nbytes == 64 * 32 // 2


@quantizes
@pytest.mark.usefixtures("on_the_cpu")
@pytest.mark.parametrize("task", LINEAR)
def test_a_merged_model_is_plain_with_the_trained_outputs(build: Callable[..., Any], tmp_path: Path, task: str) -> None:
    build(task).save_pretrained(tmp_path / "plain")
    model = build(task)
    adapters.add(model, QLORA)
    whole = adapters.shrink(model, QLORA, "fp32")
    assert whole == {} and any(isinstance(module, four_bits.FourBits) for module in model.modules())
    before = tensors(model)
    steps(model, BATCHES[task])
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name, tensor in tensors(model).items() if not torch.equal(tensor, before[name])} == trained
    adapted = outputs(model, task)
    adapters.merge(model, whole)
    assert all(torch.allclose(*pair, atol=1e-5) for pair in zip(adapted, outputs(model, task), strict=True))
    model.save_pretrained(tmp_path / "merged")
    plain, merged = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "merged"))
    assert {name: (t.shape, t.dtype) for name, t in merged.items()} == {n: (t.shape, t.dtype) for n, t in plain.items()}


@pytest.mark.usefixtures("on_the_cpu")
def test_layers_that_are_not_linear_are_refused(build: Callable[..., Any]) -> None:
    model = build("text_generation")
    adapters.add(model, QLORA)
    with pytest.raises(UserError, match="quantize: the layer h.0.attn.c_attn is a Conv1D; expected a model with lin"):
        adapters.shrink(model, QLORA, "fp32")


def test_where_it_cannot_be_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="nf4 needs a CUDA device and there is none; expected null"):
        four_bits.device(spread=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(UserError, match="FSDP cannot spread weights in 4 bits"):
        four_bits.device(spread=True)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UserError, match="bitsandbytes is not installed; expected `pip install bitsandbytes`, or null"):
        four_bits.device(spread=False)
    monkeypatch.setitem(sys.modules, "bitsandbytes", sys)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert four_bits.device(spread=False) == torch.device("cuda", 3)
