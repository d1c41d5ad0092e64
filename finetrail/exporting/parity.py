"""Compares two runtimes on the same examples: their tables of predictions, and their continuations of texts."""

from collections.abc import Mapping
from itertools import zip_longest
from math import isclose
from typing import Any, NamedTuple

import pyarrow as pa

from finetrail.evaluation.inference import Read

# Sums in another order change a probability by about 1e-6, so two classes that close may swap.
TIE = 1e-4
MOST_TIES = 1e-3  # of all predictions; more cannot be chance
# Two exclusive choices cannot both have more: if both tables are surer than this, they contradict each other.
SUREST_TIE = 0.5 + TIE
ROWS_AT_ONCE = 10_000  # of tables, as Python objects


class Compared(NamedTuple):
    """The differences of two runtimes."""

    total: int  # predictions
    differ: list[str]  # the example of each prediction that differs, in order
    near_ties: int  # predictions that differ because two choices were equally good, which are excused


def compare(expected: pa.Table, found: pa.Table) -> Compared:
    """Compare the predictions, one value or a list of values per example; both tables have the same ids in order.

    Numbers are equal within TIE. Few predictions that differ and are as good (a near tie) are excused: they have the
    same confidence, a probability, or the same score, by which they are ranked and which may be any number. Where
    several labels may be right, each label is a prediction: that its probability reaches the threshold, or not.
    """
    if not expected["id"].equals(found["id"]):
        raise ValueError("the two tables hold different examples; expected the same ids in the same order")
    excluding = "scores" not in expected.column_names and not _has_several_labels(expected)
    surest = SUREST_TIE if excluding else float("inf")
    total = 0
    differ: list[tuple[str, bool]] = []  # example, whether it is a near tie
    for start in range(0, len(expected), ROWS_AT_ONCE):
        parts = [table.slice(start, ROWS_AT_ONCE) for table in (expected, found)]
        for example, left, right in zip(parts[0]["id"].to_pylist(), *map(_pairs, parts), strict=True):
            for (a, sure), (b, other_sure) in zip_longest(left, right, fillvalue=(None, None)):
                total += 1
                if not _equal(a, b):
                    differ.append((str(example), _is_tie(sure, other_sure, surest)))
    return _compared(total, differ)


def continued(expected: Read, found: Read, prompts: Mapping[str, list[int]], tokens: int) -> Compared:
    """Continue prompts (by example) by so many tokens that `expected` finds likeliest, and compare with `found`.

    Each reads every token once, and takes earlier tokens from its cache. Two tokens tie if they have the same logit.
    """
    differ: list[tuple[str, bool]] = []
    for example, prompt in prompts.items():
        new, kept, other_kept = prompt, None, None
        for _ in range(tokens):
            (logits, kept), (others, other_kept) = expected(new, kept), found(new, other_kept)
            best, other = int(logits.argmax()), int(others.argmax())
            if other != best:
                differ.append((example, isclose(logits[best], logits[other], abs_tol=TIE)))
            new = [best]
    return _compared(len(prompts) * tokens, differ)


def _compared(total: int, differ: list[tuple[str, bool]]) -> Compared:
    """Excuse near ties if they are few; differ: example, whether it is one."""
    ties = sum(is_tie for _, is_tie in differ)
    excused = ties if ties <= MOST_TIES * total + 1 else 0
    return Compared(total, [example for example, is_tie in differ if not (is_tie and excused)], excused)


def _pairs(table: pa.Table) -> list[list[tuple[Any, float | None]]]:
    """Return (prediction, confidence or score) of each prediction, a list for each example."""
    predictions = table["predictions"].to_pylist()
    if _has_several_labels(table):
        return [
            [(label in labels, probability) for label, probability in of_labels.items()]
            for labels, of_labels in zip(predictions, table["probabilities"].to_pylist(), strict=True)
        ]
    column = next((name for name in ("confidences", "scores") if name in table.column_names), None)
    confidences = [None] * len(table) if column is None else table[column].to_pylist()
    return [
        list(zip_longest(values, sure or [])) if isinstance(values, list) else [(values, sure)]
        for values, sure in zip(predictions, confidences, strict=True)
    ]


def _has_several_labels(table: pa.Table) -> bool:
    fields = table.schema
    several = pa.types.is_list(fields.field("predictions").type)
    return several and "probabilities" in fields.names and pa.types.is_struct(fields.field("probabilities").type)


def _is_tie(sure: float | None, other_sure: float | None, surest: float) -> bool:
    if sure is None or other_sure is None:
        return False
    return isclose(sure, other_sure, abs_tol=TIE) and max(sure, other_sure) <= surest


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        return isclose(left, right, rel_tol=TIE, abs_tol=TIE)
    return bool(left == right)
