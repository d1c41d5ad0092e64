"""Turns source files into raw records, one at a time: CoNLL columns, CoNLL-U, JSON lines, Parquet."""

import codecs
import json
import re
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from finetrail.errors import UserError
from finetrail.schema import ConllReader, ConlluReader, JsonLinesReader, ParquetReader

Reader = ConllReader | ConlluReader | JsonLinesReader | ParquetReader
# id where the file has one, place, values: what each format gives before running numbers fill the ids.
Raw = tuple[str | None, str, dict[str, Any]]

CHUNK_BYTES = 1 << 20
PARQUET_BATCH = 1000
# Not str.split() and str.strip(): they also take the no-break and the ideographic space, which stand inside tokens.
WHITESPACE = " \t"
WHITESPACE_RUN = re.compile(f"[{WHITESPACE}]+")
DOCUMENT_START = "-DOCSTART-"
CONLLU_COLUMNS = {"form": 1, "upos": 3, "xpos": 4, "deprel": 7}


class Record(NamedTuple):
    """One raw example: its id, where it begins (file and line or row), and the values of the task's columns."""

    id: str
    where: str
    values: dict[str, Any]


def read(root: Path, files: list[Path], reader: Reader) -> Iterator[Record]:
    """Yield the examples of `files`, in the order given; messages name a file relative to `root`.

    The id is the one in the file (`reader.columns: id`, CoNLL-U's sent_id), else the example's running number over
    all files, from 0. Raises UserError with file and line, also where an id of the files stands twice.
    """
    raw = chain.from_iterable(PARSERS[reader.format](path, path.relative_to(root).as_posix(), reader) for path in files)
    seen: set[str] = set()
    for number, (given, where, values) in enumerate(raw):
        if given is not None:
            if given in seen:
                raise UserError(f"{where}: the id {given!r} stands here a second time; expected an id once in a split")
            seen.add(given)
        yield Record(str(number) if given is None else given, where, values)


def _conll(path: Path, name: str, reader: ConllReader) -> Iterator[Raw]:
    for block in _blocks(path, name, reader.encoding):
        tokens, labels = [], []
        for number, line in block:
            if reader.comment is None or not line.startswith(reader.comment):
                token, label = _token_and_label(line, f"{name}:{number}", reader)
                tokens.append(token)
                labels.append(label)
        if tokens:
            yield None, f"{name}:{block[0][0]}", {"tokens": tokens, "labels": labels}


def _token_and_label(line: str, where: str, reader: ConllReader) -> tuple[str, str]:
    separator = reader.separator
    columns = WHITESPACE_RUN.split(line.strip(WHITESPACE)) if separator is None else line.split(separator)
    count = len(columns)
    for key, index in (("token_column", reader.token_column), ("label_column", reader.label_column)):
        if not -count <= index < count:
            needed = index + 1 if index >= 0 else -index
            plural = "" if count == 1 else "s"
            raise UserError(f"{where}: {count} column{plural}, {key} {index} needs at least {needed}: {line[:80]!r}")
    if reader.token_column % count == reader.label_column % count:
        raise UserError(f"{where}: token_column and label_column are the same of {count} columns: {line[:80]!r}")
    # A blank behind a label would be another label; tokens may begin or end with one where the separator is a tab.
    return columns[reader.token_column], columns[reader.label_column].strip(WHITESPACE)


def _conllu(path: Path, name: str, reader: ConlluReader) -> Iterator[Raw]:
    for block in _blocks(path, name, reader.encoding):
        sentence_id, tokens, labels = None, [], []
        for number, line in block:
            if line.startswith("#"):
                key, _, value = line[1:].partition("=")
                sentence_id = value.strip() if key.strip() == "sent_id" else sentence_id
                continue
            columns = line.split("\t")
            if len(columns) != 10:
                raise UserError(f"{name}:{number}: {len(columns)} columns; CoNLL-U has 10, with tabs between them")
            # 1-2 is a range of words written as one, 8.1 an empty node: neither is a word of the tree.
            if columns[0].isdecimal():
                tokens.append(columns[CONLLU_COLUMNS["form"]])
                labels.append(columns[CONLLU_COLUMNS[reader.label]])
        if tokens:
            yield sentence_id, f"{name}:{block[0][0]}", {"tokens": tokens, "labels": labels}


def _jsonl(path: Path, name: str, reader: JsonLinesReader) -> Iterator[Raw]:
    for number, line in _lines(path, name, reader.encoding):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            example = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{where}: not JSON: {error.msg}, column {error.colno}; expected an object a line"
            ) from None
        except RecursionError:
            raise UserError(f"{where}: JSON nested too deeply; expected one flat object a line") from None
        if not isinstance(example, dict):
            raise UserError(f"{where}: {type(example).__name__}; expected one JSON object a line")
        values = {column: example[key] for column, key in reader.columns.items() if key in example}
        if missing := [key for column, key in reader.columns.items() if column not in values]:
            raise UserError(f"{where}: no key {missing[0]!r}; the keys there are {', '.join(example) or 'none'}")
        # JSON can escape half of a surrogate pair, which is no text: UTF-8 and Parquet cannot hold it.
        if "\\u" in line and not _is_text(values):
            raise UserError(f"{where}: a lone surrogate such as \\ud83d; expected text that UTF-8 can hold")
        yield _id(values, where), where, values


def _is_text(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _parquet(path: Path, name: str, reader: ParquetReader) -> Iterator[Raw]:
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise UserError(f"{name}: not a Parquet file: {error}") from None
    columns = file.schema_arrow.names
    if missing := [column for column in reader.columns.values() if column not in columns]:
        raise UserError(f"{name}: no column {missing[0]!r}; the columns there are {', '.join(columns)}")
    class_names = _class_names(file.schema_arrow.metadata or {})
    row = 0
    for batch in _batches(file, sorted(set(reader.columns.values())), name):
        for example in batch.to_pylist():
            where = f"{name}, row {row}"
            for column in class_names.keys() & example.keys():
                example[column] = _named(example[column], class_names[column], f"{where}: {column}")
            values = {column: example[key] for column, key in reader.columns.items()}
            yield _id(values, where), where, values
            row += 1


def _batches(file: pq.ParquetFile, columns: list[str], name: str) -> Iterator[pa.RecordBatch]:
    batches = file.iter_batches(batch_size=PARQUET_BATCH, columns=columns)
    while True:
        try:
            batch = next(batches, None)
        except (pa.ArrowInvalid, OSError) as error:  # a damaged page; the footer was whole
            raise UserError(f"{name}: damaged Parquet: {str(error).splitlines()[0]}") from None
        if batch is None:
            return
        yield batch


def _class_names(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """Return the names of the ClassLabel columns, and lists of them, that `datasets` describes in a file's schema."""
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features") or {}
    found = {}
    for column, feature in features.items():
        # Sequence, List and LargeList hold their items' feature as "feature"; datasets before 4 also wrote [feature].
        while isinstance(feature, list) or "feature" in feature:
            feature = feature[0] if isinstance(feature, list) else feature["feature"]
        if feature.get("_type") == "ClassLabel":
            found[column] = feature["names"]
    return found


def _named(value: Any, names: list[str], where: str) -> Any:
    if isinstance(value, list):
        return [_named(item, names, where) for item in value]
    if value is None:
        return None
    # -1 is how datasets marks a label that is not known; names[-1] would be the last one.
    if not 0 <= value < len(names):
        raise UserError(f"{where} holds {value}; its ClassLabel names 0 to {len(names) - 1}")
    return names[value]


def _id(values: dict[str, Any], where: str) -> str | None:
    """Take the id out of the values, as a string; None where the recipe names no id column."""
    if "id" not in values:
        return None
    given = values.pop("id")
    if not isinstance(given, str | int):
        raise UserError(f"{where}: the id is {given!r}; expected a string or a whole number")
    return str(given)


def _blocks(path: Path, name: str, encoding: str) -> Iterator[list[tuple[int, str]]]:
    """Yield runs of numbered lines between blank lines; a -DOCSTART- line also ends a run and is in none."""
    block: list[tuple[int, str]] = []
    for number, line in _lines(path, name, encoding):
        # WNUT-2016 has a lone tab between sentences.
        if not line.strip(WHITESPACE) or line.startswith(DOCUMENT_START):
            if block:
                yield block
            block = []
        else:
            block.append((number, line))
    if block:
        yield block


def _lines(path: Path, name: str, encoding: str) -> Iterator[tuple[int, str]]:
    r"""Yield (number from 1, line); only \n and \r\n end one, str.splitlines() also ends it at U+2028 and others."""
    number, rest = 0, ""
    for text in _decoded(path, name, encoding):
        *lines, rest = (rest + text).split("\n")
        for line in lines:
            number += 1
            yield number, line.removesuffix("\r")
    if rest:
        yield number + 1, rest.removesuffix("\r")


def _decoded(path: Path, name: str, encoding: str) -> Iterator[str]:
    try:
        decoder = codecs.getincrementaldecoder(encoding)()
    except LookupError:
        raise UserError(f"reader.encoding: Python knows no encoding {encoding!r}; expected such as utf-8") from None
    with path.open("rb") as file:
        chunk = b"-"
        while chunk:
            chunk = file.read(CHUNK_BYTES)
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                # error.object ends where the file was read to, and begins with what the chunk before left over.
                offset = file.tell() - len(error.object) + error.start
                raise UserError(
                    f"{name}: the byte 0x{error.object[error.start]:02x} at offset {offset} is not {encoding}; "
                    "expected reader.encoding to name the encoding of the file"
                ) from None
            except UnicodeError as error:
                raise UserError(f"{name}: {error}; expected reader.encoding to name the encoding of the file") from None
            yield text.removeprefix("\ufeff") if file.tell() == len(chunk) else text


PARSERS: dict[str, Callable[[Path, str, Any], Iterator[Raw]]] = {
    "conll": _conll,
    "conllu": _conllu,
    "jsonl": _jsonl,
    "parquet": _parquet,
}
