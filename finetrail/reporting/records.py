"""Reads the records of all stages of a run."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from finetrail import layout, tasks, upgrades
from finetrail.reporting.summary import Results, Row, Series
from finetrail.stage import read_json

LONGEST_FIELD = 2**31 - 1  # csv's own is 131,072 characters; a prompt may be longer
# Columns of names, where "1" and "nan" are labels and not numbers.
TEXT_COLUMNS = {"id", "split", "part", "label", "reference", "prediction", "slicing", "slice", "metric"}
FLAGS = {"True": True, "False": False}


def read_results(task: str) -> Results:
    """Read the records of all earlier stages; UserError if one is missing."""
    checks, counts = read_json(layout.CORPUS_CHECKS), read_json(layout.TOKENIZED_COUNTS)
    concerns = tasks.module(task, "concerns")
    return Results(
        checks=checks,
        concerns=list(map(str, [*concerns.of_corpus(checks), *concerns.of_features(counts["splits"])])),
        corpus=read_json(layout.CORPUS_PROVENANCE),
        model=read_json(layout.MODEL_PROVENANCE),
        counts=counts,
        training=read_json(layout.TRAINING_RECORD),
        history=read_history(layout.CURVES),
        evaluation=upgrades.record(read_json(layout.EVALUATION_METRICS)),
        tables={path.stem: read_rows(path, ",") for path in sorted(layout.EVALUATION.glob("*.csv"))},
        # A task whose errors cannot be listed (a language model's) writes none.
        errors=read_json(layout.EVALUATION_ERRORS) if layout.EVALUATION_ERRORS.is_file() else [],
        export=read_json(layout.EXPORT_METRICS),
    )


def read_history(folder: Path) -> dict[str, Series]:
    """Read DVCLive's TSV files, SPLIT/METRIC.tsv with the columns step and METRIC, to (step, value) in order."""
    history = {}
    for path in sorted(folder.rglob("*.tsv")):
        name = path.relative_to(folder).with_suffix("").as_posix()
        history[name] = [(row["step"], row[path.stem]) for row in read_rows(path, "\t")]
    return history


def read_rows(path: Path, delimiter: str) -> list[Row]:
    """Read a delimited file with a header, numbers as numbers."""
    with path.open(encoding="utf-8", newline="") as lines:
        return parsed(lines, delimiter)


def parsed(lines: Iterable[str], delimiter: str) -> list[Row]:
    """Return the rows of a delimited text with a header, numbers as numbers; a column with other text is all text."""
    csv.field_size_limit(LONGEST_FIELD)
    rows = list(csv.DictReader(lines, delimiter=delimiter))
    read = [{key: read_value(text) for key, text in row.items()} for row in rows]
    texts = {key for row in read for key, value in row.items() if isinstance(value, str)}
    return [
        {
            key: row[key] if key in TEXT_COLUMNS else (row[key] or None) if key in texts else value
            for key, value in of_row.items()
        }
        for row, of_row in zip(rows, read, strict=True)
    ]


def read_value(text: str) -> Any:
    """Read an int, a float or a flag; nothing is None, and other text stays."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return FLAGS.get(text, text or None)
