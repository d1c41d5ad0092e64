"""Training without padding, on a CPU by the reference of its attention: for each task that of the padded batches."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_graphs import Again
from toy_training import ENGINES, curve, trained
from toys import projects

from finetrail import layout, tasks
from finetrail.errors import UserError
from finetrail.training import execution, graphs, packing
from stages import download_corpus, download_model, tokenize, train

pytestmark = pytest.mark.usefixtures("restored_torch")
RECORD = "data/trained/training.json"
# The names of BERT's and of GPT-2's configurations; a new model's file need not have them.
DROPOUTS = ("attention_probs_dropout_prob", "hidden_dropout_prob", "attn_pdrop", "embd_pdrop", "resid_pdrop")


@pytest.fixture(scope="module")
def tokenized(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Path]]:
    """Return the function that enters the project of a task, with features."""
    with projects(request, download_corpus, download_model, tokenize, epochs=1.0) as enter:
        yield enter


@pytest.fixture(params=tasks.names())
def task(request: pytest.FixtureRequest, tokenized: Callable[[str], Path]) -> str:
    without_dropout(tokenized(request.param))
    return str(request.param)


def without_dropout(project: Path) -> None:
    """Take dropout out of the project's base model, which draws other numbers for other shapes."""
    path = project / layout.WEIGHTS / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | dict.fromkeys(DROPOUTS, 0.0)))


@pytest.fixture
def packs(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return what lets models train without padding here."""
    return lambda: monkeypatch.setattr(packing, "applies", lambda model, precision: packing.supported(model))


def test_curves_are_those_of_training_with_padding(task: str, packs: Callable[[], None]) -> None:
    engine = ENGINES[tasks.names().index(task) % 2]  # the engines are compared elsewhere
    padded = trained(task, engine=engine)
    packs()
    packed = trained(task, engine=engine)
    assert padded.keys() == packed.keys()
    for path in padded:
        if path.endswith(".tsv"):
            name = path.removeprefix("metrics/train/plots/metrics/").removesuffix(".tsv")
            assert curve(packed, name) == pytest.approx(curve(padded, name), rel=1e-3, abs=1e-4), name
    one, other = (json.loads(files[RECORD]) for files in (padded, packed))
    assert (one["padding"], other["padding"]) == ("buckets", "none")
    assert padded["data/trained/config.json"] == packed["data/trained/config.json"]


@pytest.mark.parametrize(("task", "engine"), [("masked_lm", "trainer"), ("question_answering", "accelerate")])
def test_recorded_passes_train_to_the_same_losses(
    task: str,
    engine: str,
    tokenized: Callable[[str], Path],
    packs: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without_dropout(tokenized(task))
    packs()
    eager = trained(task, engine=engine)
    again = Again()
    monkeypatch.setattr(execution, "_hindrances", lambda *_: [])
    monkeypatch.setattr(graphs, "CudaGraphs", lambda: again)
    monkeypatch.setattr(execution, "UPDATES_WORTH_RECORDING", 1)
    monkeypatch.setattr(graphs, "PLAIN_FIRST", 0)
    recorded = trained(task, engine=engine)
    assert json.loads(recorded[RECORD])["execution"] == "graphs"
    assert again.recorded > 0
    assert curve(recorded, "train/loss") == pytest.approx(curve(eager, "train/loss"), rel=1e-3, abs=1e-4)


class Started(Exception):
    """In place of another process."""


@pytest.mark.parametrize("error", [RuntimeError("operation not permitted"), torch.OutOfMemoryError("out of memory")])
def test_a_run_restarts_without_recording_where_it_fails(
    error: Exception,
    tokenized: Callable[[str], Path],
    packs: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    tokenized("text_classification")
    packs()
    monkeypatch.setattr(execution, "_hindrances", lambda *_: [])
    monkeypatch.setattr(execution, "UPDATES_WORTH_RECORDING", 1)
    monkeypatch.setattr(graphs, "PLAIN_FIRST", 0)
    started: list[tuple[str, list[str]]] = []

    def start(*command: Any) -> None:
        started.append(command)
        raise Started

    def fails(self: Any, run: Any) -> Any:
        raise error

    monkeypatch.setattr(graphs.CudaGraphs, "__call__", fails)
    monkeypatch.setattr(train.os, "execv", start)
    with pytest.raises(Started):
        trained("text_classification", execution="auto")
    assert started == [(sys.executable, sys.orig_argv)]
    assert f"train: CUDA graphs fail here ({error}): starting again without them" in capfd.readouterr().err
    record = json.loads(trained("text_classification")[RECORD])  # as the process that was started
    assert (record["padding"], record["execution"]) == ("none", "eager")
    assert not (layout.SCRATCH / "train").exists()
    with pytest.raises(
        UserError, match=rf"^train.execution: CUDA graphs fail here \({error}\); expected auto or eager"
    ):
        trained("text_classification", execution="graphs")
