"""Turns people's questions into rows of the corpus, and predictions into answers as JSON objects."""

from typing import Any

import pyarrow as pa

from finetrail.errors import UserError
from finetrail.tasks.inputs import identified, text_of
from finetrail.tasks.question_answering.corpus import SCHEMA
from finetrail.tasks.question_answering.settings import Target

# Optional in tasks/contract.py, and not used here.
examples_for = documents = FORMATS = None

KEYS = ("question", "context")
EXPECTED = 'expected {"question": "...", "context": "..."}'


def probe(target: Target) -> dict[str, Any]:
    return {"question": "What is it?", "context": "It is a probe."}


def text_input(text: str) -> dict[str, Any]:
    """Raise UserError: a question needs its context."""
    raise UserError(f"{text!r:.60}: a question needs a context; {EXPECTED}, a JSON object a line, with --input")


def examples(inputs: list[dict[str, Any]]) -> pa.Table:
    """Return inputs {"question", "context"[, "id"]} as rows of the corpus; UserError if a text is missing or blank."""
    rows = []
    for number, given in enumerate(inputs):
        name, where = identified(given, number, KEYS)
        texts = {key: text_of(given, key, where, EXPECTED) for key in KEYS}
        for key, value in texts.items():
            if not value.strip():
                raise UserError(f"{where}: {key} is {value!r:.60}; {EXPECTED}")
        rows.append({"id": name, "title": None, **texts, "answers": None})
    return pa.Table.from_pylist(rows, SCHEMA)


def answers(predictions: pa.Table) -> list[dict[str, Any]]:
    """Return answer, place in the context, confidence and other candidates per question; "" is no answer."""
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
