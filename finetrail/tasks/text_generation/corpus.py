"""Turns raw records into canonical texts (id, prompt, text), and counts what to know about each split."""

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
from finetrail.tasks.text_generation.settings import Corpus

# prompt is null in a document; text is the document, or the prompt's completion.
SCHEMA = pa.schema([("id", pa.string()), ("prompt", pa.string()), ("text", pa.string())])


@dataclass
class Counts:
    """What is known of one split while its texts pass; 8 bytes an example."""

    examples: int = 0
    characters: int = 0
    empty_examples: int = 0
    digests: "array[int]" = field(default_factory=lambda: array("Q"))  # of each example's prompt and text


def tables(settings: Corpus) -> dict[str, pa.Schema]:
    """Return the Parquet files of data/corpus with their columns."""
    return dict.fromkeys(layout.SPLITS, SCHEMA)


def rows(
    table: str, record: Record, settings: Corpus, counts: dict[str, Counts]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the row of an example and count it; none for an empty one, which is counted too.

    Raises UserError with place and id where a column holds no string.
    """
    where = f"{record.where}: example {record.id!r}"
    texts = {
        column: _string(record.values[column], column, where)
        for column in ("prompt", "completion", "text")
        if column in settings.reader.columns
    }
    if not all(text.strip() for text in texts.values()):
        counts[table].empty_examples += 1
        return
    row = {"id": record.id, "prompt": texts.get("prompt"), "text": texts.get("completion", texts.get("text"))}
    counts[table].examples += 1
    counts[table].characters += sum(map(len, texts.values()))
    counts[table].digests.append(digest([row["prompt"], row["text"]]))
    yield table, row


def checks(counts: dict[str, Counts], settings: Corpus) -> dict[str, Any]:
    """Return the counts of each split, and how many examples two splits share."""
    return {
        "splits": {split: _split_checks(of_split) for split, of_split in counts.items()},
        "leakage": {f"{a}/{b}": shared(counts[a].digests, counts[b].digests) for a, b in combinations(counts, 2)},
    }


def summary(counts: Counts, settings: Corpus) -> str:
    """Return one split in words, for the log."""
    kind = "completions" if "prompt" in settings.reader.columns else "documents"
    return f"{counts.examples:,} {kind}, {counts.characters:,} characters"


def warnings(checks: dict[str, Any]) -> list[str]:
    """Return one line for each thing that somebody should look at before training."""
    lines = [
        f"{split}: examples without text, left out: {of_split['empty_examples']:,}"
        for split, of_split in checks["splits"].items()
        if of_split["empty_examples"]
    ]
    for pair, count in checks["leakage"].items():
        if count:
            first, second = pair.split("/")
            lines.append(f"{second}: examples that also stand in {first}: {count:,}")
    return lines


def _string(value: Any, column: str, where: str) -> str:
    if value is None:  # how Parquet has an empty text
        return ""
    if not isinstance(value, str):
        raise UserError(f"{where}: {column} is {value!r:.60}; expected a string")
    return value


def _split_checks(counts: Counts) -> dict[str, Any]:
    return {
        "examples": counts.examples,
        "characters": counts.characters,
        "empty_examples": counts.empty_examples,
        "duplicates": duplicates(counts.digests),
    }
