"""Turns people's texts into examples, and predictions into JSON objects."""

from typing import Any

import pyarrow as pa

from finetrail.tasks.inputs import identified, text_of

# Optional in tasks/contract.py, and not used here.
examples_for = documents = FORMATS = None

KEYS = ("text", "text_pair")


def probe(target: Any) -> dict[str, Any]:
    """Return an input that a model of this target answers."""
    return dict.fromkeys(target.get("texts", ["text"]), "A probe.")


def text_input(text: str) -> dict[str, Any]:
    """Return the input that a bare text stands for."""
    return {"text": text}


def examples(inputs: list[dict[str, Any]]) -> pa.Table:
    """Return inputs {"text"[, "text_pair"][, "id"]} as rows of the corpus, without what is to be predicted.

    Ids are running numbers where none is given. UserError naming the input and the key where one is wrong.
    """
    pairs = any("text_pair" in given for given in inputs)
    columns = KEYS if pairs else KEYS[:1]
    rows = []
    for number, given in enumerate(inputs):
        name, where = identified(given, number, KEYS)
        rows.append({"id": name} | {column: text_of(given, column, where) for column in columns})
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
    # Of very many labels the best stand in a map, which Arrow gives as pairs.
    probabilities = dict(row["probabilities"])
    return answer | {"label": prediction, "confidence": row["confidences"], "probabilities": probabilities}
