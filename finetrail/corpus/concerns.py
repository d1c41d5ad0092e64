"""What a reader should know about the data before trusting a score: one list for the log, the page and the card.

The checks of a corpus and the counts of its features are cached. The words for them are not: they are made anew from
the counts wherever they are shown, so that a better sentence reruns no training.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetrail.corpus.labels import shown

# The counts of the stage itself, for every task's words.
OF_FILES = {"ids_with_file_name": "ids that occur in an earlier file too, and got their file's name"}
ALIKE = "that differ in blanks, case or Unicode form alone"  # labels that corpus.labels.alike finds


@dataclass(frozen=True)
class Concern:
    """One thing to know: where it is (a table, or certain labels), what it is, and how often, unless `what` says it."""

    where: str
    what: str
    count: int | None = None

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + ("" if self.count is None else f": {self.count:,}")


def counted(tables: Mapping[str, Mapping[str, Any]], words: Mapping[str, str]) -> list[Concern]:
    """Return a concern for each count that has words and is not zero, table by table.

    tables: the counts of each table by their names. words: what is counted, by the name of the count.
    """
    return [
        Concern(table, what, counts[name])
        for table, counts in tables.items()
        for name, what in words.items()
        if counts.get(name)
    ]


def leaked(leakage: Mapping[str, int], what: str) -> list[Concern]:
    """Return a concern for each two splits that share examples; leakage: "train/test" -> examples of the second."""
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
    """Return labels with their counts in one line."""
    return ", ".join(f"{shown(label)} ({count:,})" for label, count in labels.items())
