"""Compares two tables of predictions for the same examples."""

from itertools import zip_longest

import pyarrow as pa


def disagreements(expected: pa.Table, found: pa.Table) -> list[str]:
    """Return the example id of each prediction that differs, in order: a word's in a list, else the example's own.

    Both tables have the columns id and predictions (a list of words' labels, or one value) and the same ids in order.
    """
    ids = expected["id"].to_pylist()
    if found["id"].to_pylist() != ids:
        raise ValueError("the two tables hold different examples; expected the same ids in the same order")
    pairs = zip(expected["predictions"].to_pylist(), found["predictions"].to_pylist(), strict=True)
    return [
        str(example)
        for example, (left, right) in zip(ids, pairs, strict=True)
        for a, b in (zip_longest(left, right) if isinstance(left, list) else [(left, right)])
        if a != b
    ]
