"""Weights that FSDP spreads over two processes (gloo, CPU): the result of one, also with tied weights and adapters."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator, DistributedType
from spread import SPREAD, result, tokenized, trained
from toy_training import configure

from finetrail import params
from finetrail.errors import UserError
from finetrail.schema import Train
from finetrail.training import fsdp
from stages import train

__all__ = ["tokenized"]  # a fixture
LORA = {"rank": 2, "alpha": 4.0, "dropout": 0.0, "target_modules": None, "keep": False, "quantize": None}


@pytest.mark.slow
def test_bf16_computes_as_in_one_process(tokenized: Callable[[str], Path]) -> None:
    tokenized("token_classification")
    trained("token_classification", engine="accelerate", gradient_accumulation=2, precision="bf16")
    _, record, losses = result()
    trained("token_classification", SPREAD, gradient_accumulation=1)
    _, of_two, losses_of_two = result()
    configure("token_classification", precision="fp32")  # for the next test
    assert record["precision"] == of_two["precision"] == "bf16"
    assert losses_of_two == pytest.approx(losses, rel=1e-3)


@pytest.mark.parametrize(
    ("task", "engine"),
    [
        pytest.param("masked_lm", "trainer", marks=pytest.mark.slow),
        ("text_generation", "accelerate"),
        pytest.param("text_classification", "trainer", marks=pytest.mark.slow),
    ],
)
def test_two_processes_sharing_weights_give_the_result_of_one(
    task: str, engine: str, tokenized: Callable[[str], Path]
) -> None:
    tokenized(task)
    adapters = {"lora": LORA, "gradient_checkpointing": True} if task == "text_classification" else {}
    trained(task, engine=engine, gradient_accumulation=2, **adapters)
    alone, record, losses = result()
    trained(task, SPREAD, engine=engine, gradient_accumulation=1)
    together, of_two, losses_of_two = result()
    assert of_two["processes"] == 2
    assert {key for key in record if record[key] != of_two[key]} <= {"processes", "gradient_accumulation", "best_value"}
    assert losses_of_two == pytest.approx(losses, rel=1e-4)
    assert together.keys() == alone.keys()
    assert all(together[name] == pytest.approx(alone[name], abs=1e-4) for name in alone)


def test_a_run_that_is_spread_otherwise_meets_no_checkpoint(
    tokenized: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenized("token_classification")
    declared = params.load("train")
    found = [train.scratch(declared)]
    for name, value in {"ACCELERATE_USE_FSDP": "true", "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT"}.items():
        monkeypatch.setenv(name, value)
        found.append(train.scratch(declared))
    assert len(set(found)) == 3


@pytest.mark.slow
def test_fsdp_refuses_models_with_renamed_checkpoint_weights(tokenized: Callable[[str], Path]) -> None:
    tokenized("retrieval")
    assert "error: launcher: FSDP has no checkpoints for BiEncoder; expected DDP" in trained(
        "retrieval", SPREAD, succeeds=False
    )


@pytest.mark.parametrize("kind", [DistributedType.FSDP, DistributedType.DEEPSPEED])
def test_weights_that_nothing_gathers_are_refused(kind: DistributedType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Accelerator, "distributed_type", kind)
    monkeypatch.setattr(Accelerator, "is_fsdp2", False)
    with pytest.raises(UserError, match=f"launcher: {kind.value}.* spreads the weights .* expected DDP"):
        fsdp.validate(Accelerator(cpu=True), None)  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [{"unfreeze_layers": 1}, {"execution": "compile"}])
def test_what_changes_a_spread_model_is_refused(change: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Accelerator, "distributed_type", DistributedType.FSDP)
    monkeypatch.setattr(Accelerator, "is_fsdp2", True)
    plain = {"unfreeze_layers": None, "execution": "auto"}
    fsdp.validate(Accelerator(cpu=True), Train.model_construct(**plain))
    with pytest.raises(UserError, match="change a model that FSDP has spread; expected null and auto, or DDP"):
        fsdp.validate(Accelerator(cpu=True), Train.model_construct(**plain | change))
