"""Turns two systems' statistics over the same examples into the differences of their scores: intervals and p-values.

One run of each: the interval is a paired bootstrap over the examples (Efron 1979; Koehn 2004), and the p-value is by
approximate randomization (Noreen 1989; Yeh 2000). Several seeds of each: both come from a t-distribution whose variance
is the sum of that over the seeds and that over the examples.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import stats

from finetrail.evaluation.bootstrap import Statistic, sizes

POWER = 0.8
ROUNDING = 1e-12  # sums of the same numbers in another order differ by less

# Scores by name: of the first system and of the second, each float64 [samples].
Scores = dict[str, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Settings:
    """Number of resamplings, confidence of the intervals, and seed of the draws."""

    samples: int
    confidence: float
    seed: int


@dataclass(frozen=True)
class Difference:
    """One score of two systems, means over their seeds, and the second minus the first.

    p is two-sided. detectable is the true difference that a test of such a split at the intervals' confidence finds in
    80 of 100 cases.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float
    detectable: float


def differences(pairs: list[Statistic], n: int, settings: Settings) -> dict[str, Difference]:
    """Compare two systems by each of their scores.

    pairs: for each seed, the statistic of the first system's n examples followed by the second's, in the same order. It
    takes weights, float64 [samples, 2 n]. All seeds are weighed alike, because they share the test split.
    """
    whole = [_apply(pair, [_halves(np.ones((1, n)), np.zeros((1, n)))]) for pair in pairs]
    drawn = [_apply(pair, _resampled(n, settings)) for pair in pairs]
    shuffled = _apply(pairs[0], _shuffled(n, settings)) if len(pairs) == 1 else {}
    found = {}
    for name in whole[0]:
        first, second = (np.array([scores[name][of][0] for scores in whole]) for of in (0, 1))
        over_examples = np.mean([scores[name][1] - scores[name][0] for scores in drawn], axis=0)
        if len(pairs) == 1:
            low, high, p, detectable = _of_one_run(second[0] - first[0], over_examples, shuffled[name], settings)
        else:
            low, high, p, detectable = _of_seeds(second - first, over_examples, settings)
        gap = float((second - first).mean())
        found[name] = Difference(*map(_tidy, (first.mean(), second.mean(), gap, low, high, p, detectable)))
    return found


def holm(p_values: list[float]) -> list[float]:
    """Return the p-values of several comparisons, corrected for their number (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    corrected = np.minimum(np.maximum.accumulate(np.array(p_values)[order] * factors), 1.0)
    return [float(value) for value in corrected[np.argsort(order, kind="stable")]]


def _of_one_run(
    gap: float, over_examples: np.ndarray, shuffled: tuple[np.ndarray, np.ndarray], settings: Settings
) -> tuple[float, float, float, float]:
    """Return low, high, p and the detectable difference."""
    tail = (1 - settings.confidence) / 2
    low, high = np.percentile(over_examples, [100 * tail, 100 * (1 - tail)])
    size = np.abs(shuffled[1] - shuffled[0])
    as_large = np.isclose(size, abs(gap), rtol=1e-9, atol=ROUNDING)
    # Half of the equally large differences count (the mid-p value). Scores such as accuracy have few values: if all
    # counted, fewer than 5 in 100 equal systems would differ at 0.05 (Lancaster 1961; Fagerland et al. 2013).
    larger = (size > abs(gap)) & ~as_large
    p = 1.0 if abs(gap) < ROUNDING else (1 + larger.sum() + as_large.sum() / 2) / (1 + len(size))
    reach = stats.norm.ppf(1 - tail) + stats.norm.ppf(POWER)
    return float(low), float(high), float(p), float(reach * over_examples.std())


def _of_seeds(gaps: np.ndarray, over_examples: np.ndarray, settings: Settings) -> tuple[float, float, float, float]:
    """Return low, high, p and the detectable difference; gaps: float64 [seeds].

    The degrees of freedom are those of Welch and Satterthwaite: seeds - 1 where only seeds vary, and many where only
    examples do. What varies with both (a seed that is better at some examples) is counted in both, which is cautious.
    """
    of_seeds, of_examples = gaps.var(ddof=1) / len(gaps), over_examples.var()
    error = np.sqrt(of_seeds + of_examples)
    gap = float(gaps.mean())
    if error < ROUNDING:
        return gap, gap, float(abs(gap) < ROUNDING), 0.0
    degrees = (len(gaps) - 1) * error**4 / of_seeds**2 if of_seeds else np.inf
    tail = (1 - settings.confidence) / 2
    reach = float(stats.t.ppf(1 - tail, degrees)) * error
    p = 2 * float(stats.t.sf(abs(gap) / error, degrees))
    return gap - reach, gap + reach, p, reach + float(stats.t.ppf(POWER, degrees)) * error


def _tidy(value: float) -> float:
    """Return a number as 0.0 if only rounding makes it differ from 0."""
    return 0.0 if abs(value) < ROUNDING else float(value)


def _apply(pair: Statistic, weights: Iterable[tuple[np.ndarray, np.ndarray]]) -> Scores:
    """Score two systems, each given by weights of the examples of both: float64 [samples, 2 n]."""
    parts = [(pair(of_first), pair(of_second)) for of_first, of_second in weights]
    return {
        name: (
            np.concatenate([first[name] for first, _ in parts]),
            np.concatenate([second[name] for _, second in parts]),
        )
        for name in parts[0][0]
    }


def _resampled(n: int, settings: Settings) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Draw n examples with replacement, the same for both systems."""
    generator = np.random.default_rng([settings.seed, 0])
    for size in sizes(settings.samples, 2 * n):
        drawn = np.stack([np.bincount(row, minlength=n) for row in generator.integers(n, size=(size, n))])
        yield _halves(drawn.astype(np.float64), np.zeros((size, n)))


def _shuffled(n: int, settings: Settings) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Assign each example's two predictions to the two systems at random."""
    generator = np.random.default_rng([settings.seed, 1])
    for size in sizes(settings.samples, 2 * n):
        kept = generator.integers(2, size=(size, n)).astype(np.float64)
        yield _halves(kept, 1 - kept)


def _halves(own: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights [samples, 2 n] of both systems: `own` of its own examples, and `other` of the other's."""
    return np.concatenate([own, other], axis=1), np.concatenate([other, own], axis=1)
