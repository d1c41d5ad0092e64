"""Turns source files of any format into raw records with ids, one at a time."""

from collections.abc import Callable, Iterator
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


# Formats whose ids are referenced by other files, so that they must not change.
NAMED_ELSEWHERE = ("beir",)


class Record(NamedTuple):
    """One raw example: its id, its place (file and line, row or path), and the values of the task's columns."""

    id: str
    where: str
    values: dict[str, Any]

    @property
    def place(self) -> str:
        """Return place and id: the prefix of messages about this example."""
        return f"{self.where}: example {self.id!r}"


def read(root: Path, files: list[Path], reader: Reader, renamed: set[str] | None = None) -> Iterator[Record]:
    """Yield the examples of `files`, in the order given; messages name a file relative to `root`.

    The id is the one in the file (`reader.columns: id`, CoNLL-U's sent_id, SQuAD's and BEIR's ids), else the example's
    running number over all files, from 0. One that an earlier file has too gets its file's name, and goes into
    `renamed`: languages of a corpus share their ids. Raises UserError with file and line, also where an id of one file
    occurs twice.
    """
    number = 0
    earlier: set[str] = set()
    for path in files:
        name = path.relative_to(root).as_posix()
        here: set[str] = set()
        for given, where, values in PARSERS[reader.format](path, name, reader):
            chosen = given
            if given in earlier and reader.format not in NAMED_ELSEWHERE:
                chosen = f"{name}:{given}"
                if renamed is not None:
                    renamed.add(chosen)
            if chosen is not None:
                if chosen in earlier or chosen in here:
                    raise UserError(
                        f"{where}: the id {given!r} occurs a second time here; expected unique ids within a file"
                    )
                here.add(chosen)
            yield Record(str(number) if chosen is None else chosen, where, values)
            number += 1
        earlier |= here
