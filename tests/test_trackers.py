"""Where curves go beside DVCLive's: what is said before training, what cannot end it, and what is on the network."""

import os
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import BertConfig

from finetrail import layout, params
from finetrail.errors import UserError
from finetrail.training import trackers
from finetrail.training.trackers import Trackers

MODEL = SimpleNamespace(config=BertConfig(hidden_size=8, num_attention_heads=2), num_parameters=lambda: 7)
REPORTS = [(1, {"loss": 2.0, "learning_rate": 0.1}), (5, {"loss": 1.0, "learning_rate": 0.05}), (5, {"eval_f1": 0.5})]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, the current folder, with an environment that says nothing of trackers."""
    ours = ("WANDB_", "MLFLOW_", "TENSORBOARD_", "DVC_EXP_NAME")
    monkeypatch.setattr(os, "environ", {name: os.environ[name] for name in os.environ if not name.startswith(ours)})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(tracked: Trackers) -> None:
    tracked.start(MODEL, updates=5)
    for update, report in REPORTS:
        tracked.report(update, report)
    tracked.end()


def tracker(name: str) -> Trackers:
    return Trackers([name], "retrieval", "mine", {"lr": 0.1, "lora": {"rank": 8}})


def test_none_writes_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(Trackers([], "retrieval", "mine", {}))
    assert list(project.iterdir()) == [] and capsys.readouterr() == ("", "")


def test_logs_of_a_copy_that_is_removed_are_kept_in_the_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert trackers.logs() == project / "logs"
    for copy in (".dvc/tmp/exps/tmp123", ".dvc/tmp/exps/standalone/tmp123", ".scratch/search/lr/0/project"):
        (project / copy).mkdir(parents=True)
        monkeypatch.chdir(project / copy)
        assert trackers.logs() == project / "logs"


def test_nothing_reaches_the_network_unless_the_environment_asks(project: Path) -> None:
    os.environ["MLFLOW_TRACKING_URI"] = "https://mlflow.example.org"
    os.environ["WANDB_LOG_MODEL"] = "end"
    given = trackers.set_defaults(project / "logs")
    assert os.environ["MLFLOW_TRACKING_URI"] == "https://mlflow.example.org" and "MLFLOW_TRACKING_URI" not in given
    assert (os.environ["WANDB_MODE"], os.environ["WANDB_LOG_MODEL"]) == ("offline", "false")
    assert trackers.set_defaults(project / "logs") == given


def test_a_library_that_is_missing_is_told_before_anything_runs(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[1]
    (project / "recipes").symlink_to(root / "recipes")
    text = (root / layout.PARAMS).read_text()
    assert "\ntrackers:\n" in text
    layout.PARAMS.write_text(text.replace("\ntrackers:\n", "\ntrackers:\n- wandb\n"))
    monkeypatch.setattr(params, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"^params.yaml: trackers: wandb is not installed; expected `pip install wandb`"
    ):
        params.validate()
    layout.PARAMS.write_text(text.replace("\ntrackers:\n", "\ntrackers:\n- comet\n"))
    with pytest.raises(UserError, match=r"^params.yaml: trackers.0: .*'tensorboard', 'wandb' or 'mlflow'"):
        params.validate()


class Failing:
    """A callback whose server is gone from an event on."""

    def __init__(self, event: str) -> None:
        self.event, self.heard = event, 0

    def __getattr__(self, name: str) -> Any:
        def on_event(*args: Any, **kwargs: Any) -> None:
            self.heard += 1
            if name == self.event:
                raise ConnectionError("no route to host\nTraceback")

        return on_event


def test_a_tracker_that_does_not_answer_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "callback", lambda *_: Failing("on_train_begin"))
    with pytest.raises(UserError, match=r"^train: mlflow: no route to host; expected a tracker that answers, or none$"):
        tracker("mlflow").start(MODEL, updates=5)


@pytest.mark.parametrize("event", ["on_log", "on_train_end"])
def test_a_tracker_that_fails_later_does_not_end_training(
    event: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing = Failing(event)
    monkeypatch.setattr(trackers, "callback", lambda *_: failing)
    run(tracker("tensorboard"))
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert warnings == ["train: warning: tensorboard: no route to host: training continues without it"]
    assert failing.heard == (2 if event == "on_log" else 5)


@pytest.mark.filterwarnings("ignore")  # of the libraries of these two
def test_wandb_keeps_runs_here(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("wandb", reason="wandb is the user's to install")
    run(tracker("wandb"))
    run(tracker("wandb"))
    assert len(list(project.glob("logs/wandb/offline-run-*/*.wandb"))) == 2
    assert f"train: wandb: `wandb sync {project}/logs/wandb/offline-run-*`" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore")
def test_mlflow_keeps_curves_and_settings_in_its_database(project: Path) -> None:
    pytest.importorskip("mlflow", reason="MLflow is the user's to install")
    os.environ["DVC_EXP_NAME"] = "red-fox"
    run(tracker("mlflow"))
    run(tracker("mlflow"))
    with sqlite3.connect(project / "logs/mlflow.db") as database:
        assert (
            database.execute("select name, status from runs").fetchall() == [("retrieval/mine/red-fox", "FINISHED")] * 2
        )
        points = database.execute("select distinct key, step, value from metrics order by key, step").fetchall()
        settings = dict(database.execute("select key, value from params").fetchall())
    assert points == [
        ("eval_f1", 5, 0.5),
        ("learning_rate", 1, 0.1),
        ("learning_rate", 5, 0.05),
        ("loss", 1, 2.0),
        ("loss", 5, 1.0),
    ]
    assert (settings["lr"], settings["recipe"], settings["hidden_size"]) == ("0.1", "mine", "8")
    assert list(project.iterdir()) == [project / "logs"]
