"""Turns people's texts with masks into examples, and predictions into what fills the masks."""

from typing import Any

import pyarrow as pa

from finetrail.errors import UserError
from finetrail.tasks.inputs import identified, text_of

# Optional in tasks/contract.py, and not used here.
examples_for = documents = FORMATS = None

KEYS = ("text", "input_ids", "positions")
QUESTIONS = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),  # with mask tokens, or null if the input is a block of input_ids
        ("input_ids", pa.list_(pa.int32())),
        ("positions", pa.list_(pa.int32())),  # in input_ids, what to predict; null: their mask tokens
    ]
)


def probe(target: None) -> dict[str, Any]:
    return {"input_ids": [0, 1, 2], "positions": [1]}


def examples(inputs: list[dict[str, Any]]) -> pa.Table:
    """Return inputs {"text"} or {"input_ids", "positions"}, perhaps with an id, as rows of the corpus."""
    rows = [_example(given, number) for number, given in enumerate(inputs)]
    return pa.Table.from_pylist(rows, QUESTIONS)


def _example(given: dict[str, Any], number: int) -> dict[str, Any]:
    name, where = identified(given, number, KEYS)
    if ("text" in given) == ("input_ids" in given):
        raise UserError(f"{where}: {'both' if 'text' in given else 'neither'}; expected either text or input_ids")
    if "text" in given:
        text_of(given, "text", where)
    for key in ("input_ids", "positions"):
        value = given.get(key)
        if value is not None and not (isinstance(value, list) and all(_is_number(item) for item in value)):
            raise UserError(f"{where}: {key} is {value!r:.60}; expected a list of whole numbers below 2^31")
    return {key: given.get(key) for key in KEYS} | {"id": name}


def _is_number(item: Any) -> bool:
    return type(item) is int and -(2**31) <= item < 2**31


def answers(predictions: pa.Table) -> list[dict[str, Any]]:
    """Return per input its filled text and, for each mask, the best tokens with their probabilities."""
    found: list[dict[str, Any]] = []
    for block in predictions.to_pylist():
        # A long text is several blocks: id:0, id:1, ...
        name, _, number = block["id"].rpartition(":")
        if number == "0":
            found.append({"id": name, "text": "", "masks": []})
        found[-1]["text"] += block["filled"]
        for tokens, probabilities in zip(block["fills"], block["probabilities"], strict=True):
            found[-1]["masks"].append({"tokens": tokens, "probabilities": probabilities})
    return [answer | {"text": answer["text"].strip()} for answer in found]


def text_input(text: str) -> dict[str, Any]:
    return {"text": text}
