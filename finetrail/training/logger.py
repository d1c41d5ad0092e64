"""Turns what an engine reports while it trains into lines for people, DVCLive's curves and those of trackers."""

import math
from collections.abc import Iterable
from typing import Any

from dvclive import Live

from finetrail import stage
from finetrail.errors import UserError
from finetrail.progress import Bar
from finetrail.training.run import HISTORY, Run

NAMES = {"loss": "train/loss", "learning_rate": "train/lr", "grad_norm": "train/grad_norm"}


class TrainingLogger:
    """A bar over updates, one line an epoch, and curves by update, without timings.

    Reports have the Trainer's names: loss, grad_norm, learning_rate, and those of validation behind eval_. Where this
    process is not the main one, nothing is told or written.
    """

    def __init__(self, run: Run, model: Any, main: bool) -> None:
        self.run, self.model, self.main = run, model, main
        self.loss = math.nan  # until the first update, which is always reported

    def start(self, updates: int, earlier: Iterable[tuple[int, dict[str, float]]]) -> None:
        """Begin, with what was reported before the checkpoint that a run goes on from: (update, report) pairs."""
        if self.main:
            # dvcyaml: DVCLive would append its plots to the project's dvc.yaml.
            self.live = Live(str(self.run.scratch / HISTORY), dvcyaml=None, save_dvc_exp=False, report=None)
            self.run.trackers.start(self.model, updates)
            self.bar = Bar(total=updates, desc="train", unit="updates")
        update = 0
        for update, report in earlier:
            self.report(update, report)
        if update:
            stage.log(f"train: goes on from the checkpoint after update {update} of {updates}")

    def updated(self, update: int) -> None:
        """Move the bar."""
        if self.main:
            self.bar.update(update - self.bar.n)

    def report(self, update: int, report: dict[str, float]) -> None:
        """Put values onto the curves; UserError at a loss, or a score of validation, that is not finite."""
        # The norm of an update that fp16 skips is not finite, and harmless.
        for name in (name for name in report if name == "loss" or name.startswith("eval_")):
            if not math.isfinite(report[name]):
                raise UserError(
                    f"train: {name} is {report[name]} at update {update}; expected a finite number: "
                    "try a lower train.lr, a lower train.max_grad_norm, more train.warmup, or precision fp32"
                )
        self.loss = report.get("loss", self.loss)
        if self.main:
            self.run.trackers.report(update, curves(report))
            self.live.step = update
            # In one order: the Trainer sorts what it keeps in a checkpoint.
            for name, value in sorted(curve_points(report).items()):
                self.live.log_metric(name, value)

    def evaluated(self, epoch: float, scores: dict[str, float]) -> None:
        """Tell of an epoch, with the scores of the validation split, in one line."""
        if not self.main:
            return
        best_metric = self.run.settings.best_metric
        shown = {"train loss": self.loss, "validation loss": scores["eval_loss"]}
        if best_metric != "loss":
            shown[best_metric] = scores[f"eval_{best_metric}"]
        self.bar.clear()
        stage.log(
            f"train: epoch {epoch:.4g} of {self.run.settings.epochs:g}: "
            + ", ".join(f"{name} {value:.4f}" for name, value in shown.items())
        )

    def end(self) -> None:
        """Close bar and curves."""
        if self.main:
            self.bar.close()
            self.live.end()
            self.run.trackers.end()


def curves(report: dict[str, Any]) -> dict[str, float]:
    """Return what belongs on the curves of a report, which are the same with both engines."""
    return {key: value for key, value in report.items() if key in NAMES or key.startswith("eval_")}


def curve_points(report: dict[str, Any]) -> dict[str, float]:
    """Return the curves of a report under our names."""
    return {NAMES.get(key, f"validation/{key.removeprefix('eval_')}"): value for key, value in curves(report).items()}
