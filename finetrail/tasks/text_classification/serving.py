"""Turns people's texts into examples, and predictions into JSON objects."""

from typing import Any

import pyarrow as pa

from finetrail.errors import UserError

KEYS = ("id", "text", "text_pair")


def text_input(text: str) -> dict[str, Any]:
    """Return the input that a bare text stands for."""
    return {"text": text}


def examples(inputs: list[dict[str, Any]]) -> pa.Table:
    """Return inputs {"text"[, "text_pair"][, "id"]} as rows of the corpus, without what is to be predicted.

    Ids are running numbers where none is given. UserError naming the input and the key where one is wrong.
    """
    pairs = any("text_pair" in given for given in inputs)
    columns = ["text", "text_pair"] if pairs else ["text"]
    for number, given in enumerate(inputs):
        for key in given:
            if key not in KEYS:
                raise UserError(f"input {number}: unknown key {key!r}; expected {', '.join(KEYS)}")
        for column in columns:
            if column not in given:
                raise UserError(f"input {number}: no key {column!r}; the keys there are {', '.join(given) or 'none'}")
            if not isinstance(given[column], str):
                raise UserError(f"input {number}: {column} is {given[column]!r:.60}; expected a string")
    rows = [
        {"id": str(given.get("id", number))} | {column: given[column] for column in columns}
        for number, given in enumerate(inputs)
    ]
    return pa.Table.from_pylist(rows, pa.schema([(name, pa.string()) for name in ("id", *columns)]))


def answers(predictions: pa.Table) -> list[dict[str, Any]]:
    """Return label, confidence and probabilities of each input; or labels and probabilities; or a score."""
    return [_answer(row) for row in predictions.to_pylist()]


def _answer(row: dict[str, Any]) -> dict[str, Any]:
    answer, prediction = {"id": row["id"]}, row["predictions"]
    if isinstance(prediction, float):
        return answer | {"score": prediction}
    if isinstance(prediction, list):
        return answer | {"labels": prediction, "probabilities": row["probabilities"]}
    return answer | {"label": prediction, "confidence": row["confidences"], "probabilities": row["probabilities"]}
