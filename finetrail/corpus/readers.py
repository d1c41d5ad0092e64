"""Turns source files of any format into raw records with ids, one at a time."""

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from finetrail.corpus.annotated import doccano, label_studio, plain_spans, prodigy
from finetrail.corpus.beir import beir
from finetrail.corpus.brat import brat
from finetrail.corpus.docbin import docbin
from finetrail.corpus.raw import Raw
from finetrail.corpus.squad import squad
from finetrail.corpus.tables import delimited, json_array, jsonl, parquet
from finetrail.corpus.tagged import conll, conllu
from finetrail.corpus.texts import text
from finetrail.errors import UserError
from finetrail.schema import (
    BeirReader,
    ConllReader,
    ConlluReader,
    CsvReader,
    JsonLinesReader,
    JsonReader,
    ParquetReader,
    SpanReader,
    SquadReader,
    TextReader,
)

Reader = (
    ConllReader
    | ConlluReader
    | JsonLinesReader
    | JsonReader
    | ParquetReader
    | CsvReader
    | TextReader
    | SquadReader
    | BeirReader
    | SpanReader
)

PARSERS: dict[str, Callable[[Path, str, Any], Iterator[Raw]]] = {
    "conll": conll,
    "conllu": conllu,
    "jsonl": jsonl,
    "json": json_array,
    "parquet": parquet,
    "csv": delimited,
    "text": text,
    "squad": squad,
    "beir": beir,
    "doccano": doccano,
    "label_studio": label_studio,
    "prodigy": prodigy,
    "brat": brat,
    "spacy": docbin,
    "spans": plain_spans,
}


class Record(NamedTuple):
    """One raw example: its id, where it begins (file and line, row or path), and the values of the task's columns."""

    id: str
    where: str
    values: dict[str, Any]


def read(root: Path, files: list[Path], reader: Reader) -> Iterator[Record]:
    """Yield the examples of `files`, in the order given; messages name a file relative to `root`.

    The id is the one in the file (`reader.columns: id`, CoNLL-U's sent_id, SQuAD's and BEIR's ids), else the example's
    running number over all files, from 0. Raises UserError with file and line, also where an id of the files stands
    twice.
    """
    raw = chain.from_iterable(PARSERS[reader.format](path, path.relative_to(root).as_posix(), reader) for path in files)
    seen: set[str] = set()
    for number, (given, where, values) in enumerate(raw):
        if given is not None:
            if given in seen:
                raise UserError(f"{where}: the id {given!r} stands here a second time; expected an id once in a split")
            seen.add(given)
        yield Record(str(number) if given is None else given, where, values)
