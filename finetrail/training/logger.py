"""Logs the progress of an engine: a progress bar, one line per epoch, and curves of DVCLive and of trackers."""

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
    """A progress bar over updates, one line per epoch, and curves by update, without timings.

    Reports have the Trainer's names: loss, grad_norm, learning_rate, and validation metrics with the prefix eval_.
    Processes other than the main one log nothing.
    """

    def __init__(self, run: Run, model: Any, main: bool) -> None:
        self.run, self.model, self.main = run, model, main
        self.loss = math.nan  # until the first update, which is always reported

    def start(self, updates: int, earlier: Iterable[tuple[int, dict[str, float]]]) -> None:
        """Start logging; earlier: the (update, report) pairs from before the checkpoint that a run resumes from."""
        if self.main:
            # dvcyaml: DVCLive would append its plots to the project's dvc.yaml.
            self.live = Live(str(self.run.scratch / HISTORY), dvcyaml=None, save_dvc_exp=False, report=None)
            self.run.trackers.start(self.model, updates)
            self.bar = Bar(total=updates, desc="train", unit="updates")
        update = 0
        for update, report in earlier:
            self.report(update, report)
        if update:
            stage.log(f"train: resumes from the checkpoint after update {update} of {updates}")

    def updated(self, update: int) -> None:
        """Advance the progress bar to an update."""
        if self.main:
            self.bar.update(update - self.bar.n)

    def report(self, update: int, report: dict[str, float]) -> None:
        """Add values to the curves; UserError if a loss or a validation score is not finite."""
        # The gradient norm may be infinite: fp16 skips such an update.
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
            # Sorted, because the Trainer sorts the values that it keeps in a checkpoint.
            for name, value in sorted(curve_points(report).items()):
                self.live.log_metric(name, value)

    def evaluated(self, epoch: float, scores: dict[str, float]) -> None:
        """Log one line for an epoch, with the scores of the validation split."""
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
        """Close the progress bar and the curves."""
        if self.main:
            self.bar.close()
            self.live.end()
            self.run.trackers.end()


def curves(report: dict[str, Any]) -> dict[str, float]:
    """Return the values of a report that belong on the curves; both engines have the same."""
    return {key: value for key, value in report.items() if key in NAMES or key.startswith("eval_")}


def curve_points(report: dict[str, Any]) -> dict[str, float]:
    """Return the values of a report under the curves' names."""
    return {NAMES.get(key, f"validation/{key.removeprefix('eval_')}"): value for key, value in curves(report).items()}
