"""Turns people's queries, texts and documents into rows of the corpus, and rankings into answers."""

from typing import Any

import pyarrow as pa

from finetrail.errors import UserError
from finetrail.tasks.retrieval.corpus import DOCUMENTS, QUERIES


def examples(inputs: list[dict[str, Any]]) -> pa.Table:
    """Return queries ({"query": ...}), or texts to embed as documents are ({"text": ...}); one kind of the two.

    UserError that names the input where it is neither, or of another kind than the first.
    """
    kind = "text" if inputs and "text" in inputs[0] else "query"
    expected = f"an object with {kind!r}, a string"
    rows = [
        {"id": str(given.get("id", number)), kind: _text(given, kind, f"input {number}", expected)}
        for number, given in enumerate(inputs)
    ]
    if kind == "text":
        return pa.Table.from_pylist([row | {"title": ""} for row in rows], DOCUMENTS)
    return pa.Table.from_pylist(rows, QUERIES)


def documents(inputs: list[dict[str, Any]]) -> pa.Table:
    """Return the collection to search: {"text": ...} with an id and a title where they have them.

    UserError that names the document where it has no text, or an id for the second time.
    """
    rows, seen = [], set()
    for number, given in enumerate(inputs):
        where = f"document {number}"
        text = _text(given, "text", where, "an object with 'text', a string")
        row = {"id": str(given.get("id", number)), "title": given.get("title") or "", "text": text}
        if not isinstance(row["title"], str):
            raise UserError(f"{where}: title is {row['title']!r:.60}; expected a string")
        if row["id"] in seen:
            raise UserError(f"{where}: the id {row['id']!r} stands there a second time; expected an id once")
        seen.add(row["id"])
        rows.append(row)
    if not rows:
        raise UserError("there are no documents to search; expected one or more")
    return pa.Table.from_pylist(rows, DOCUMENTS)


def answers(predictions: pa.Table) -> list[dict[str, Any]]:
    """Return the documents found for each query, the nearest first; or each text's vector."""
    if "found" not in predictions.column_names:
        return [{"embedding": vector} for vector in predictions["predictions"].to_pylist()]
    return [
        {
            "results": [
                {"id": given, "score": score, **texts}
                for given, score, texts in zip(row["predictions"], row["confidences"], row["found"], strict=True)
            ]
        }
        for row in predictions.to_pylist()
    ]


def text_input(text: str) -> dict[str, str]:
    """Return the input that a text on the command line is: a query."""
    return {"query": text}


def _text(given: dict[str, Any], key: str, where: str, expected: str) -> str:
    if not isinstance(given.get(key), str):
        raise UserError(f"{where}: {key} is {given.get(key)!r:.60}; expected {expected}")
    return str(given[key])
