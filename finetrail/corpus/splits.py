"""Assigns each record to a split: as the source gives them, or carved out of train's file."""

import json
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetrail.corpus.duplicates import digest
from finetrail.corpus.readers import Record
from finetrail.errors import UserError
from finetrail.schema import Splits

# The fields of a recipe's splits that name no records.
SETTINGS = {"seed", "stratify", "group"}


def assemble(splits: Splits, read: Callable[[str], Iterable[Record]]) -> Iterator[tuple[str, Record]]:
    """Yield (split, record), each split in the order of its files; `read` opens the files of a split.

    A task's own splits may name more than train, validation and test, such as documents, or nothing (null). Train's
    file is read twice where another split is carved out of it: once for the number of its records, and the strata or
    groups that they belong to.
    """
    named = {field: getattr(splits, field) for field in type(splits).model_fields if field not in SETTINGS}
    fractions = {split: value for split, value in named.items() if isinstance(value, float)}
    given = {split: value for split, value in named.items() if isinstance(value, str)}
    if fractions:
        parts = _parts(splits, fractions, read(splits.train))
        part_names = list(parts)
        part_of_row = np.empty(sum(map(len, parts.values())), dtype=np.int8)
        for part, rows in enumerate(parts.values()):
            part_of_row[rows] = part
        for row, record in enumerate(read(given.pop("train"))):
            yield part_names[part_of_row[row]], record
    for split, pattern in given.items():
        empty = True
        for record in read(pattern):
            empty = False
            yield split, record
        if empty:
            raise UserError(f"splits.{split}: there is no example in {pattern!r}; expected at least one")


def _parts(splits: Splits, fractions: dict[str, float], records: Iterable[Record]) -> dict[str, NDArray[np.int64]]:
    """Return which rows of train's file are each split's."""
    if splits.group is not None:
        return carve_groups(_groups(records, splits.group), fractions, splits.seed)
    n, strata = _strata(records, splits.stratify)
    return carve(n, fractions, splits.seed, strata)


def carve(
    n: int, fractions: dict[str, float], seed: int, strata: NDArray[np.int64] | None = None
) -> dict[str, NDArray[np.int64]]:
    """Draw round(n * fraction) of n rows for each split and leave the rest to train; sorted indices, each row once.

    strata [n], numbers from 0: each split has its fraction of each stratum too, rounded by largest remainder so that
    its size is the same as without; one row of each stratum stays in train whatever the fractions, so that a stratum
    of few rows may be in no other split. Raises UserError if a split gets no row, or train not one of each stratum.
    """
    groups = np.zeros(n, dtype=np.int64) if strata is None else strata
    sizes: NDArray[np.int64] = np.bincount(groups).astype(np.int64)
    room = sizes if strata is None else sizes - 1
    totals = {split: round(n * fraction) for split, fraction in fractions.items()}
    if strata is not None and sum(totals.values()) > room.sum():
        raise UserError(
            f"splits.stratify: train would not keep one example of each of the {len(sizes)} values in the {n} examples "
            "of its file; expected a column of few values, such as the label, or smaller fractions"
        )
    # random_raw and a stable sort: NumPy promises the raw stream for good, the shuffling of Generator it does not.
    order = np.argsort(np.random.PCG64(seed).random_raw(n), kind="stable")
    order = order[np.argsort(groups[order], kind="stable")]
    place = np.arange(n) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # of a row of `order` in its stratum
    parts, start = {}, np.zeros_like(sizes)
    for split, total in totals.items():
        stop = start + _rounded(sizes * fractions[split], room - start, total)
        drawn = (start[groups[order]] <= place) & (place < stop[groups[order]])
        parts[split] = np.sort(order[drawn])
        start = stop
    parts["train"] = np.sort(order[place >= start[groups[order]]])
    for split, rows in parts.items():
        if not len(rows):
            raise UserError(f"splits.{split}: too few examples ({n}) in train's file to give this split any")
    return parts


def carve_groups(groups: NDArray[np.int64], fractions: dict[str, float], seed: int) -> dict[str, NDArray[np.int64]]:
    """Draw groups for each split, as many as fit whole into round(n * fraction) rows, and leave the rest to train.

    groups [n], numbers from 0: groups of one row each are drawn as carve() draws rows. Returns sorted indices, each row
    once. Raises UserError if a split gets no group, or train none.
    """
    sizes = np.bincount(groups)
    room = np.array([round(len(groups) * fraction) for fraction in fractions.values()])
    part_of_group = np.full(len(sizes), len(room))
    for group in np.argsort(np.random.PCG64(seed).random_raw(len(sizes)), kind="stable"):
        fitting = np.flatnonzero(sizes[group] <= room)
        if len(fitting):
            part_of_group[group] = fitting[0]
            room[fitting[0]] -= sizes[group]
    parts = {split: np.flatnonzero(part_of_group[groups] == part) for part, split in enumerate([*fractions, "train"])}
    for split, rows in parts.items():
        if not len(rows):
            raise UserError(
                f"splits.group: the groups ({len(sizes)} in {len(groups)} examples of train's file) are too few or too "
                f"large to give {split} any; expected a column with more distinct values"
            )
    return parts


def _rounded(quotas: NDArray[np.floating], most: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Round quotas to whole numbers that sum to `total`, none above its `most`: up where the largest remainders are."""
    counts = np.minimum(np.floor(quotas).astype(np.int64), most)
    while (missing := int(total - counts.sum())) > 0:
        growing = np.flatnonzero(counts < most)
        # A count that is rounded up has the smallest remainder of all, so that all others come before it again.
        rounds = missing // len(growing)
        if rounds:
            counts[growing] += min(rounds, int((most - counts)[growing].min()))
        else:
            counts[growing[np.argsort(-(quotas - counts)[growing], kind="stable")[:missing]]] += 1
    return counts


def _strata(records: Iterable[Record], column: str | None) -> tuple[int, NDArray[np.int64] | None]:
    """Return the number of records and, if a column is given, the rank of each one's value in sorted order."""
    if column is None:
        return sum(1 for _ in records), None
    known: dict[str, int] = {}
    values = (_as_stratum(value) for value in _values(records, column, "stratify"))
    found = array("q", (known.setdefault(value, len(known)) for value in values))
    # Sorted, so that ties of remainders do not depend on the order of the file.
    number = np.empty(len(known), dtype=np.int64)
    number[[known[value] for value in sorted(known)]] = np.arange(len(known))
    return len(found), number[np.array(found, dtype=np.int64)]


def _groups(records: Iterable[Record], column: str) -> NDArray[np.int64]:
    """Return the number of each record's value, in order of first appearance; 8 bytes a record, whatever its value."""
    digests = array("Q", (digest(_as_text(value)) for value in _values(records, column, "group")))
    _, first, number = np.unique(np.array(digests, dtype=np.uint64), return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[number]


def _values(records: Iterable[Record], column: str, setting: str) -> Iterator[Any]:
    """Yield each record's value of a column; UserError if the record lacks it."""
    for record in records:
        if column not in record.values:
            there = ", ".join(record.values)
            raise UserError(f"splits.{setting}: {record.where} has no column {column!r}; the columns there are {there}")
        yield record.values[column]


def _as_stratum(value: Any) -> str:
    """Return a value as text; of a list, such as the labels of a text, neither order nor repetitions count."""
    return _as_text(sorted(set(map(_as_text, value))) if isinstance(value, list) else value)


def _as_text(value: Any) -> str:
    """Return a value as JSON text, because a list cannot be a key."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
