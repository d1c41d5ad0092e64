"""Reads tables with one example per row as raw records: JSON lines, CSV, Parquet."""

import csv
import json
import re
from collections.abc import Iterator
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from finetrail.corpus.raw import (
    Raw,
    at_path,
    document,
    lines,
    listed,
    objects,
    parts,
    require_text,
    selected,
    taken_id,
)
from finetrail.errors import UserError
from finetrail.schema import CsvReader, JsonLinesReader, JsonReader, ParquetReader

PARQUET_BATCH = 1000
LONGEST_NAME = 60
NUMBER = re.compile(r"[-+]?\d*[.,]?\d+")
# The csv module's limit is 131,072 characters; a C long holds this one on every platform.
CSV_FIELD = 2**31 - 1


def jsonl(path: Path, name: str, reader: JsonLinesReader) -> Iterator[Raw]:
    """Yield the recipe's keys of each object."""
    instead = ", or reader.format: json for an array of objects"
    for where, example in objects(path, name, reader.encoding, instead):
        yield _of_object(example, where, reader)


def json_array(path: Path, name: str, reader: JsonReader) -> Iterator[Raw]:
    """Yield the recipe's keys of each object of an array, which is the whole file or is inside it."""
    array = document(path, name, reader.encoding, ", or reader.format: jsonl for one object per line")
    if reader.array is not None:
        if not isinstance(array, dict):
            raise UserError(f"{name}: {_kind(array)}; expected an object with the array at {reader.array!r}")
        array = at_path(array, reader.array, name)
    if not isinstance(array, list):
        keys = (
            f" with the keys {listed(array)}; reader.array names the path of an array"
            if isinstance(array, dict)
            else ""
        )
        raise UserError(f"{name}: {_kind(array)}{keys}; expected an array of objects")
    for number, example in enumerate(array):
        where = f"{name}, item {number}"
        if not isinstance(example, dict):
            raise UserError(f"{where}: {example!r:.60}; expected an object")
        yield _of_object(example, where, reader)


def _kind(value: Any) -> str:
    return "an array" if isinstance(value, list) else "an object" if isinstance(value, dict) else f"{value!r:.60}"


def _of_object(example: dict[str, Any], where: str, reader: JsonLinesReader | JsonReader) -> Raw:
    found = {part: at_path(example, part, where) for part in parts(reader.columns)}
    values = selected(reader.columns, found, where)
    require_text(values, where)
    return taken_id(values, where), where, values


def delimited(path: Path, name: str, reader: CsvReader) -> Iterator[Raw]:
    """Yield the recipe's columns of each row, as strings."""
    rows = quoted(path, name, reader) if reader.quoting == "minimal" else _unquoted(path, name, reader)
    number, first = next(rows, (0, None))
    if first is None:
        raise UserError(f"{name}: an empty file; expected a row for each example, in most files below a header line")
    if all(isinstance(part, int) for part in parts(reader.columns)):
        positions = _numbered(first, reader, f"{name}:{number}")
        rows, model = chain([(number, first)], rows), "first row"
    else:
        positions = _named_in(first, rows, reader, f"{name}:{number}")
        model = "header"
    for number, fields in rows:
        where = f"{name}:{number}"
        if len(fields) != len(first):
            raise UserError(
                f"{where}: {len(fields)} fields; expected {len(first)} as in the {model}"
                + (", or reader.quoting: none if quotes are text" if reader.quoting == "minimal" else "")
            )
        found = {part: fields[position] for part, position in positions.items()}
        values = selected(reader.columns, found, where)
        yield taken_id(values, where), where, values


def _numbered(first: list[str], reader: CsvReader, where: str) -> dict[Any, int]:
    for column in parts(reader.columns):
        if not -len(first) <= column < len(first):
            raise UserError(
                f"{where}: no column {column}; expected numbers from 0 to {len(first) - 1}, or from -1 to "
                f"-{len(first)} from the end, for there are {len(first)} columns: {listed(first)}"
            )
    return {column: column for column in parts(reader.columns)}


def _named_in(header: list[str], rows: Iterator[Any], reader: CsvReader, where: str) -> dict[Any, int]:
    for column in parts(reader.columns):
        if header.count(column) != 1:
            times = "no column" if column not in header else "more than one column"
            hint = ""
            if column not in header and _looks_like_data(header, next(rows, (0, []))[1]):
                hint = "; this file seems to have no header line: name columns by their numbers, from 0"
            raise UserError(f"{where}: {times} {column!r}; the columns there are {listed(header)}{hint}")
    return {column: header.index(column) for column in parts(reader.columns)}


def _looks_like_data(first: list[str], second: list[str]) -> bool:
    """Return True if a first row has a value that no header has: a number, a long text, or a value of the next row."""
    return any(
        len(field) > LONGEST_NAME or NUMBER.fullmatch(field.strip()) or field == below
        for field, below in zip_longest(first, second[: len(first)])
    )


def _unquoted(path: Path, name: str, reader: CsvReader) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, fields). Without quotes a row is its line: the csv module would refuse a carriage return in it."""
    for number, line in lines(path, name, reader.encoding):
        if line:
            yield number, line.split(reader.delimiter)


def quoted(path: Path, name: str, reader: CsvReader) -> Iterator[tuple[int, list[str]]]:
    """Yield (line where the row begins, fields); a quoted field may hold line ends."""
    csv.field_size_limit(CSV_FIELD)
    with_ends = (line + "\n" for _, line in lines(path, name, reader.encoding))
    # strict: otherwise an unclosed quote silently takes the rest of the file as one field.
    rows = csv.reader(with_ends, delimiter=reader.delimiter, strict=True)
    while True:
        number = rows.line_num + 1
        try:
            fields = next(rows, None)
        except csv.Error as error:
            raise UserError(f"{name}:{number}: not CSV: {_csv_problem(error, rows.line_num)}") from None
        if fields is None:
            return
        if fields:  # a blank line has none
            yield number, fields


def _csv_problem(error: csv.Error, line: int) -> str:
    """Return a message for the author of the file; those of the csv module are for programmers."""
    if "new-line" in str(error):
        return (
            f"a carriage return alone in line {line}, outside quotes; expected it in quotes, or reader.quoting: none "
            "if quotes are text"
        )
    where = "never ends" if "unexpected end" in str(error) else f"does not end where it should, in line {line}"
    return (
        f"a field in quotes {where}; expected its quote before the delimiter, quotes in it doubled; "
        "or reader.quoting: none if quotes are text"
    )


def parquet(path: Path, name: str, reader: ParquetReader) -> Iterator[Raw]:
    """Yield the recipe's columns of each row; ClassLabels as their names."""
    try:
        file = pq.ParquetFile(path)
        columns = file.schema_arrow
    except (pa.ArrowException, OSError):  # the former also of types that nobody writes
        raise UserError(f"{name}: not a Parquet file, or only a part of one; expected PAR1 at both ends") from None
    except UnicodeDecodeError:  # of a column's name
        raise UserError(f"{name}: a damaged schema, whose names are not UTF-8; expected Parquet") from None
    wanted = parts(reader.columns)
    for column in wanted:
        _require_column(columns, column, name)
    class_names = _class_names(columns.metadata or {}, wanted, name)
    row = 0
    for batch in _batches(file, sorted(wanted), name):
        for example in _as_python(batch, name):
            where = f"{name}, row {row}"
            found = {column: at_path(example, column, where) for column in wanted}
            for column, names in class_names.items():
                found[column] = _named(found[column], names, f"{where}: {column}")
            values = selected(reader.columns, found, where)
            yield taken_id(values, where), where, values
            row += 1


def _require_column(columns: pa.Schema, path: str, name: str) -> None:
    """Raise UserError if a schema has neither this column nor, in its structs, this path."""
    if columns.names.count(path) > 1:
        raise UserError(f"{name}: {columns.names.count(path)} columns {path!r}; expected each name once")
    if path in columns.names:
        return
    fields, inside = {field.name: field.type for field in columns}, ""
    for key in path.split("."):
        if key not in fields:
            raise UserError(f"{name}: no column {key!r}{inside}; the columns there are {listed(fields)}")
        fields, inside = _fields(fields[key]), f" in {key!r}"


def _fields(kind: pa.DataType) -> dict[str, pa.DataType]:
    return {field.name: field.type for field in kind} if pa.types.is_struct(kind) else {}


def _batches(file: pq.ParquetFile, columns: list[str], name: str) -> Iterator[pa.RecordBatch]:
    batches = file.iter_batches(batch_size=PARQUET_BATCH, columns=columns)
    while True:
        try:
            batch = next(batches, None)
        except (pa.ArrowException, OSError, ValueError):  # a damaged page; the footer was whole
            raise UserError(f"{name}: damaged Parquet; expected the file as it was written: fetch it again") from None
        if batch is None:
            return
        yield batch


def _as_python(batch: pa.RecordBatch, name: str) -> list[dict[str, Any]]:
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:  # Arrow takes the file's word for it
        raise UserError(f"{name}: a column of texts has bytes that are not UTF-8; expected a binary column") from None
    except (pa.ArrowException, ValueError, OverflowError, LookupError) as error:
        raise UserError(
            f"{name}: a value that Python cannot hold ({error!s:.60}); expected texts, numbers and lists of them, no "
            "dates beyond the year 9999, invalid time zones, or structs with two fields of one name"
        ) from None


def _class_names(metadata: dict[bytes, bytes], wanted: list[str], name: str) -> dict[str, list[str]]:
    """Return the names of the ClassLabels, and lists of them, that `datasets` describes in a file's schema.

    A description of another form than that of `datasets` says nothing. UserError if a ClassLabel has no names.
    """
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return {}
    found = {}
    for column in wanted:
        feature = (features.get(column) if isinstance(features, dict) else None) or _described(features, column)
        # Sequence, List and LargeList hold their items' feature as "feature"; datasets before 4 also wrote [feature].
        while (isinstance(feature, list) and feature) or (isinstance(feature, dict) and "feature" in feature):
            feature = feature[0] if isinstance(feature, list) else feature["feature"]
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
            found[column] = _checked_names(feature.get("names"), f"{name}: column {column!r}")
    return found


def _checked_names(names: Any, where: str) -> list[str]:
    if not isinstance(names, list) or not all(isinstance(one, str) for one in names) or len({*names}) < len(names):
        raise UserError(f"{where}: its ClassLabel has the names {names!r:.60}; expected a list of texts, each once")
    return names


def _described(features: Any, path: str) -> Any:
    """Return the description of a path in the features; an empty one if they have none."""
    for key in path.split("."):
        features = features.get(key, {}) if isinstance(features, dict) else {}
    return features


def _named(value: Any, names: list[str], where: str) -> Any:
    if isinstance(value, list):
        return [_named(item, names, where) for item in value]
    if value is None:
        return None
    # -1 is how datasets marks a label that is not known; names[-1] would be the last one.
    if not isinstance(value, int) or not 0 <= value < len(names):
        raise UserError(f"{where} holds {value!r:.60}; its ClassLabel names 0 to {len(names) - 1}")
    return names[value]
