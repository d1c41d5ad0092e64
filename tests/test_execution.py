"""How a run's passes are executed: what its settings, its length and its machine decide."""

from typing import Any

import pytest
import torch
from conftest import toy_settings
from transformers import BertConfig, BertForSequenceClassification

from finetrail.errors import UserError
from finetrail.schema import Train
from finetrail.training import execution, packing
from finetrail.training.execution import UPDATES_WORTH_RECORDING, Execution


def chosen(
    precision: str = "bf16",
    updates: int = UPDATES_WORTH_RECORDING,
    config: dict[str, Any] | None = None,
    **changes: Any,
) -> Execution:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    model = BertForSequenceClassification(BertConfig(vocab_size=9, **sizes))
    for name, value in (config or {}).items():
        setattr(model.config, name, value)
    return execution.chosen(model, Train(**toy_settings(**changes)), precision, updates)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Claim that there is one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(packing, "applies", lambda model, precision: precision in packing.HALF_PRECISION)


def test_a_cpu_has_buckets_and_starts_kernel_by_kernel() -> None:
    assert chosen() == Execution("buckets", "eager")
    assert chosen(execution="compile") == Execution("buckets", "compile")
    with pytest.raises(UserError, match=r"^train.execution: graphs needs a CUDA device; otherwise expected auto"):
        chosen(execution="graphs")


@pytest.mark.usefixtures("gpu")
def test_a_long_run_on_a_gpu_is_recorded_and_a_short_one_is_not() -> None:
    assert chosen() == Execution("none", "graphs")
    assert chosen(updates=UPDATES_WORTH_RECORDING - 1) == Execution("none", "eager")
    assert chosen(updates=1, execution="graphs") == Execution("none", "graphs")
    assert chosen(execution="eager") == Execution("none", "eager")
    assert chosen(execution="compile") == Execution("none", "compile")


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("precision", "environment", "changes", "needed"),
    [
        ("fp32", {}, {}, "a model and a precision that train without padding"),
        ("bf16", {"WORLD_SIZE": "2"}, {}, "a single process without FSDP"),
        ("bf16", {"ACCELERATE_USE_FSDP": "true"}, {}, "a single process without FSDP"),
        ("fp16", {}, {}, "precision bf16"),
        ("bf16", {}, {"gradient_checkpointing": True}, "gradient_checkpointing false and unfreeze_layers null"),
        ("bf16", {}, {"unfreeze_layers": 1}, "gradient_checkpointing false and unfreeze_layers null"),
    ],
)
def test_what_graphs_cannot_have(
    precision: str,
    environment: dict[str, str],
    changes: dict[str, Any],
    needed: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert chosen(precision, **changes).execution == "eager"
    with pytest.raises(UserError, match=f"train.execution: graphs needs {needed}; otherwise expected"):
        chosen(precision, **changes, execution="graphs")


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("config", [{"sparse_prediction": True}, {"rope_parameters": {"rope_type": "dynamic"}}])
def test_models_that_read_from_the_device_are_not_recorded(config: dict[str, Any]) -> None:
    assert chosen(config=config).execution == "eager"
    assert chosen(config={"rope_parameters": {"rope_type": "llama3"}}).execution == "graphs"
    with pytest.raises(
        UserError, match=r"graphs needs a model whose forward pass does not copy values to the CPU; otherwise"
    ):
        chosen(config=config, execution="graphs")


def failing(file: str) -> AssertionError:
    """Return an error that was raised in a file of this name."""
    try:
        exec(compile("def fail():\n  raise AssertionError('no graph\\nat all')\nfail()", file, "exec"), {})
    except AssertionError as error:
        return error
    raise RuntimeError


def test_a_compiler_error_is_one_line_other_errors_stay() -> None:
    compiles, eager = Execution("none", "compile"), Execution("none", "eager")
    own, of_compiler = map(failing, ("/finetrail/tasks/retrieval/modeling.py", "/torch/_dynamo/output_graph.py"))
    execution.raise_compiler_error(own, compiles)
    execution.raise_compiler_error(of_compiler, eager)
    with pytest.raises(
        UserError, match=r"^train.execution: torch.compile fails .* \(AssertionError: no graph\); expected"
    ):
        execution.raise_compiler_error(of_compiler, compiles)
