"""Compares two tables of predictions for the same examples."""

from itertools import zip_longest
from math import isclose
from typing import Any, NamedTuple

import pyarrow as pa

# Sums in another order move a probability by some 1e-6: two classes that are as close as that may change places.
TIE = 1e-4
MOST_TIES = 1e-3  # of all predictions; more of them are no accident


class Compared(NamedTuple):
    """What differs between two tables."""

    total: int  # predictions
    differ: list[str]  # the example of each prediction that differs, in order
    near_ties: int  # predictions that differ although both have the same confidence, and are excused


def compare(expected: pa.Table, found: pa.Table) -> Compared:
    """Compare the predictions, one value or a list of them an example; both tables have the same ids in order.

    Numbers are equal within TIE. Few predictions that differ with equal confidence (a near tie) are excused.
    """
    ids = expected["id"].to_pylist()
    if found["id"].to_pylist() != ids:
        raise ValueError("the two tables hold different examples; expected the same ids in the same order")
    total = 0
    differ: list[str] = []
    ties: list[str] = []
    for example, left, right in zip(ids, _pairs(expected), _pairs(found), strict=True):
        for (a, sure), (b, other_sure) in zip_longest(left, right, fillvalue=(None, None)):
            total += 1
            if not _equal(a, b):
                is_tie = sure is not None and other_sure is not None and isclose(sure, other_sure, abs_tol=TIE)
                (ties if is_tie else differ).append(str(example))
    if len(ties) > MOST_TIES * total + 1:
        return Compared(total, differ + ties, 0)
    return Compared(total, differ, len(ties))


def _pairs(table: pa.Table) -> list[list[tuple[Any, float | None]]]:
    """Return (prediction, confidence) of each prediction, a list for each example."""
    predictions = table["predictions"].to_pylist()
    confidences = table["confidences"].to_pylist() if "confidences" in table.column_names else [None] * len(table)
    return [
        list(zip_longest(values, sure or [])) if isinstance(values, list) else [(values, sure)]
        for values, sure in zip(predictions, confidences, strict=True)
    ]


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        return isclose(left, right, rel_tol=TIE, abs_tol=TIE)
    return bool(left == right)
