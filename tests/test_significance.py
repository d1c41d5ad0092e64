"""Differences of two systems on the same examples: intervals, p-values, correction, and what a test can detect."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from finetrail.evaluation.bootstrap import Statistic
from finetrail.evaluation.significance import Difference, Settings, differences, holm

N = 60


def means(first: np.ndarray, second: np.ndarray) -> Statistic:
    """Return the statistic of a mean, over the values of both systems' examples."""
    values = np.concatenate([first, second])
    return lambda weights: {"mean": weights @ values / weights.sum(1)}


def compared(*pairs: tuple[np.ndarray, np.ndarray], samples: int = 4000, confidence: float = 0.95) -> Difference:
    settings = Settings(samples=samples, confidence=confidence, seed=0)
    return differences([means(*pair) for pair in pairs], len(pairs[0][0]), settings)["mean"]


def values(seed: int, gain: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    first = generator.normal(size=N)
    return first, first + gain + generator.normal(scale=0.5, size=N)


def gap(first: np.ndarray, second: np.ndarray, axis: int = -1) -> Any:
    return second.mean(axis) - first.mean(axis)


def test_the_interval_is_scipy_s_paired_percentile_bootstrap() -> None:
    first, second = values(1, gain=0.1)
    found = compared((first, second))
    expected = stats.bootstrap(
        (first, second), gap, paired=True, method="percentile", n_resamples=4000, rng=np.random.default_rng(5)
    )
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval), abs=0.015)
    assert found.difference == pytest.approx(second.mean() - first.mean())
    assert (found.first, found.second) == pytest.approx((first.mean(), second.mean()))


def test_the_p_value_is_scipy_s_of_swapped_pairs() -> None:
    first, second = values(2, gain=0.12)
    expected = stats.permutation_test(
        (first, second), gap, permutation_type="samples", n_resamples=20_000, rng=np.random.default_rng(5)
    )
    assert 0.01 < expected.pvalue < 0.5
    assert compared((first, second), samples=20_000).p == pytest.approx(expected.pvalue, abs=0.015)


def test_of_swaps_that_are_as_large_half_count() -> None:
    """With 4 examples and one score 2 of 16 ways are as extreme as all better: the mid-p value is a sixteenth."""
    first, second = np.zeros(4), np.ones(4)
    assert compared((first, second), samples=40_000).p == pytest.approx(1 / 16, abs=0.01)


def test_of_scores_with_few_values_one_in_twenty_is_significant() -> None:
    """Accuracies of 100 examples: without the half of ties it is 1 in 30."""
    generator = np.random.default_rng(11)
    pairs = [generator.random((2, 100)) < 0.8 for _ in range(600)]
    found = [compared((pair[0] * 1.0, pair[1] * 1.0), samples=400).p <= 0.05 for pair in pairs]
    assert np.mean(found) == pytest.approx(0.05, abs=0.02)


def test_equal_systems_do_not_differ() -> None:
    first, _ = values(3)
    found = compared((first, first))
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)
    assert found.detectable == pytest.approx(0, abs=1e-12)
    assert compared((first, first), (first, first)).p == 1


def test_no_p_value_is_zero() -> None:
    first, _ = values(4)
    assert compared((first, first + 1), samples=999).p >= 1 / 1000


@pytest.mark.parametrize("seeds", [1, 3])
def test_under_no_difference_one_in_twenty_is_significant(seeds: int) -> None:
    """Seeds are caught with a little caution: what varies with seed and example counts twice."""
    generator = np.random.default_rng(7)
    found = []
    for _ in range(400):
        of_examples = generator.normal(size=(2, N))  # each system's own strengths, for all of its seeds
        pairs = [of_examples + generator.normal(scale=0.5, size=(2, N)) for _ in range(seeds)]
        found.append(compared(*((pair[0], pair[1]) for pair in pairs), samples=200).p <= 0.05)
    assert 0.01 <= np.mean(found) <= 0.05 + 3 * (0.05 * 0.95 / 400) ** 0.5


def test_scattering_seeds_are_noise_with_any_number_of_examples() -> None:
    """The models differ by 0.2, one way and the other: examples alone would call each pair significant."""
    generator = np.random.default_rng(1)
    first = generator.normal(scale=0.1, size=1000)
    pairs = [(first, first + shift) for shift in (0.2, -0.15, 0.1)]
    assert all(compared(pair, samples=200).p < 0.01 for pair in pairs)
    found = compared(*pairs, samples=200)
    assert found.low < 0 < found.high and found.p > 0.5


def test_without_scatter_over_seeds_the_examples_decide() -> None:
    first, second = values(5, gain=0.1)
    one, three = compared((first, second)), compared(*[(first, second)] * 3)
    assert three.high - three.low == pytest.approx(one.high - one.low, rel=0.05)


def test_what_is_detectable_is_detected_in_80_of_100_cases() -> None:
    generator = np.random.default_rng(3)

    def drawn(gain: float) -> tuple[np.ndarray, np.ndarray]:
        first = generator.normal(size=N)
        return first, first + gain + generator.normal(size=N)

    detectable = np.mean([compared(drawn(0.0), samples=400).detectable for _ in range(20)])
    hits = [compared(drawn(float(detectable)), samples=400).p <= 0.05 for _ in range(300)]
    assert np.mean(hits) == pytest.approx(0.8, abs=0.08)


def test_holm_correction_scales_p_values_and_keeps_their_order() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.sampled_from([0.01, 0.05, 0.2]))
def test_holm_rejects_what_its_steps_reject(p_values: list[float], level: float) -> None:
    """Step down: the smallest against level / m, the next against level / (m - 1), until one fails."""
    rejected = set()
    for step, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        if p_values[index] * (len(p_values) - step) > level:
            break
        rejected.add(index)
    assert {index for index, value in enumerate(holm(p_values)) if value <= level} == rejected


def test_the_same_seed_gives_the_same_numbers() -> None:
    pair = values(6, gain=0.1)
    assert compared(pair) == compared(pair)
