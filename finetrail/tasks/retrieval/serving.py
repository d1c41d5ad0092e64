"""Turns people's queries, texts and documents into rows of the corpus, and rankings into answers."""

from typing import Any

import pyarrow as pa

from finetrail.errors import UserError
from finetrail.tasks.inputs import identified, text_of
from finetrail.tasks.retrieval.corpus import DOCUMENTS, QUERIES
from finetrail.tasks.retrieval.settings import Target

# Optional in tasks/contract.py, and not used here.
examples_for = FORMATS = None


def probe(target: Target) -> dict[str, Any]:
    return {"query": "A probe"}


def examples(inputs: list[dict[str, Any]]) -> pa.Table:
    """Return queries ({"query": ...}), or texts to embed as documents ({"text": ...}).

    UserError if an input is neither, or of another kind than the first.
    """
    kind = "text" if inputs and "text" in inputs[0] else "query"
    rows = []
    for number, given in enumerate(inputs):
        name, where = identified(given, number, (kind,))
        rows.append({"id": name, kind: text_of(given, kind, where)})
    if kind == "text":
        return pa.Table.from_pylist([row | {"title": ""} for row in rows], DOCUMENTS)
    return pa.Table.from_pylist(rows, QUERIES)


def documents(inputs: list[dict[str, Any]]) -> pa.Table:
    """Return the collection to search: {"text": ...}, perhaps with an id and a title, or in BEIR's form.

    UserError names a document without a text, or with the id of an earlier one.
    """
    rows, seen = [], set()
    for number, given in enumerate(map(_as_ours, inputs)):
        name, where = identified(given, number, ("title", "text"), "document")
        if name in seen:
            raise UserError(f"{where}: this id occurs a second time; expected each id once")
        seen.add(name)
        title = text_of(given, "title", where) if given.get("title") else ""
        rows.append({"id": name, "title": title, "text": text_of(given, "text", where)})
    if not rows:
        raise UserError("there are no documents to search; expected one or more")
    return pa.Table.from_pylist(rows, DOCUMENTS)


def _as_ours(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document of BEIR's corpus.jsonl with its _id as id, and without its metadata, which is not searched."""
    if "_id" not in document or "id" in document:
        return document
    return {"id" if key == "_id" else key: value for key, value in document.items() if key != "metadata"}


def answers(predictions: pa.Table) -> list[dict[str, Any]]:
    """Return the documents found for each query, the nearest first; or each text's vector."""
    if "found" not in predictions.column_names:
        pairs = zip(predictions["id"].to_pylist(), predictions["predictions"].to_pylist(), strict=True)
        return [{"id": name, "embedding": vector} for name, vector in pairs]
    return [
        {
            "id": row["id"],
            "results": [
                {"id": given, "score": score, **texts}
                for given, score, texts in zip(row["predictions"], row["scores"], row["found"], strict=True)
            ],
        }
        for row in predictions.to_pylist()
    ]


def text_input(text: str) -> dict[str, str]:
    return {"query": text}
