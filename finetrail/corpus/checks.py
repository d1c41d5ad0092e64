"""Counts a corpus while its rows pass, and turns the counts into what every task's checks report."""

from array import array
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from finetrail.corpus.duplicates import digest, duplicates, shared
from finetrail.errors import UserError


def no_digests() -> "array[int]":
    """Return an empty array for digests, 8 bytes each."""
    return array("Q")


@dataclass
class TableCounts:
    """Counts of one table."""

    examples: int = 0
    characters: int = 0
    empty_examples: int = 0
    digests: "array[int]" = field(default_factory=no_digests)  # of each example's content, in order

    def add(self, content: Any, characters: int = 0) -> None:
        """Count one example; content: the string, or list of strings, in which duplicates are equal."""
        self.examples += 1
        self.characters += characters
        self.digests.append(digest(content))

    def of_texts(self) -> dict[str, int]:
        """Return the counts that tasks of texts report of each split."""
        return {
            "examples": self.examples,
            "characters": self.characters,
            "empty_examples": self.empty_examples,
            "duplicates": duplicates(self.digests),
        }


@dataclass
class LabelCounts(TableCounts):
    """Counts of one split whose examples have labels."""

    labels: Counter[str] = field(default_factory=Counter)
    first_id: dict[str, str] = field(default_factory=dict)  # label -> id of the first example that has it

    def add_labels(self, labels: Collection[str], example: str) -> None:
        """Count the labels of the example with this id."""
        self.labels.update(labels)
        for label in labels:
            self.first_id.setdefault(label, example)


def overlap(digests: Mapping[str, "array[int]"]) -> dict[str, int]:
    """Return for each two splits how many examples of the second are also in the first: "train/test" -> number."""
    return {f"{a}/{b}": shared(digests[a], digests[b]) for a, b in combinations(digests, 2)}


def leakage(counts: Mapping[str, TableCounts]) -> dict[str, int]:
    """Return the overlap of the splits' examples."""
    return overlap({split: of_split.digests for split, of_split in counts.items()})


def unseen_labels(counts: Mapping[str, LabelCounts], key: str, rule: str) -> dict[str, dict[str, int]]:
    """Return the labels of validation and test that train lacks, with their frequency, sorted.

    Raises UserError if there are any and the recipe's `key` has the rule refuse.
    """
    known = counts["train"].labels
    found = {
        split: {label: count for label, count in sorted(counts[split].labels.items()) if label not in known}
        for split in ("validation", "test")
    }
    if rule == "refuse":
        for split, labels in found.items():
            for label in labels:
                raise UserError(
                    f"{split}: example {counts[split].first_id[label]!r} has the label {label!r}, which train lacks; "
                    f"expected labels that train has, or {key}: keep"
                )
    return found


def string(value: Any, column: str, where: str) -> str:
    """Return the value if it is a string; UserError otherwise."""
    if not isinstance(value, str):
        raise UserError(f"{where}: {column} is {value!r:.60}; expected a string")
    return value


def string_or_null(value: Any, column: str, where: str) -> str:
    """Return the value if it is a string, and "" for the null by which Parquet and JSON hold a missing one."""
    return "" if value is None else string(value, column, where)
