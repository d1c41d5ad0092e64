"""Turns raw records into texts (id, text), and counts what to know about each split."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import pyarrow as pa

from finetrail import layout
from finetrail.corpus.duplicates import digest, duplicates, shared
from finetrail.corpus.readers import Record
from finetrail.errors import UserError
from finetrail.tasks.masked_lm.settings import Corpus

# Optional in tasks/contract.py, and not used here.
records = None

SCHEMA = pa.schema([("id", pa.string()), ("text", pa.string())])


@dataclass
class Counts:
    """What is known of one split while its texts pass; 8 bytes a text."""

    examples: int = 0
    characters: int = 0
    empty_examples: int = 0
    digests: "array[int]" = field(default_factory=lambda: array("Q"))


def tables(settings: Corpus) -> dict[str, pa.Schema]:
    """Return the Parquet files of data/corpus."""
    return dict.fromkeys(layout.SPLITS, SCHEMA)


def rows(
    table: str, record: Record, settings: Corpus, counts: dict[str, Counts]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the row of one text and count it; none for a blank text, which is counted too.

    Raises UserError with place and id where the text is none.
    """
    text, of_split = record.values["text"], counts[table]
    if not isinstance(text, str):
        raise UserError(f"{record.where}: example {record.id!r}: text is {text!r:.60}; expected a string")
    if not text.strip():
        of_split.empty_examples += 1
        return
    of_split.examples += 1
    of_split.characters += len(text)
    of_split.digests.append(digest(text))
    yield table, {"id": record.id, "text": text}


def checks(counts: dict[str, Counts], settings: Corpus) -> dict[str, Any]:
    """Return the counts of each split, and what splits share."""
    return {
        "splits": {
            split: {
                "examples": of_split.examples,
                "characters": of_split.characters,
                "empty_examples": of_split.empty_examples,
                "duplicates": duplicates(of_split.digests),
            }
            for split, of_split in counts.items()
        },
        "leakage": {f"{a}/{b}": shared(counts[a].digests, counts[b].digests) for a, b in combinations(counts, 2)},
    }


def summary(counts: Counts, settings: Corpus) -> str:
    """Return one split in words, for the log."""
    return f"{counts.examples:,} texts, {counts.characters:,} characters"
