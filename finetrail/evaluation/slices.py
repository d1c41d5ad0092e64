"""Turns slices of a split into their scores, and tests which are worse than the rest."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
from scipy import stats

from finetrail.evaluation import bootstrap
from finetrail.evaluation.bootstrap import Statistic
from finetrail.evaluation.significance import ROUNDING, holm
from finetrail.evaluation.slicing import Slicing
from finetrail.schema import Bootstrap, Evaluate

if TYPE_CHECKING:
    from finetrail.tasks.contract import Scoring


LEAST = 10  # examples that a slice and its rest need to be tested
ERROR_SAMPLES = 200  # resamplings of a standard error, which is then precise to 5%


class Units(NamedTuple):
    """How slices are scored: the task's statistics() of units, which units change the metric, and its direction."""

    statistic: Callable[[pa.Table], Statistic]
    counted: Callable[[pa.Table], np.ndarray]
    metric: str
    lower_is_better: bool

    def of(self, table: pa.Table) -> pa.Table:
        """Return the units that change the metric."""
        return table.filter(pa.array(self.counted(table), pa.bool_()))


def of_task(scoring: "Scoring", metric: str, lower_is_better: bool, target: object, settings: Evaluate) -> Units:
    """Return how slices of a task are scored by one of its metrics; all units count if scoring.counted is None."""
    return Units(
        lambda table: scoring.statistics(table, target, settings),
        lambda table: scoring.counted(table, target) if scoring.counted else np.ones(len(table), bool),
        metric,
        lower_is_better,
    )


def parted(slicings: Iterable[Slicing]) -> list[Slicing]:
    """Return the slicings that have more than one slice."""
    return [one for one in slicings if len(one.slices) > 1]


def scores(table: pa.Table, slicings: Iterable[Slicing], units: Units, settings: Bootstrap) -> list[dict[str, Any]]:
    """Return a row for each slice: its score with the interval, that of the rest of the split, and whether it is worse.

    p_value: one-sided, for the hypothesis that the slice is no worse than the rest, corrected for the number of slices
    (Holm 1979); None if the slice or the rest has fewer than LEAST examples. worse: p_value < 1 - confidence.
    """
    rows = [row for slicing in parted(slicings) for row in _of_slicing(table, slicing, units, settings)]
    tested = [row for row in rows if row["p_value"] is not None]
    for row, p in zip(tested, holm([row["p_value"] for row in tested]), strict=True):
        row |= {"p_value": p, "worse": p < 1 - settings.confidence}
    return rows


def _of_slicing(table: pa.Table, slicing: Slicing, units: Units, settings: Bootstrap) -> Iterator[dict[str, Any]]:
    """Yield the row of each slice that has examples, with an uncorrected p-value."""
    everything = units.of(table)
    for name in slicing.slices:
        inside = units.of(slicing.take(table, [name]))
        rest = units.of(slicing.take(table, [other for other in slicing.slices if other != name]))
        if not len(inside) or not len(rest):
            continue
        score, of_rest = (_score(part, units) for part in (inside, rest))
        drawn = _resampled(inside, units, settings.seed, settings.samples)
        tail = (1 - settings.confidence) / 2
        low, high = map(float, np.quantile(drawn, [tail, 1 - tail]))
        row = {"slicing": slicing.name, "slice": name, "examples": len(inside), "metric": units.metric, "score": score}
        row |= {"low": low, "high": high, "rest": of_rest, "p_value": None, "worse": False}
        if min(len(inside), len(rest)) >= LEAST:
            # The standard error of equally many examples of the whole split, because a slice in which everything is
            # wrong has no spread of its own.
            by_chance = _resampled(everything, units, settings.seed, drawn=len(inside)).std()
            error = float(np.hypot(max(drawn.std(), by_chance), _resampled(rest, units, settings.seed).std()))
            row["p_value"] = p_worse(score, of_rest, error, units.lower_is_better)
        yield row


def _score(table: pa.Table, units: Units) -> float:
    return float(units.statistic(table)(np.ones((1, len(table))))[units.metric][0])


def _resampled(
    table: pa.Table, units: Units, seed: int, samples: int = ERROR_SAMPLES, drawn: int | None = None
) -> np.ndarray:
    return bootstrap.resampled(len(table), units.statistic(table), samples, seed, drawn)[units.metric]


def p_worse(score: float, rest: float, error: float, lower_is_better: bool) -> float:
    """Return the one-sided p-value of a score that may be worse than that of the rest, by the normal distribution."""
    gap = (score - rest) if lower_is_better else (rest - score)
    return float(stats.norm.sf(gap / error)) if error > ROUNDING else 1.0


def summary(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Return a line for each slice that is worse."""
    return [
        f"{row['slicing']} {row['slice']}: {row['metric']} {row['score']:.4f} [{row['low']:.4f}, {row['high']:.4f}], "
        f"the rest {row['rest']:.4f}; {row['examples']:,} examples"
        for row in rows
        if row["worse"]
    ]
