"""Training on two processes (gloo, CPU): the result of one on the same effective batch; a worker that dies ends it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from safetensors.numpy import load_file

from stages import download_corpus, download_model, tokenize
from stages.train import ENGINES

TORCHRUN = ("-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d", "--rdzv_endpoint")
# On CPUs it starts several processes by MPI only.
ACCELERATE = ("-m", "accelerate.commands.accelerate_cli", "launch", "--cpu", "--num_processes", "1")

# Both count updates and end alike: CI tries the other one too.
ONE_ENGINE = ["accelerate", pytest.param("trainer", marks=pytest.mark.slow)]

# Simulates a worker that the system kills after the second update.
DYING = """
import os, runpy, signal
from finetrail.training.logger import TrainingLogger
updated = TrainingLogger.updated
def die(self, update):
    updated(self, update)
    if update == 2 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
TrainingLogger.updated = die
runpy.run_module("stages.train", run_name="__main__")
"""


# A run whose first epoch stays the best.
DECLINING = """
import runpy
from finetrail.training import validation
scores, seen = validation.scores, []
def declining(*arguments):
    seen.append(scores(*arguments))
    return seen[-1] | {"f1": 1 / len(seen)}
validation.scores = declining
runpy.run_module("stages.train", run_name="__main__")
"""


@pytest.fixture(scope="module")
def project(make_project: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with features, whose model draws no dropout: each process would draw its own."""
    folder = make_project(tmp_path_factory.mktemp("launchers"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for stage in (download_corpus, download_model, tokenize):
            stage.main()
    config = folder / "data/model/weights/config.json"
    without = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config.write_text(json.dumps(json.loads(config.read_text()) | without))
    return folder


def run(folder: Path, *arguments: str, succeeds: bool = True) -> str:
    """Run Python as DVC would, and return what it printed."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode == 0) == succeeds, done.stderr
    return done.stderr


def torchrun(*program: str) -> tuple[str, ...]:
    return (*TORCHRUN, "127.0.0.1:0", *program)


def configure(folder: Path, **changes: Any) -> None:
    path = folder / "recipes/token_classification/toy.yaml"
    yaml = YAML()
    recipe = yaml.load(path)
    recipe["train"].update({"lr": 1e-3, "checkpoint_every": "1 updates", "gradient_accumulation": 1} | changes)
    yaml.dump(recipe, path)


def trained(folder: Path) -> tuple[dict[str, Any], dict[str, Any], list[float]]:
    """Return the weights, the record and the loss curve."""
    lines = (folder / "metrics/train/plots/metrics/train/loss.tsv").read_text().splitlines()[1:]
    record = json.loads((folder / "data/trained/training.json").read_text())
    return load_file(folder / "data/trained/model.safetensors"), record, [float(line.split("\t")[1]) for line in lines]


@pytest.mark.parametrize("engine", ONE_ENGINE)
def test_two_processes_give_the_result_of_one(project: Path, engine: str) -> None:
    configure(project, engine=engine, gradient_accumulation=2)
    run(project, "-m", "stages.train")
    alone, record, losses = trained(project)
    configure(project, engine=engine)
    printed = run(project, *torchrun("-m", "stages.train"))
    together, of_two, losses_of_two = trained(project)
    assert (record["processes"], of_two["processes"]) == (1, 2)
    assert record["effective_batch_size"] == of_two["effective_batch_size"] == 16
    assert record["updates"] == of_two["updates"] > 4
    assert losses_of_two == pytest.approx(losses, rel=1e-4)
    assert of_two["best_value"] == pytest.approx(record["best_value"], abs=1e-6)
    assert all(together[name] == pytest.approx(alone[name], abs=1e-4) for name in alone)
    assert printed.count("train: epoch 1 of 2") == 1
    assert printed.count("updates in fp32 on cpu") == 1


@pytest.mark.slow
def test_accelerate_launch_gives_the_bytes_of_python(project: Path) -> None:
    configure(project, engine="accelerate")
    run(project, "-m", "stages.train")
    alone = (project / "data/trained/model.safetensors").read_bytes()
    run(project, *ACCELERATE, "-m", "stages.train")
    assert (project / "data/trained/model.safetensors").read_bytes() == alone


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_several_processes_keep_the_best_weights(project: Path, engine: str) -> None:
    (project / "declining.py").write_text(DECLINING)
    [other] = ENGINES.keys() - {engine}  # one that forgot the best in both runs would agree with itself
    configure(project, engine=other, gradient_accumulation=2)
    run(project, "declining.py")
    alone, record, _ = trained(project)
    configure(project, engine=engine)
    run(project, *torchrun("declining.py"))
    together, of_two, _ = trained(project)
    assert record["best_update"] == of_two["best_update"] < of_two["updates"]
    assert all(together[name] == pytest.approx(alone[name], abs=1e-4) for name in alone)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_dead_worker_ends_the_stage_and_the_next_run_resumes(project: Path, engine: str) -> None:
    configure(project, engine=engine)
    (project / "dying.py").write_text(DYING)
    printed = run(project, *torchrun("dying.py"), succeeds=False)
    assert "SIGKILL" in printed
    checkpoints = list(project.glob(".scratch/train/*/checkpoint-*"))
    assert checkpoints
    printed = run(project, *torchrun("-m", "stages.train"))
    assert "resumes from the checkpoint after update" in printed
    resumed = (project / "data/trained/model.safetensors").read_bytes()
    run(project, *torchrun("-m", "stages.train"))
    assert (project / "data/trained/model.safetensors").read_bytes() == resumed
