"""Percentile intervals: against SciPy, against the truth by simulation, and within bounded memory."""

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from finetrail.evaluation.bootstrap import intervals
from finetrail.schema import Bootstrap


def settings(samples: int = 1000, confidence: float = 0.95, seed: int = 0) -> Bootstrap:
    return Bootstrap(samples=samples, confidence=confidence, seed=seed)


Scores = dict[str, np.ndarray]


def mean(values: np.ndarray) -> tuple[int, Callable[[np.ndarray], Scores]]:
    """Return what intervals() takes: the number of values, and the function from their weights to their mean."""

    def to_scores(weights: np.ndarray) -> Scores:
        assert weights.dtype == np.int64
        assert weights.shape[1] == len(values)
        assert (weights.sum(1) == len(values)).all()
        return {"mean": weights @ values / len(values)}

    return len(values), to_scores


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_intervals_of_a_mean_are_those_of_scipy(confidence: float) -> None:
    values = np.random.default_rng(1).exponential(size=400)
    low, high = intervals(*mean(values), settings(4000, confidence))["mean"]
    reference = stats.bootstrap(
        (values,), np.mean, n_resamples=4000, confidence_level=confidence, method="percentile", rng=2
    ).confidence_interval
    width = reference.high - reference.low
    assert (low, high) == pytest.approx((reference.low, reference.high), abs=0.08 * width)


def test_a_ratio_is_taken_of_sums_and_not_averaged_over_examples() -> None:
    draw = np.random.default_rng(3)
    words = draw.integers(1, 40, 300)
    counts = np.stack([draw.binomial(words, 0.7), words], axis=1)

    def ratio(right: np.ndarray, total: np.ndarray, axis: int = -1) -> np.ndarray:
        return right.sum(axis) / total.sum(axis)

    def of_sums(weights: np.ndarray) -> Scores:
        sums = weights @ counts
        return {"ratio": sums[:, 0] / sums[:, 1]}

    found = intervals(len(counts), of_sums, settings(3000))["ratio"]
    reference = stats.bootstrap(
        (counts[:, 0], counts[:, 1]), ratio, paired=True, n_resamples=3000, method="percentile", rng=4
    ).confidence_interval
    assert found == pytest.approx(tuple(reference), abs=0.1 * (reference.high - reference.low))


@pytest.mark.parametrize("samples", [100, 130, 1000])
def test_intervals_contain_the_point_estimate(samples: int) -> None:
    values = np.random.default_rng(5).normal(size=200)
    low, high = intervals(*mean(values), settings(samples))["mean"]
    assert low < values.mean() < high


def test_more_confidence_is_a_wider_interval() -> None:
    statistics = mean(np.random.default_rng(6).normal(size=100))
    ends = [intervals(*statistics, settings(confidence=confidence))["mean"] for confidence in (0.5, 0.9, 0.99)]
    widths = [high - low for low, high in ends]
    assert widths == sorted(widths)


def test_the_seed_alone_decides() -> None:
    statistics = mean(np.random.default_rng(7).normal(size=50))
    first, again, other = (intervals(*statistics, settings(seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_every_score_gets_its_interval_from_the_same_samples() -> None:
    n, to_mean = mean(np.random.default_rng(8).normal(size=50))

    def both(weights: np.ndarray) -> Scores:
        return to_mean(weights) | {"negative": -to_mean(weights)["mean"]}

    found = intervals(n, both, settings())
    assert found["negative"] == pytest.approx((-found["mean"][1], -found["mean"][0]))


def test_a_single_example_is_its_own_interval() -> None:
    assert intervals(*mean(np.array([0.75])), settings())["mean"] == (0.75, 0.75)


def test_a_score_that_is_no_sum_over_examples_has_an_interval() -> None:
    """Such as perplexity: the exponential of a mean, which percentiles go through unchanged."""
    n, to_mean = mean(np.random.default_rng(10).normal(size=80))

    def perplexity(weights: np.ndarray) -> Scores:
        return {"perplexity": np.exp(to_mean(weights)["mean"])}

    low, high = intervals(n, to_mean, settings(999))["mean"]
    found = intervals(n, perplexity, settings(999))["perplexity"]
    assert found == pytest.approx((np.exp(low), np.exp(high)), rel=1e-3)


def test_memory_does_not_grow_with_the_number_of_samples() -> None:
    statistics = mean(np.arange(2000))

    def peak(samples: int) -> int:
        tracemalloc.start()
        intervals(*statistics, settings(samples))
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    assert peak(1000) < 1.3 * peak(100)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    draw = np.random.default_rng(9)
    covered = 0
    for seed in range(300):
        low, high = intervals(*mean(draw.normal(size=60)), settings(200, 0.9, seed))["mean"]
        covered += low <= 0 <= high
    # 0.9 less what percentile intervals of 60 values fall short of (about 0.01), and three standard errors of 300.
    assert 0.83 <= covered / 300 <= 0.95
