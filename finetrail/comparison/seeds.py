"""Compares two recipes over seeds by a paired t-interval of their records; it needs no predictions."""

from dataclasses import dataclass
from statistics import mean
from warnings import catch_warnings

from scipy import stats

from finetrail.comparison.runs import Record
from finetrail.errors import UserError
from finetrail.reporting.summary import FINAL_SPLIT

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Comparison:
    """The headline of two recipes by seed, and their mean difference (second minus first) with its t-interval."""

    metric: str
    lower_is_better: bool
    seeds: list[int]
    first: list[float]
    second: list[float]
    difference: float
    low: float
    high: float

    @property
    def is_noise(self) -> bool:
        """Return True if the interval contains 0: then seeds alone explain the difference."""
        return self.low <= 0 <= self.high


def compare(first: list[Record], second: list[Record]) -> Comparison:
    """Pair the runs of two recipes by their seed; UserError if they share fewer than two seeds.

    The paired t-interval over seeds (Dror et al. 2018) covers initial weights and the order of batches. It does not
    cover the choice of the test examples, for which each run has a bootstrap interval.
    """
    metric = same_headline(first[0], second[0])
    corpora = [{record["corpus"]["sha256"] for record in records} for records in (first, second)]
    if corpora[0] != corpora[1] or len(corpora[0]) > 1:
        raise UserError("the runs are of different corpora, by their sha256; expected the same for both recipes")
    by_seed = [
        {record["seed"]: float(record[FINAL_SPLIT][metric]) for record in records} for records in (first, second)
    ]
    seeds = sorted(by_seed[0].keys() & by_seed[1].keys())
    if len(seeds) < 2:
        raise UserError(
            f"{len(seeds)} seeds in both recipes: expected two or more, such as dvc exp run -S seed=1, then -S seed=2"
        )
    firsts, seconds = ([of_seed[seed] for seed in seeds] for of_seed in by_seed)
    with catch_warnings(action="ignore", category=RuntimeWarning):  # of scipy, where all differences are the same
        low, high = map(float, stats.ttest_rel(seconds, firsts).confidence_interval(CONFIDENCE))
    lower_is_better = metric in first[0]["lower_is_better"]
    return Comparison(metric, lower_is_better, seeds, firsts, seconds, mean(seconds) - mean(firsts), low, high)


def same_headline(first: Record, second: Record) -> str:
    """Return the headline that two runs share; UserError if they differ."""
    if first["headline"] != second["headline"]:
        raise UserError(
            f"headlines are {first['headline']} and {second['headline']}; expected recipes with the same headline"
        )
    return str(first["headline"])


def table(names: tuple[str, str], found: Comparison) -> str:
    """Return the scores by seed as a Markdown table."""
    rows = [f"| seed | {names[0]} | {names[1]} | difference |", "| --- | --- | --- | --- |"]
    for seed, a, b in zip(found.seeds, found.first, found.second, strict=True):
        rows.append(f"| {seed} | {a:.4f} | {b:.4f} | {b - a:+.4f} |")
    rows.append(f"| mean | {mean(found.first):.4f} | {mean(found.second):.4f} | {found.difference:+.4f} |")
    return "\n".join(rows)


def verdict(names: tuple[str, str], found: Comparison) -> str:
    """Return in one sentence whether the difference is noise."""
    interval = (
        f"{found.difference:+.4f} {found.metric} [{found.low:+.4f}, {found.high:+.4f}] over {len(found.seeds)} seeds"
    )
    if found.is_noise:
        return f"{names[1]} against {names[0]}: {interval}: noise: the interval holds 0."
    better = (found.difference > 0) != found.lower_is_better
    return f"{names[1]} against {names[0]}: {interval}: {'better' if better else 'worse'}, and not by chance alone."
