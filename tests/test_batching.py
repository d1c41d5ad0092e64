"""Batches of similar length: every feature once, little padding, a new order in each epoch, the same from one seed."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from accelerate import skip_first_batches
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from finetrail.training.batching import MOST_PADDING, REPEATED, Batches, length_grouped, split_batch, train_loader


def order(lengths: Any, batch_size: int, seed: int = 0) -> np.ndarray:
    return length_grouped(np.asarray(lengths, dtype=np.int64), batch_size, np.random.default_rng(seed))


def batches(lengths: Any, batch_size: int, seed: int = 0, **others: Any) -> Batches:
    return Batches(np.asarray(lengths, dtype=np.int64), batch_size, others.pop("grouped", True), seed, **others)


def epoch(given: Batches, number: int) -> list[list[tuple[int, int]]]:
    given.set_epoch(number)
    return list(given)


def rows(found: list[list[tuple[int, int]]]) -> list[int]:
    return [row for batch in found for row, _ in batch]


def padding(lengths: np.ndarray, batch_size: int) -> float:
    """Return the share of padding where consecutive batches are padded to their longest."""
    batches = [lengths[start : start + batch_size] for start in range(0, len(lengths), batch_size)]
    return 1 - lengths.sum() / sum(len(batch) * batch.max() for batch in batches)


@given(st.lists(st.integers(1, 128), max_size=300), st.integers(1, 40))
def test_every_feature_comes_once(lengths: list[int], batch_size: int) -> None:
    assert sorted(order(lengths, batch_size)) == list(range(len(lengths)))


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize(("n", "batch_size"), [(1, 8), (7, 8), (8, 8), (9, 8), (5, 1)])
def test_few_features_come_once_too(n: int, batch_size: int, grouped: bool) -> None:
    found = list(batches(range(1, n + 1), batch_size, grouped=grouped))
    assert sorted(rows(found)) == list(range(n))
    assert len(found) == len(batches(range(1, n + 1), batch_size)) == -(-n // batch_size)


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


@pytest.mark.parametrize("grouped", [True, False])
def test_epochs_differ_and_repeat_with_the_seed(grouped: bool) -> None:
    lengths = np.random.default_rng(3).integers(1, 50, 100)
    one, again, other = (batches(lengths, 8, seed, grouped=grouped) for seed in (0, 0, 1))
    epochs = [epoch(one, number) for number in range(3)]
    torch.rand(7)  # what others draw does not matter
    assert [epoch(again, number) for number in (2, 0, 1)] == [epochs[2], epochs[0], epochs[1]]
    assert rows(epochs[0]) != rows(epochs[1]) != rows(epochs[2])
    assert rows(epochs[0]) != rows(epoch(other, 0))
    draws = [dict(pair for batch in found for pair in batch) for found in epochs]
    assert all(draws[0][row] != draws[1][row] for row in range(100))


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 5), st.booleans())
def test_processes_share_the_batches_of_one_and_have_as_many(
    n: int, batch_size: int, processes: int, grouped: bool
) -> None:
    lengths = np.random.default_rng(n).integers(1, 50, n)
    alone = epoch(batches(lengths, batch_size, grouped=grouped), 1)
    shares = [
        epoch(batches(lengths, batch_size, grouped=grouped, process=process, processes=processes), 1)
        for process in range(processes)
    ]
    assert len({len(share) for share in shares}) == 1
    together = [batch for turn in zip(*shares, strict=True) for batch in turn]
    assert together[: len(alone)] == alone
    assert all(draw == REPEATED for batch in together[len(alone) :] for _, draw in batch)


def test_features_of_one_batch_vary_between_epochs() -> None:
    """Not only the order of the batches: the same features together in each epoch would bias the gradients."""
    run = batches(np.random.default_rng(5).integers(1, 50, 3000), 8)
    first, second = ({frozenset(rows([batch])) for batch in epoch(run, number)} for number in range(2))
    assert len(first & second) < 10


# --- micro-batches ------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 128), min_size=1, max_size=64), st.integers(1, 64), st.sampled_from([0.0, 0.05, 0.5]))
def test_pieces_hold_every_feature_once_and_little_padding(lengths: list[int], most: int, padding: float) -> None:
    found = split_batch(lengths, most, padding)
    assert sorted(position for micro_batch in found for position in micro_batch) == list(range(len(lengths)))
    for micro_batch in found:
        own = [lengths[position] for position in micro_batch]
        assert 1 <= len(micro_batch) <= most
        assert own == sorted(own, reverse=True)
        assert len(own) * own[0] - sum(own) <= padding * len(own) * own[0]


def test_features_of_one_length_are_one_piece() -> None:
    assert split_batch([7] * 32, 32, MOST_PADDING) == [list(range(32))]
    assert split_batch([5, 60, 58], 32, MOST_PADDING) == [[1, 2], [0]]
    assert split_batch([5, 60, 58], 32, 1.0) == [[1, 2, 0]]


def loader(micro_batch_size: int | None, **others: Any) -> Any:
    features = Dataset.from_dict({"input_ids": [[1] * n for n in (3, 9, 3, 9, 3)], "left": [0] * 5})

    def collate(given: pa.Table) -> dict[str, Any]:
        assert given.column_names == ["input_ids", "row_seed"]
        return {"ids": given["input_ids"].to_pylist(), "draws": given["row_seed"].to_pylist()}

    def num_items(micro_batch: dict[str, Any]) -> torch.Tensor:
        return torch.tensor(sum(map(len, micro_batch["ids"])))

    given = batches([3, 9, 3, 9, 3], 4, **others)
    most_padding = MOST_PADDING if given.grouped else 1.0
    return train_loader(features, collate, num_items, given, ("input_ids", "row_seed"), micro_batch_size, most_padding)  # type: ignore[arg-type]


def test_a_batch_comes_in_pieces_with_their_items() -> None:
    for batch in loader(4):
        for micro_batch, num_items in zip(batch["micro_batches"], batch["num_items"], strict=True):
            assert len({len(ids) for ids in micro_batch["ids"]}) == 1
            assert num_items == sum(map(len, micro_batch["ids"]))
    assert [len(batch["micro_batches"]) for batch in loader(None)] == [1, 1]
    assert max(len(micro_batch["ids"]) for batch in loader(1) for micro_batch in batch["micro_batches"]) == 1


def test_a_repeated_batch_counts_nothing() -> None:
    *_, last = loader(4, process=2, processes=3)
    assert last["num_items"].sum() == 0
    *_, last = loader(4, process=1, processes=3)
    assert last["num_items"].sum() > 0


def test_a_loader_epoch_takes_nothing_from_torchs_generator() -> None:
    torch.manual_seed(0)
    list(loader(4))
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), after)


def test_resuming_skips_batches_of_the_same_epoch() -> None:
    given = loader(4)
    given.set_epoch(3)
    whole = [batch["micro_batches"] for batch in given]
    assert [batch["micro_batches"] for batch in skip_first_batches(given, 1)] == whole[1:]
