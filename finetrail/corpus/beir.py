"""Reads BEIR's documents, queries and judgements (qrels) as raw records: one per judged query, or per document."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from finetrail.corpus.raw import Raw, as_id, lines, listed, objects, require_text, with_more
from finetrail.errors import UserError
from finetrail.schema import BeirReader

GRADE = re.compile("-?[0-9]{1,9}")


class Judged(NamedTuple):
    """A query's judgements: the place of the first one, and the relevance of each document."""

    where: str
    relevance: dict[str, int]


def beir(path: Path, name: str, reader: BeirReader) -> Iterator[Raw]:
    """Yield each query of a qrels file (query, positives, and what else is said of the query), in order of first
    appearance; of `reader.documents`, each document (title, text).

    Only documents that the qrels name are kept in memory.
    """
    documents_name, queries_name = (PurePosixPath(file).as_posix() for file in (reader.documents, reader.queries))
    if name == documents_name:
        yield from _texts(path, name)
        return
    root = path.parents[len(PurePosixPath(name).parts) - 1]
    judged = _judged(path, name)
    named = {document for query in judged.values() for document in query.relevance}
    queries = _wanted(root, queries_name, "queries", set(judged))
    documents = _wanted(root, documents_name, "documents", named)
    for query, (where, relevance) in judged.items():
        _require(query, queries, "query", queries_name, where)
        for document in relevance:
            _require(document, documents, "document", documents_name, f"{where}: query {query!r}")
        positives = [
            {"id": document, **documents[document], "relevance": grade}
            for document, grade in relevance.items()
            if grade > 0
        ]
        yield query, where, queries[query] | {"query": queries[query]["text"], "positives": positives}


def _judged(path: Path, name: str) -> dict[str, Judged]:
    judged: dict[str, Judged] = {}
    for number, line in lines(path, name, None):
        where, fields = f"{name}:{number}", line.split("\t")
        if not line.strip():
            continue
        if len(fields) != 3:
            raise UserError(
                f"{where}: {len(fields)} columns; expected query-id, corpus-id and score, tabs between them"
            )
        query, document, score = fields
        if number == 1:
            if _grade(score) is not None:
                raise UserError(f"{where}: {line!r:.80}; expected a header: query-id, corpus-id, score")
            continue
        grade = _grade(score)
        if grade is None:
            raise UserError(f"{where}: the score is {score!r:.60}; expected a whole number")
        relevance = judged.setdefault(query, Judged(where, {})).relevance
        if relevance.setdefault(document, grade) != grade:
            raise UserError(
                f"{where}: query {query!r} and document {document!r} have a different score in an earlier line"
            )
    return judged


def _grade(score: str) -> int | None:
    """Return a relevance grade, or None if invalid: int() also accepts 1_000, blanks and digits of other scripts."""
    return int(score) if GRADE.fullmatch(score) else None


def _wanted(root: Path, name: str, key: str, ids: set[str]) -> dict[str, dict[str, Any]]:
    """Return title and text of those of the ids that are in the file; for queries, also their other keys."""
    path = root / name
    if not path.is_file():
        raise UserError(f"reader.{key}: the source has no file {name!r}; expected JSON lines of {key}")
    found: dict[str, dict[str, Any]] = {}
    for given, where, values in _texts(path, name, with_others=key == "queries"):
        if given in found:
            raise UserError(f"{where}: the id {given!r} occurs a second time here; expected unique ids")
        if given in ids:
            found[given] = values
    return found


def _texts(path: Path, name: str, with_others: bool = False) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield (id, place, values): title and text, perhaps with the object's other keys and those of its metadata."""
    for where, example in objects(path, name, None):
        for key in ("_id", "text"):
            if key not in example:
                raise UserError(f"{where}: no key {key!r}; the keys there are {listed(example)}")
        # Queries have no title, and some collections' documents neither.
        values: dict[str, Any] = {"title": example.get("title") or "", "text": example["text"]}
        for key, value in values.items():
            if not isinstance(value, str):
                raise UserError(f"{where}: {key} is {value!r:.60}; expected a string")
        if with_others:
            values = with_more(example, "metadata") | values
        require_text(values, where)
        yield as_id(example["_id"], where), where, values


def _require(given: str, known: dict[str, Any], kind: str, name: str, where: str) -> None:
    if given not in known:
        raise UserError(f"{where}: there is no {kind} {given!r} in {name}; expected every id of the qrels there")
