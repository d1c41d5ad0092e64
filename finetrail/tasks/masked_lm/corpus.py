"""Turns raw records into texts (id, text), and counts them for the checks."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from finetrail import layout
from finetrail.corpus.checks import TableCounts as Counts
from finetrail.corpus.checks import leakage, string
from finetrail.corpus.readers import Record
from finetrail.tasks.masked_lm.settings import Corpus

# Optional in tasks/contract.py, and not used here.
records = None

SCHEMA = pa.schema([("id", pa.string()), ("text", pa.string())])


def tables(settings: Corpus) -> dict[str, pa.Schema]:
    """Return the Parquet files of data/corpus."""
    return dict.fromkeys(layout.SPLITS, SCHEMA)


def rows(
    table: str, record: Record, settings: Corpus, counts: dict[str, Counts]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the row of one text and count it; nothing for a blank text, which is also counted.

    Raises UserError with place and id if the text is not a string.
    """
    text = string(record.values["text"], "text", record.place)
    if not text.strip():
        counts[table].empty_examples += 1
        return
    counts[table].add(text, len(text))
    yield table, {"id": record.id, "text": text}


def checks(counts: dict[str, Counts], settings: Corpus) -> dict[str, Any]:
    """Return the counts of each split, and the overlap of the splits."""
    return {
        "splits": {split: of_split.of_texts() for split, of_split in counts.items()},
        "leakage": leakage(counts),
    }


def summary(counts: Counts, settings: Corpus) -> str:
    """Return a summary of one split, for the log."""
    return f"{counts.examples:,} texts, {counts.characters:,} characters"
