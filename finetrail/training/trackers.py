"""Sends the metrics of an engine to TensorBoard, Weights & Biases or MLflow, by the Trainer's own callbacks.

Their files are not outputs of a stage, because they contain times and names of machines.
"""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState

from finetrail import stage
from finetrail.errors import UserError

FOLDER = Path("logs")  # in the project's root; Git ignores it
PROJECT = "finetrail"
# Folders into which DVC copies the project for queued experiments, and a search for its trials. The copies are removed.
COPIES = ((".dvc", "tmp", "exps"), (".scratch", "search"))
# For each tracker: the variable that says where its data goes, and the command that shows the data if it is not set.
LOOK = {
    "tensorboard": ("TENSORBOARD_LOGGING_DIR", "tensorboard --logdir {folder}/tensorboard"),
    "wandb": ("WANDB_MODE", "wandb sync {folder}/wandb/offline-run-*"),
    "mlflow": ("MLFLOW_TRACKING_URI", "mlflow ui --backend-store-uri sqlite:///{folder}/mlflow.db"),
}


@dataclass(frozen=True)
class Arguments:
    """The part of TrainingArguments that the callbacks use: a run's name, and its settings as JSON values."""

    run_name: str
    settings: dict[str, Any]
    output_dir: str = ""

    def to_dict(self) -> dict[str, Any]:
        return dict(self.settings)

    def to_json_string(self) -> str:
        return json.dumps(self.settings, indent=2)


class Trackers:
    """The trackers of params.yaml for one run, by default none."""

    def __init__(self, names: Sequence[str], task: str, recipe: str, settings: dict[str, Any]) -> None:
        self.names, self.recipe = names, f"{task}/{recipe}"
        self.settings = {"task": task, "recipe": recipe} | settings
        self.callbacks: dict[str, TrainerCallback] = {}

    def start(self, model: Any, updates: int) -> None:
        """Start a run of each tracker, and end an open one; UserError if a tracker does not answer."""
        if not self.names:
            return
        self.end()
        self.model, self.control = model, TrainerControl()
        self.state = TrainerState(max_steps=updates)
        name = os.environ.get("DVC_EXP_NAME") or datetime.now().strftime("%Y-%m-%d-%H-%M-%S")
        self.arguments = Arguments(f"{self.recipe}/{name}", self.settings)
        folder = logs()
        defaults = set_defaults(folder)
        for tracker in self.names:
            folder.mkdir(exist_ok=True)
            try:
                self.callbacks[tracker] = callback(tracker, self.arguments.run_name)
                self._call(tracker, "on_train_begin")
            except Exception as error:  # a server that does not answer, a missing key: each library has its own classes
                expected = "a tracker that answers, or none"
                raise UserError(f"train: {tracker}: {_reason(error)}; expected {expected}") from None
            variable, command = LOOK[tracker]
            where = f"`{command.format(folder=folder)}`" if variable in defaults else f"as {variable} says"
            stage.log(f"train: {tracker}: {where}")

    def report(self, update: int, report: dict[str, float]) -> None:
        """Add values to the curves, under the Trainer's names."""
        for tracker in list(self.callbacks):
            self.state.global_step = update
            self._call_or_drop(tracker, "on_log", logs=dict(report))

    def end(self) -> None:
        """Close the runs."""
        for tracker in list(self.callbacks):
            self._call_or_drop(tracker, "on_train_end")
            with suppress(Exception):  # an error was logged above
                close(tracker)
        self.callbacks = {}
        self.model = None  # so that it does not stay on the device while another one trains

    def _call_or_drop(self, tracker: str, event: str, **known: Any) -> None:
        """Call a tracker, and drop it if it fails: hours of training are worth more than their curves."""
        try:
            self._call(tracker, event, **known)
        except Exception as error:
            del self.callbacks[tracker]
            stage.log(f"train: warning: {tracker}: {_reason(error)}: training continues without it")

    def _call(self, tracker: str, event: str, **known: Any) -> None:
        getattr(self.callbacks[tracker], event)(self.arguments, self.state, self.control, model=self.model, **known)


def callback(tracker: str, run: str) -> TrainerCallback:
    """Make the Trainer's callback of a tracker."""
    from transformers.integrations import MLflowCallback, TensorBoardCallback, WandbCallback

    if tracker == "tensorboard":
        made = TensorBoardCallback()
        made.logging_dir = f"{made.logging_dir}/{run}"
        return made
    return WandbCallback() if tracker == "wandb" else MLflowCallback()


def set_defaults(folder: Path) -> dict[str, str]:
    """Make trackers write below a folder and stay off the network; return the variables that were not set before.

    WANDB_MODE or MLFLOW_TRACKING_URI in the environment allow the network.
    """
    defaults = {
        "TENSORBOARD_LOGGING_DIR": f"{folder}/tensorboard",
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(folder),
        "WANDB_PROJECT": PROJECT,
        "WANDB_SILENT": "true",
        "WANDB_ERROR_REPORTING": "false",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "MLFLOW_EXPERIMENT_NAME": PROJECT,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
    }
    given = {name: value for name, value in defaults.items() if os.environ.get(name, value) == value}
    os.environ.update(given)
    os.environ["WANDB_LOG_MODEL"] = "false"  # the model goes to DVC's cache, and the callback would make a Trainer
    return given


def close(tracker: str) -> None:
    """Close files that a callback leaves open until the process ends, because another training may follow."""
    if tracker == "wandb":
        import_module("wandb").finish()


def logs() -> Path:
    """Return FOLDER of the project, even if this runs in a copy of it."""
    here = Path.cwd()
    for parent in here.parents:
        for copies in COPIES:
            if parent.parts[-len(copies) :] == copies:
                return parent.parents[len(copies) - 1] / FOLDER
    return here / FOLDER


def _reason(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
