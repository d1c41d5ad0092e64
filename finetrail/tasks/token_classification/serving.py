"""Turns people's sentences into rows of the corpus, and predictions into labelled words and entities."""

from typing import Any

import pyarrow as pa

from finetrail.errors import UserError
from finetrail.tasks.inputs import identified, text_of
from finetrail.tasks.token_classification.corpus import SCHEMA
from finetrail.tasks.token_classification.settings import has_entities, is_without_scheme

KEYS = ("tokens", "text")
EXPECTED = 'expected {"tokens": ["...", "..."]} or {"text": "..."}'


def text_input(text: str) -> dict[str, Any]:
    """Return the input that a lone text is."""
    return {"text": text}


def examples(inputs: list[dict[str, Any]]) -> pa.Table:
    """Return the inputs as rows of the corpus, without labels; UserError where one has neither tokens nor text.

    A text is split at whitespace alone, so that a full stop behind a word belongs to it: tokens, split as the corpus
    is, serve a model better, and are taken where both are given.
    """
    rows = []
    for number, given in enumerate(inputs):
        name, where = identified(given, number, KEYS)
        rows.append({"id": name, "tokens": _tokens(given, where), "labels": None})
    return pa.Table.from_pylist(rows, SCHEMA)


def answers(predictions: pa.Table) -> list[dict[str, Any]]:
    """Return tokens, labels and confidences (softmax) of each input and, where labels are IOB2 tags, its entities.

    An entity has the type, start and end (the number of its first token and of the one behind its last) and the text,
    its tokens with blanks between them.
    """
    found, entities = [], not is_without_scheme(predictions.schema.metadata)
    if entities:  # those of earlier versions do not tell
        entities = has_entities([label for labels in predictions["predictions"].to_pylist() for label in labels])
    for row in predictions.select(["id", "tokens", "predictions", "confidences"]).to_pylist():
        labels = row["predictions"]
        answer = {"id": row["id"], "tokens": row["tokens"], "labels": labels, "confidences": row["confidences"]}
        found.append(answer | ({"entities": _entities(row["tokens"], labels)} if entities else {}))
    return found


def _tokens(given: dict[str, Any], where: str) -> list[str]:
    if "tokens" in given:
        tokens = given["tokens"]
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise UserError(f"{where}: tokens is {tokens!r:.60}; {EXPECTED}")
        return tokens
    return text_of(given, "text", where, EXPECTED).split()


def _entities(tokens: list[str], labels: list[str]) -> list[dict[str, Any]]:
    """Return the entities as conlleval reads labels: I- goes on with an entity of its type, else it begins one."""
    spans: list[tuple[str, int, int]] = []
    for position, label in enumerate(labels):
        if label == "O":
            continue
        if label.startswith("I-") and spans and spans[-1][0] == label[2:] and spans[-1][2] == position:
            spans[-1] = (label[2:], spans[-1][1], position + 1)
        else:
            spans.append((label[2:], position, position + 1))
    return [
        {"type": kind, "start": start, "end": end, "text": " ".join(tokens[start:end])} for kind, start, end in spans
    ]
