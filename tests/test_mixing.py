"""What each epoch takes of the parts of a mixture, against an implementation that writes every pass out."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetrail.schema import SizeMix, WeightMix
from finetrail.training.batching import Batches
from finetrail.training.mixing import Mixture, rounded, shares

PROPORTIONAL = SizeMix(kind="size", power=1.0, last_power=1.0)
ANNEALED = SizeMix(kind="size", power=1.0, last_power=0.2)
EQUAL = SizeMix(kind="size", power=0.0, last_power=0.0)


def weights(**given: float) -> WeightMix:
    return WeightMix(kind="weight", weights=given)


def mixture(sizes: dict[str, int], mix: Any, seed: int = 0, epochs: float = 3.0) -> Mixture:
    return Mixture(np.repeat(list(sizes), list(sizes.values())), mix, seed, epochs)


def taken(given: Mixture, epoch: int, parts: np.ndarray) -> Counter[str]:
    return Counter(parts[given.rows(epoch)].tolist())


SIZES = st.dictionaries(st.sampled_from("abcde"), st.integers(1, 40), min_size=2)


@given(SIZES, st.data())
def test_epochs_follow_the_passes_of_a_naive_implementation(sizes: dict[str, int], data: Any) -> None:
    given_weights = {name: data.draw(st.floats(0.05, 20)) for name in sizes}
    found = mixture(sizes, weights(**given_weights), epochs=4.0)
    endless: dict[str, list[int]] = {name: [] for name in sizes}
    for epoch in range(4):
        rows = found.rows(epoch)
        assert len(rows) == sum(sizes.values())
        for part, name in enumerate(found.names):
            own = np.flatnonzero(np.repeat(list(sizes), list(sizes.values())) == name)
            endless[name] += [row for row in rows if row in own]
            # All of a part once before one of them comes again.
            for start in range(0, len(endless[name]), len(own)):
                block = endless[name][start : start + len(own)]
                assert len(set(block)) == len(block)
            assert found.counts(epoch)[part] == sum(row in own for row in rows)
            quota = sum(sizes.values()) * given_weights[name] / sum(given_weights.values())
            assert abs(found.counts(epoch)[part] - quota) < 1


def test_in_proportion_to_size_each_feature_comes_once_an_epoch() -> None:
    found = mixture({"a": 30, "b": 7}, PROPORTIONAL)
    for epoch in range(3):
        assert sorted(found.rows(epoch)) == list(range(37))


def test_weights_and_powers_give_these_shares() -> None:
    sizes, names = np.array([100, 900]), ["a", "b"]
    assert shares(sizes, names, PROPORTIONAL, 0, 3) == pytest.approx([0.1, 0.9])
    assert shares(sizes, names, EQUAL, 0, 3) == pytest.approx([0.5, 0.5])
    assert shares(sizes, names, weights(a=3.0, b=1.0), 2, 3) == pytest.approx([0.75, 0.25])
    root = SizeMix(kind="size", power=0.5, last_power=0.5)
    assert shares(sizes, names, root, 0, 1) == pytest.approx([0.25, 0.75])


@pytest.mark.parametrize("epochs", [2, 5, 10])
def test_annealed_shares_are_those_of_the_paper(epochs: int) -> None:
    """Stickland and Murray 2019: N ** alpha, alpha = 1 - 0.8 (e - 1) / (E - 1), epochs e from 1 to E."""
    sizes, names = np.array([393, 105, 7, 2]), list("abcd")
    for e in range(1, epochs + 1):
        alpha = 1 - 0.8 * (e - 1) / (epochs - 1)
        expected = sizes**alpha / (sizes**alpha).sum()
        assert shares(sizes, names, ANNEALED, e - 1, epochs) == pytest.approx(expected)


def test_an_epoch_that_is_begun_counts_as_one_where_powers_fall() -> None:
    counts = [mixture({"a": 90, "b": 10}, ANNEALED, epochs=2.5).counts(epoch).tolist() for epoch in range(3)]
    assert counts == [mixture({"a": 90, "b": 10}, ANNEALED, epochs=3.0).counts(epoch).tolist() for epoch in range(3)]
    assert counts[0] == [90, 10] and counts[0][1] < counts[1][1] < counts[2][1]


def test_it_is_a_function_of_seed_and_epoch_alone() -> None:
    sizes, mix = {"a": 50, "b": 20}, weights(a=1.0, b=1.0)
    found = mixture(sizes, mix, seed=5)
    backwards = [found.rows(epoch).tolist() for epoch in (2, 1, 0)]
    assert backwards[::-1] == [mixture(sizes, mix, seed=5).rows(epoch).tolist() for epoch in range(3)]
    assert backwards != [mixture(sizes, mix, seed=6).rows(epoch).tolist() for epoch in (2, 1, 0)]
    assert backwards[0] != backwards[1]


def test_the_record_has_the_features_of_each_part_in_each_epoch() -> None:
    assert mixture({"b": 30, "a": 10}, weights(a=1.0, b=1.0)).record(2) == {"a": [20, 20], "b": [20, 20]}


@given(st.lists(st.floats(0, 100), min_size=1, max_size=8))
def test_rounding_keeps_the_sum_and_moves_nothing_by_one(quotas: list[float]) -> None:
    values = np.array(quotas)
    found = rounded(values)
    assert found.sum() == round(values.sum())
    assert (np.abs(found - values) < 1 + 1e-9).all()


# --- batches ------------------------------------------------------------------------------------------------------


def batches(given: Mixture | None, lengths: np.ndarray, **others: Any) -> Batches:
    return Batches(lengths, 8, others.pop("grouped", True), 3, mixture=given, **others)


@pytest.mark.parametrize("grouped", [True, False])
def test_mixture_batches_hold_their_rows_with_new_draws(grouped: bool) -> None:
    lengths = np.random.default_rng(0).integers(3, 40, 60)
    given = mixture({"a": 50, "b": 10}, weights(a=1.0, b=1.0))
    found = batches(given, lengths, grouped=grouped)
    for epoch in (0, 2):
        found.set_epoch(epoch)
        pairs = [pair for batch in found for pair in batch]
        assert sorted(row for row, _ in pairs) == sorted(given.rows(epoch))
        assert len(set(pairs)) == len(pairs) == 60  # rows come again, with another draw
        assert len(found) == 8


def test_processes_share_the_batches_of_a_mixture() -> None:
    lengths = np.random.default_rng(0).integers(3, 40, 60)
    given = mixture({"a": 50, "b": 10}, weights(a=1.0, b=1.0))
    alone = list(batches(given, lengths))
    shared = [list(batches(given, lengths, process=process, processes=2)) for process in range(2)]
    assert [batch for pair in zip(*shared, strict=True) for batch in pair] == alone


def test_without_a_mixture_batches_are_what_they_were() -> None:
    lengths = np.random.default_rng(0).integers(3, 40, 60)
    found = batches(None, lengths)
    generator = np.random.default_rng([3, 0])
    draws = generator.integers(2**62, size=60)
    assert {(row, int(draws[row])) for row in range(60)} == {pair for batch in found for pair in batch}
