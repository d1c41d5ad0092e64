"""Assigns each record to train, validation or test: as the source gives them, or carved out of train's file."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from finetrail.corpus.readers import Record
from finetrail.errors import UserError
from finetrail.schema import Splits


def assemble(splits: Splits, read: Callable[[str], Iterable[Record]]) -> Iterator[tuple[str, Record]]:
    """Yield (split, record), each split in the order of its files; `read` opens what a split of the recipe names.

    Train's file is read twice where another split is carved out of it: once for the number of its records.
    """
    named = {"validation": splits.validation, "test": splits.test}
    fractions = {split: value for split, value in named.items() if isinstance(value, float)}
    given = {"train": splits.train} | {split: value for split, value in named.items() if isinstance(value, str)}
    if fractions:
        parts = carve(sum(1 for _ in read(splits.train)), fractions, splits.seed)
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


def carve(n: int, fractions: dict[str, float], seed: int) -> dict[str, NDArray[np.int64]]:
    """Draw round(n * fraction) of n rows for each split and leave the rest to train; sorted indices, each row once.

    Raises UserError where a split gets no row.
    """
    # random_raw and a stable sort: NumPy promises the raw stream for good, the shuffling of Generator it does not.
    order = np.argsort(np.random.PCG64(seed).random_raw(n), kind="stable")
    parts, start = {}, 0
    for split, fraction in fractions.items():
        stop = start + round(n * fraction)
        parts[split] = np.sort(order[start:stop])
        start = stop
    parts["train"] = np.sort(order[start:])
    for split, rows in parts.items():
        if not len(rows):
            raise UserError(f"splits.{split}: no example is left for it of the {n} in train's file")
    return parts
