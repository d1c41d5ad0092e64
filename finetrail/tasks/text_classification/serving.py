"""Turns people's texts into examples, and predictions into JSON objects."""

from typing import Any

import pyarrow as pa

from finetrail.tasks.inputs import identified, text_of
from finetrail.tasks.text_classification.settings import Target

# Optional in tasks/contract.py, and not used here.
examples_for = documents = FORMATS = None

KEYS = ("text", "text_pair")


def probe(target: Target) -> dict[str, Any]:
    return dict.fromkeys(target.get("texts", ["text"]), "A probe.")


def text_input(text: str) -> dict[str, Any]:
    return {"text": text}


def examples(inputs: list[dict[str, Any]]) -> pa.Table:
    """Return inputs {"text"[, "text_pair"][, "id"]} as rows of the corpus."""
    pairs = any("text_pair" in given for given in inputs)
    columns = KEYS if pairs else KEYS[:1]
    rows = []
    for number, given in enumerate(inputs):
        name, where = identified(given, number, KEYS)
        rows.append({"id": name} | {column: text_of(given, column, where) for column in columns})
    return pa.Table.from_pylist(rows, pa.schema([(name, pa.string()) for name in ("id", *columns)]))


def answers(predictions: pa.Table) -> list[dict[str, Any]]:
    """Return label, confidence and probabilities per input, or labels and probabilities, or a score."""
    return [_answer(row) for row in predictions.to_pylist()]


def _answer(row: dict[str, Any]) -> dict[str, Any]:
    answer, prediction = {"id": row["id"]}, row["predictions"]
    if isinstance(prediction, float):
        return answer | {"score": prediction}
    if isinstance(prediction, list):
        return answer | {"labels": prediction, "probabilities": row["probabilities"]}
    # With very many labels, the best are a map, which Arrow gives as pairs.
    probabilities = dict(row["probabilities"])
    return answer | {"label": prediction, "confidence": row["confidences"], "probabilities": probabilities}
