"""Weights that FSDP spreads over two processes (gloo, CPU): the result of one, also with tied weights and adapters."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator, DistributedType
from ruamel.yaml import YAML
from safetensors.numpy import load_file
from toys import projects

from finetrail import layout, params
from finetrail.errors import UserError
from finetrail.training import shards
from stages import download_corpus, download_model, tokenize, train

TORCHRUN = ("-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d", "--rdzv_endpoint")
# Accelerate (1.15) starts FSDP on accelerators only. This starts it on CPUs too, as it does there.
SPREAD = """
import runpy
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

made = AcceleratorState.__init__

def spread(self, *arguments, fsdp_plugin=None, **named):
    made(self, *arguments, fsdp_plugin=fsdp_plugin, **named)
    if fsdp_plugin is not None:
        if self.mixed_precision != "no":
            fsdp_plugin.set_mixed_precision(self.mixed_precision)
        self.fsdp_plugin = fsdp_plugin
        self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP

AcceleratorState.__init__ = spread
runpy.run_module("stages.train", run_name="__main__")
"""
DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "resid_pdrop", "embd_pdrop", "attn_pdrop")
# As accelerate launch would set it.
FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
}
KILLED_IN_TRAINING = """
import os, signal
from finetrail.training.journal import Journal
updated = Journal.updated

def die(self, update):
    updated(self, update)
    if update == 5:
        os.kill(os.getpid(), signal.SIGKILL)

Journal.updated = die
"""
KILLED_BEHIND_IT = """
import os, signal
from finetrail.training import shards
shards.gather = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
"""
LORA = {"rank": 2, "alpha": 4.0, "dropout": 0.0, "target_modules": None}


@pytest.fixture(scope="module")
def tokenized(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Path]]:
    """Return the function that enters the project of a task, with features, whose model draws no dropout."""
    with projects(
        request, download_corpus, download_model, tokenize, checkpoint_every="2 updates", epochs=2.0
    ) as enter:

        def entered(task: str) -> Path:
            folder = enter(task)
            config = Path("data/model/weights/config.json")
            values = json.loads(config.read_text())
            config.write_text(json.dumps(values | dict.fromkeys(DROPOUTS, 0.0)))
            return folder

        yield entered


def trained(task: str, *program: str, succeeds: bool = True, **changes: Any) -> str:
    """Run the stage with changes to the recipe's section train, spread where it is a program of its own."""
    path = layout.recipe_file(task, "toy")
    yaml = YAML()
    recipe = yaml.load(path)
    recipe["train"].update(changes)
    yaml.dump(recipe, path)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())} | (FSDP if program else {})
    arguments: tuple[str, ...] = ("-m", "stages.train")
    if program:
        Path("spread.py").write_text("".join(program))
        arguments = (*TORCHRUN, "127.0.0.1:0", "spread.py")
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode == 0) == succeeds, done.stderr
    return done.stderr


def result() -> tuple[dict[str, Any], dict[str, Any], list[float]]:
    """Return the weights, the record and the loss curve."""
    lines = Path("metrics/train/plots/metrics/train/loss.tsv").read_text().splitlines()[1:]
    record = json.loads(Path("data/trained/training.json").read_text())
    return load_file("data/trained/model.safetensors"), record, [float(line.split("\t")[1]) for line in lines]


def test_bf16_computes_as_in_one_process(tokenized: Callable[[str], Path]) -> None:
    tokenized("token_classification")
    trained("token_classification", engine="accelerate", gradient_accumulation=2, precision="bf16")
    _, record, losses = result()
    trained("token_classification", SPREAD, gradient_accumulation=1)
    _, of_two, losses_of_two = result()
    trained("token_classification", precision="fp32")  # for the next test
    assert record["precision"] == of_two["precision"] == "bf16"
    assert losses_of_two == pytest.approx(losses, rel=1e-3)


@pytest.mark.parametrize(
    ("task", "engine"),
    [("masked_lm", "trainer"), ("text_generation", "accelerate"), ("text_classification", "trainer")],
)
def test_two_processes_that_share_the_weights_give_the_result_of_one(
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


@pytest.mark.parametrize(
    ("engine", "killed", "update"),
    [("trainer", KILLED_IN_TRAINING, 3), ("accelerate", KILLED_IN_TRAINING, 3), ("trainer", KILLED_BEHIND_IT, 6)],
)
def test_a_spread_run_that_is_killed_goes_on_to_the_same_bytes(
    engine: str, killed: str, update: int, tokenized: Callable[[str], Path]
) -> None:
    tokenized("token_classification")
    trained("token_classification", killed, SPREAD, succeeds=False, engine=engine)
    printed = trained("token_classification", SPREAD)
    assert f"goes on from the checkpoint after update {update} of 6" in printed
    resumed = Path("data/trained/model.safetensors").read_bytes()
    trained("token_classification", SPREAD)
    assert Path("data/trained/model.safetensors").read_bytes() == resumed


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


def test_a_model_whose_weights_have_other_names_in_checkpoints_is_refused(tokenized: Callable[[str], Path]) -> None:
    tokenized("retrieval")
    assert "error: launcher: FSDP has no checkpoints for BiEncoder; expected DDP" in trained(
        "retrieval", SPREAD, succeeds=False
    )


@pytest.mark.parametrize("kind", [DistributedType.FSDP, DistributedType.DEEPSPEED])
def test_weights_that_nothing_gathers_are_refused(kind: DistributedType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Accelerator, "distributed_type", kind)
    monkeypatch.setattr(Accelerator, "is_fsdp2", False)
    with pytest.raises(UserError, match=f"launcher: {kind.value}.* spreads the weights .* expected DDP"):
        shards.check(Accelerator(cpu=True), None)  # type: ignore[arg-type]
