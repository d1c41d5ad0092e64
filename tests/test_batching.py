"""Batches of similar length: every feature once, little padding, a new order in each epoch, the same from one seed."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finetrail.training.batching import LengthGroupedSampler, length_grouped


def order(lengths: Any, batch_size: int, seed: int = 0) -> np.ndarray:
    return length_grouped(np.asarray(lengths, dtype=np.int64), batch_size, np.random.default_rng(seed))


def sampler(lengths: Any, batch_size: int, seed: int = 0) -> LengthGroupedSampler:
    torch.manual_seed(seed)
    return LengthGroupedSampler(lengths, batch_size)


def padding(lengths: np.ndarray, batch_size: int) -> float:
    """Return the share of padding where consecutive batches are padded to their longest."""
    batches = [lengths[start : start + batch_size] for start in range(0, len(lengths), batch_size)]
    return 1 - lengths.sum() / sum(len(batch) * batch.max() for batch in batches)


@given(st.lists(st.integers(1, 128), max_size=300), st.integers(1, 40))
def test_every_feature_comes_once(lengths: list[int], batch_size: int) -> None:
    assert sorted(order(lengths, batch_size)) == list(range(len(lengths)))


@pytest.mark.parametrize(("n", "batch_size"), [(0, 8), (1, 8), (7, 8), (8, 8), (9, 8), (5, 1)])
def test_few_features_come_once_too(n: int, batch_size: int) -> None:
    assert sorted(sampler(range(1, n + 1), batch_size)) == list(range(n))
    assert len(sampler(range(1, n + 1), batch_size)) == n


def test_batches_hold_similar_lengths() -> None:
    lengths = np.random.default_rng(0).geometric(0.05, 5000)
    grouped = padding(lengths[order(lengths, 16)], 16)
    assert grouped < 0.1 < 0.5 < padding(lengths[np.random.default_rng(1).permutation(5000)], 16)


def test_the_incomplete_batch_comes_last() -> None:
    for seed in range(5):
        last = order([3] * 20 + [7] * 20 + [9, 9], 4, seed)[-2:]
        assert set(last) == {40, 41}  # of one group the longest are left over


def test_short_and_long_batches_alternate() -> None:
    lengths = np.random.default_rng(2).integers(1, 100, 800)
    first_of_batches = lengths[order(lengths, 16)][::16]
    rising = np.mean(np.diff(first_of_batches) > 0)
    assert 0.25 < rising < 0.75


def test_epochs_differ_and_a_seed_gives_the_same_epochs_again() -> None:
    lengths = np.random.default_rng(3).integers(1, 50, 100)
    run, again, other = sampler(lengths, 8), sampler(lengths, 8), sampler(lengths, 8, seed=1)
    epochs = [list(run) for _ in range(3)]
    assert epochs == [list(again) for _ in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != list(other)


def test_what_a_process_draws_while_it_trains_does_not_change_the_order() -> None:
    """Under torchrun each process has dropout masks of its own shape, but all must share one order."""
    lengths = np.random.default_rng(4).integers(1, 50, 100)
    one, two = sampler(lengths, 8), sampler(lengths, 8)
    assert list(one) == list(two)
    torch.rand(7)
    first = list(one)
    torch.rand(1000)
    assert list(two) == first


def test_features_of_one_batch_vary_between_epochs() -> None:
    """Not only the order of the batches: the same features together in each epoch would bias the gradients."""
    lengths = np.random.default_rng(5).integers(1, 50, 3000)
    run = sampler(lengths, 8)
    first, second = ({frozenset(epoch[i : i + 8]) for i in range(0, 3000, 8)} for epoch in (list(run), list(run)))
    assert len(first & second) < 10
