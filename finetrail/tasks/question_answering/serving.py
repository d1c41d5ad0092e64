"""Turns people's questions into rows of the corpus, and predictions into answers as JSON objects."""

from typing import Any

import pyarrow as pa

from finetrail.errors import UserError
from finetrail.tasks.question_answering.corpus import SCHEMA

EXPECTED = 'expected {"question": "...", "context": "..."}'


def text_input(text: str) -> dict[str, Any]:
    """Refuse a lone text: a question needs its context."""
    raise UserError(f"{text!r:.60}: a question needs a context; {EXPECTED}, a JSON object a line, with --input")


def examples(inputs: list[dict[str, Any]]) -> pa.Table:
    """Return the inputs (question, context, perhaps id) as rows of the corpus, without references.

    UserError with the input and the key where one of the two texts is missing or blank.
    """
    rows = []
    for number, given in enumerate(inputs):
        name = str(given.get("id", number))
        for key in ("question", "context"):
            if not isinstance(given.get(key), str) or not given[key].strip():
                found = f"{key} is {given[key]!r:.60}" if key in given else f"there is no {key}"
                raise UserError(f"input {name!r}: {found}; {EXPECTED}")
        row = {"id": name, "title": None, "question": given["question"], "context": given["context"], "answers": None}
        rows.append(row)
    return pa.Table.from_pylist(rows, SCHEMA)


def answers(predictions: pa.Table) -> list[dict[str, Any]]:
    """Return answer, place in the context, confidence and the other candidates of each question; "" is no answer."""
    rows = predictions.select(["id", "predictions", "starts", "confidences", "n_best"]).to_pylist()
    return [
        {
            "id": row["id"],
            "answer": row["predictions"],
            "start": row["starts"],
            "end": None if row["starts"] is None else row["starts"] + len(row["predictions"]),
            "confidence": row["confidences"],
            "n_best": row["n_best"],
        }
        for row in rows
    ]
