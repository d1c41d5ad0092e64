"""Concerns about the data that affect how far scores can be trusted: one list for the log, the page and the card.

The checks of a corpus and the counts of its features are cached. Their texts are not: they are made from the counts
wherever they are shown, so that a change of wording reruns no training.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from finetrail.corpus.labels import shown

# Counts of the download stage itself, for all tasks.
OF_FILES = {"ids_with_file_name": "ids that occur in an earlier file too, and got their file's name"}
NAMED_LABELS = 20
ALIKE = "that differ in blanks, case or Unicode form alone"  # labels that corpus.labels.alike finds


@dataclass(frozen=True)
class Concern:
    """One concern: its place (a table, or certain labels), a description, and its count, unless `what` includes it."""

    where: str
    what: str
    count: int | None = None

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + ("" if self.count is None else f": {self.count:,}")


def counted(tables: Mapping[str, Mapping[str, Any]], words: Mapping[str, str]) -> list[Concern]:
    """Return a concern for each nonzero count that has a text, table by table.

    tables: table -> name of a count -> count. words: name of a count -> text.
    """
    return [
        Concern(table, what, counts[name])
        for table, counts in tables.items()
        for name, what in words.items()
        if counts.get(name)
    ]


def leaked(leakage: Mapping[str, int], what: str) -> list[Concern]:
    """Return a concern for each pair of splits that share examples; leakage: "train/test" -> examples of the second."""
    return [
        Concern(second, f"{what} {first}", count)
        for (first, second), count in ((pair.split("/"), count) for pair, count in leakage.items())
        if count
    ]


def unseen(labels: Mapping[str, Mapping[str, int]]) -> list[Concern]:
    """Return a concern for each split with labels that train lacks; labels: split -> label -> how often."""
    return [
        Concern(split, f"labels that train lacks and no model will predict: {listed(missing)}")
        for split, missing in labels.items()
        if missing
    ]


def listed(labels: Mapping[str, int]) -> str:
    """Return labels with their counts in one line; only the first if there are many."""
    named = [f"{shown(label)} ({count:,})" for label, count in islice(labels.items(), NAMED_LABELS)]
    more = [f"and {len(labels) - NAMED_LABELS:,} others"] if len(labels) > NAMED_LABELS else []
    return ", ".join(named + more)
