"""Reads CSV and TSV files with a header as inputs of a model, and writes answers as such tables."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from finetrail.corpus.tables import delimited, quoted
from finetrail.errors import UserError
from finetrail.schema import CsvReader

DELIMITERS = {"csv": ",", "tsv": "\t"}
RECIPES_KEY = re.compile("[,;] or reader[.]quoting: .*$")  # the recipe's keys, which do not exist here


def inputs(path: Path, delimiter: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (file and line, the row's fields by the names of the header)."""
    reader = CsvReader(format="csv", columns={}, delimiter=delimiter, quoting="minimal", encoding="utf-8")
    try:
        _, header = next(quoted(path, str(path), reader), (1, []))
        reader = reader.model_copy(update={"columns": {name: name for name in header}})
        for name, place, values in delimited(path, str(path), reader):
            yield place, values if name is None else {"id": name} | values
    except UserError as error:
        raise UserError(RECIPES_KEY.sub("", str(error))) from None


def rows(answers: Iterable[dict[str, Any]], delimiter: str) -> Iterator[str]:
    """Yield a header and a row for each answer; UserError if one has other keys than the first.

    A mapping becomes one column per key, such as probabilities.sport; a list becomes JSON in its field.
    """
    header: list[str] = []
    for answer in answers:
        fields = dict(_fields(answer))
        if not header:
            header = list(fields)
            yield _row(header, delimiter)
        if fields.keys() != set(header):
            raise UserError(
                f"answer {answer['id']!r} has the keys {', '.join(fields)}, the first one {', '.join(header)}; "
                "expected inputs of one kind in a table, or --format jsonl"
            )
        yield _row([fields[name] for name in header], delimiter)


FORMATS: dict[str, Callable[[Iterable[dict[str, Any]]], Iterator[str]]] = {
    name: partial(rows, delimiter=delimiter) for name, delimiter in DELIMITERS.items()
}


def _fields(answer: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in answer.items():
        if isinstance(value, dict):
            yield from ((f"{key}.{inner}", one) for inner, one in value.items())
        else:
            yield key, json.dumps(value, ensure_ascii=False, allow_nan=False) if isinstance(value, list) else value


def _row(fields: list[Any], delimiter: str) -> str:
    line = io.StringIO()
    csv.writer(line, delimiter=delimiter, lineterminator="").writerow(fields)
    return line.getvalue()
