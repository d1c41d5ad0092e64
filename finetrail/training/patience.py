"""Early stopping: decides from a run's reports whether it stops. Both engines use it."""

from collections.abc import Iterable
from typing import NamedTuple

Report = dict[str, float]


class Epoch(NamedTuple):
    """The results of an epoch."""

    value: float  # of the metric that chooses the checkpoint
    validation_loss: float
    train_loss: float  # the mean over the epoch's updates


def is_over(reports: Iterable[tuple[int, Report]], metric: str, best_is_highest: bool, patience: int | None) -> bool:
    """Return True if the metric has not improved for `patience` epochs; None: never.

    While the best score is 0, no prediction is right yet. An epoch then counts only if neither loss improves.
    reports: (update, report) in order, under the names of TrainingLogger.
    """
    if patience is None:
        return False
    best, waited = None, 0
    losses: list[float] = [float("inf")] * 2
    for epoch in _epochs(reports, metric):
        own = [epoch.validation_loss, epoch.train_loss]
        loss_falls = any(now < lowest for now, lowest in zip(own, losses, strict=True))
        losses = list(map(min, own, losses))
        if best is None or (epoch.value > best if best_is_highest else epoch.value < best):
            best, waited = epoch.value, 0
        elif not (best_is_highest and best == 0 and loss_falls):
            waited += 1
    return waited >= patience


def _epochs(reports: Iterable[tuple[int, Report]], metric: str) -> Iterable[Epoch]:
    """Yield the results of each epoch. A report's loss is the mean over the updates since the previous report."""
    total, last_update, first_update = 0.0, 0, 0
    for update, report in reports:
        if "loss" in report:
            total, last_update = total + report["loss"] * (update - last_update), update
        if "eval_loss" in report:
            yield Epoch(report[f"eval_{metric}"], report["eval_loss"], total / max(last_update - first_update, 1))
            total, first_update = 0.0, last_update
