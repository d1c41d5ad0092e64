"""Parts the examples of a split into slices: by length, words, labels, or a column of the corpus."""

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from finetrail import layout

BINS = 4  # numbers are parted at their quartiles
MOST_VALUES = 10  # slices of names; further names share one slice
OTHER, NOTHING = "(other)", "(none)"

# Letters and digits; each ideograph and kana is a word, because no blanks separate words there.
IDEOGRAPHS = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
WORD = re.compile(rf"[{IDEOGRAPHS}]|[^\W{IDEOGRAPHS}]+")

# A value -> its text in the name of a slice.
Shown = Callable[[Any], str]


class Slicing(NamedTuple):
    """One way to part the units of a split, and its slices in order.

    take(units, names) gives what is in the slices of these names: some of the units, or all of them with only those
    labels that belong there. It takes the units of any system that has the same ones in the same order.
    """

    name: str
    slices: list[str]
    take: Callable[[pa.Table, Collection[str]], pa.Table]


def words(text: str) -> list[str]:
    """Return the words of a text in lower case."""
    return WORD.findall(text.lower())


def by_name(name: str, values: Sequence[str], order: Iterable[str]) -> Slicing:
    """Part units by their names; order: all possible names, in the order of the slices."""
    there = set(values)

    def take(units: pa.Table, names: Collection[str]) -> pa.Table:
        return units.filter(pa.array([value in names for value in values], pa.bool_()))

    return Slicing(name, [one for one in dict.fromkeys(order) if one in there], take)


def by_number(name: str, values: Sequence[Any], shown: Shown) -> Slicing:
    """Part units at the quartiles of their values, which are numbers or sort like numbers."""
    names = quartiles(values, shown)
    return by_name(name, names, [names[row] for row in sorted(range(len(names)), key=lambda row: values[row])])


def by_length(name: str, texts: Iterable[Sequence[Any]]) -> Slicing:
    """Part units by the number of their words."""
    return by_number(name, [len(of_one) for of_one in texts], lambda size: f"{size:,}")


def by_unseen(texts: Iterable[Sequence[str]], known: Collection[str]) -> Slicing:
    """Part units by the share of their words that train lacks, in percent."""
    shares = [sum(word not in known for word in of_one) / max(len(of_one), 1) for of_one in texts]
    return by_number("unseen words in %", shares, lambda share: f"{100 * share:.1f}".removesuffix(".0"))


def by_columns(units: pa.Table) -> list[Slicing]:
    """Part units by each column of corpus.slices, and by the parts of a mixture.

    Of more than MOST_VALUES values numbers and dates are parted at their quartiles; of other values the most frequent
    are slices.
    """
    columns = {name.removeprefix(layout.SLICE): name for name in units.column_names if name.startswith(layout.SLICE)}
    columns |= {layout.PART: layout.PART} if layout.PART in units.column_names else {}
    return [by_value(name, units[column].to_pylist()) for name, column in columns.items()]


def by_value(name: str, values: Sequence[str | None]) -> Slicing:
    """Part units by their texts; None has the slice (none)."""
    slice_of = _slices_of(Counter(value for value in values if value is not None))
    found = [NOTHING if value is None else slice_of[value] for value in values]
    return by_name(name, found, [*slice_of.values(), NOTHING])


def _slices_of(counts: Counter[str]) -> dict[str, str]:
    """Return the slice of each value; the keys are in the order of the slices."""
    frequent = sorted(counts, key=lambda value: (-counts[value], value))
    if len(counts) <= MOST_VALUES:
        return {value: value for value in frequent}
    if keys := sort_keys(counts):
        rising = sorted(counts.elements(), key=keys.__getitem__)
        return dict(zip(rising, quartiles([keys[value] for value in rising], lambda key: str(key[1])), strict=True))
    return {value: value if place < MOST_VALUES - 1 else OTHER for place, value in enumerate(frequent)}


def sort_keys(values: Iterable[str]) -> dict[str, tuple[float, str]]:
    """Return what sorts each value, and its text: of numbers, and of dates that begin with YYYY-MM-DD; else nothing."""
    values = list(values)
    with suppress(ValueError):
        numbers = {value: (float(value), value) for value in values}
        return numbers if all(math.isfinite(number) for number, _ in numbers.values()) else {}
    if all(re.match(r"\d{4}-\d\d-\d\d", value) for value in values):
        return {value: (0.0, value) for value in values}
    return {}


def by_frequency(labels: Iterable[str], train: Mapping[str, int]) -> dict[str, str]:
    """Return the slice of each label, the rarest in train first: its own, or of many labels a frequency range."""
    rising = sorted(set(labels), key=lambda label: (train.get(label, 0), label))
    if len(rising) <= MOST_VALUES:
        return {label: f"{label} ({train.get(label, 0):,} in train)" for label in rising}
    names = quartiles([train.get(label, 0) for label in rising], lambda count: f"{count:,}")
    return {label: f"{name} in train" for label, name in zip(rising, names, strict=True)}


def quartiles(values: Sequence[Any], shown: Shown) -> list[str]:
    """Return the name of each value's quarter: its lowest and highest value. Equal values share a quarter."""
    order = sorted(set(values))
    rank = {value: number for number, value in enumerate(order)}
    ranks = np.array([rank[value] for value in values], dtype=np.int64)
    if not len(ranks):
        return []
    borders = np.unique(np.quantile(ranks, np.arange(1, BINS) / BINS, method="inverted_cdf"))
    bins = np.searchsorted(borders, ranks)  # a border belongs to the quarter below it
    names = {}
    for number in np.unique(bins):
        inside = ranks[bins == number]
        low, high = (shown(order[end]) for end in (inside.min(), inside.max()))
        names[number] = low if low == high else f"{low}–{high}"
    return [names[number] for number in bins]
