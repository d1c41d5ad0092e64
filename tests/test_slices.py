"""Scores of slices compared with naive ones; a planted fault is called worse, and nothing else is."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from finetrail.evaluation import slices, slicing
from finetrail.evaluation.bootstrap import Statistic
from finetrail.evaluation.slices import Units
from finetrail.schema import Bootstrap

SETTINGS = Bootstrap(samples=400, confidence=0.95, seed=0)


def mean(table: pa.Table) -> Statistic:
    values = table["right"].to_numpy().astype(float)
    return lambda weights: {name: weights @ values / weights.sum(-1) for name in ("accuracy", "loss")}


def everything(table: pa.Table) -> np.ndarray:
    return np.ones(len(table), dtype=bool)


ACCURACY = Units(mean, everything, "accuracy", False)


def scored(right: Any, names: list[str], units: Units = ACCURACY) -> dict[str, dict[str, Any]]:
    table = pa.table({"right": pa.array(right)})
    found = slices.scores(table, [slicing.by_name("kind", names, sorted(set(names)))], units, SETTINGS)
    return {row["slice"]: row for row in found}


def test_score_rest_and_interval_are_the_naive_ones() -> None:
    generator = np.random.default_rng(0)
    right, names = generator.integers(2, size=300), generator.choice(["a", "b", "c"], size=300, p=[0.5, 0.3, 0.2])
    for name, row in scored(right, names.tolist()).items():
        inside = right[names == name]
        assert row["examples"] == len(inside)
        assert (row["score"], row["rest"]) == pytest.approx((inside.mean(), right[names != name].mean()))
        expected = stats.bootstrap((inside,), np.mean, method="percentile", n_resamples=2000, rng=1).confidence_interval
        assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high), abs=0.02)


def test_the_test_of_large_slices_is_that_of_two_shares() -> None:
    right = np.array([1] * 150 + [0] * 50 + [1] * 240 + [0] * 60)
    found = scored(right, ["a"] * 200 + ["b"] * 300)
    shares, sizes = np.array([0.75, 0.8]), np.array([200, 300])
    error = np.sqrt((shares * (1 - shares) / sizes).sum())
    # One-sided; Holm's factor is 2 for the smaller of two.
    assert found["a"]["p_value"] == pytest.approx(2 * stats.norm.sf(0.05 / error), abs=0.02)
    assert found["b"]["p_value"] == pytest.approx(1 - stats.norm.sf(0.05 / error), abs=0.02)
    assert not found["a"]["worse"] and not found["b"]["worse"]


def test_a_worse_slice_is_flagged_and_a_better_one_is_not() -> None:
    right = np.array([1, 1, 1, 0] * 50 + [1, 0] * 50)
    found = scored(right, ["good"] * 200 + ["bad"] * 100)
    assert found["bad"]["worse"] and not found["good"]["worse"]
    assert slices.summary(found.values()) == [
        f"kind bad: accuracy 0.5000 [{found['bad']['low']:.4f}, {found['bad']['high']:.4f}], the rest 0.7500; "
        "100 examples"
    ]
    of_losses = scored(right, ["high"] * 200 + ["low"] * 100, Units(mean, everything, "loss", True))
    assert of_losses["high"]["worse"] and not of_losses["low"]["worse"]


def test_too_few_examples_are_scored_and_not_tested() -> None:
    found = scored([1] * 100 + [0] * 9, ["many"] * 100 + ["few"] * 9)
    assert found["few"]["score"] == 0.0
    assert [(row["p_value"], row["worse"]) for row in found.values()] == [(None, False)] * 2
    assert scored([1] * 100 + [0] * 10, ["many"] * 100 + ["few"] * 10)["few"]["worse"]


def test_a_slice_that_is_all_wrong_by_chance_is_not_flagged() -> None:
    """One in ten is right everywhere; slices have ten examples, so that a spread of 0 says nothing."""
    right = np.array([0] * 10 + [1, *[0] * 9] * 11)
    found = scored(right, ["none right"] * 10 + ["others"] * 110)
    assert found["none right"]["p_value"] == pytest.approx(2 * 0.5 * stats.chi2.sf(0.1**2 / (0.09 / 10), 1), abs=0.1)
    assert not found["none right"]["worse"]


def test_units_that_change_nothing_do_not_count() -> None:
    table = pa.table({"right": [1.0, 0.0, 0.5, 0.5], "counts": [True, True, False, False]})
    units = Units(mean, lambda part: part["counts"].to_numpy(zero_copy_only=False), "accuracy", False)
    found = slices.scores(table, [slicing.by_name("kind", ["a", "b", "a", "c"], "abc")], units, SETTINGS)
    assert [(row["slice"], row["examples"], row["score"], row["rest"]) for row in found] == [
        ("a", 1, 1.0, 0.0),
        ("b", 1, 0.0, 1.0),
    ]


def test_one_slice_is_none() -> None:
    assert scored([1, 0], ["all", "all"]) == {}


def test_few_of_many_families_have_a_false_alarm() -> None:
    """200 splits of 120 examples without any difference; more than 20 alarms have a probability below 0.1%."""
    generator, alarms = np.random.default_rng(3), 0
    for _ in range(200):
        right, names = generator.random(120) < 0.3, generator.choice(list("abcd"), size=120)
        alarms += any(row["worse"] for row in scored(right, names.tolist()).values())
    assert 1 <= alarms <= stats.binom.ppf(0.999, 200, 0.05)
