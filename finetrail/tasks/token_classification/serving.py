"""Turns people's sentences into rows of the corpus, and predictions into labelled words and entities.

It also writes entities in the forms of annotation tools, so that a model helps to annotate its next corpus.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, get_args

import pyarrow as pa

from finetrail.corpus.words import UNKNOWN_RULE, Rule, cut
from finetrail.errors import UserError
from finetrail.tasks.inputs import identified, text_of
from finetrail.tasks.token_classification.corpus import OF_TEXTS
from finetrail.tasks.token_classification.settings import OFFSETS, Target, has_entities, is_without_scheme

# Optional in tasks/contract.py, and not used here.
documents = None

KEYS = ("tokens", "text")
EXPECTED = 'expected {"tokens": ["...", "..."]} or {"text": "..."}'


def probe(target: Target) -> dict[str, Any]:
    return {"text": "A probe."}


def text_input(text: str) -> dict[str, Any]:
    return {"text": text}


def examples_for(target: Target) -> Callable[[list[dict[str, Any]]], pa.Table]:
    """Return examples() with the rule for words of the corpus, as the target has it, or else with UNKNOWN_RULE."""
    rule = target.get("words", UNKNOWN_RULE) if isinstance(target, Mapping) else UNKNOWN_RULE
    if rule not in get_args(Rule):
        raise UserError(f"target: words is {rule!r:.60}; expected one of {', '.join(get_args(Rule))}")
    return partial(examples, rule=rule)


def examples(inputs: list[dict[str, Any]], rule: Rule = UNKNOWN_RULE) -> pa.Table:
    """Return inputs {"tokens": [...]} or {"text": ...} as rows of the corpus.

    If both are given, the tokens are used, because people know words better than a rule does.
    """
    rows = []
    for number, given in enumerate(inputs):
        name, where = identified(given, number, KEYS)
        words = {"tokens": _tokens(given, where)} if "tokens" in given else _words(given, where, rule)
        rows.append({"id": name, "labels": None, **words})
    return pa.Table.from_pylist(rows, OF_TEXTS)


def answers(predictions: pa.Table) -> list[dict[str, Any]]:
    """Return tokens, labels and confidences (softmax) per input and, if labels are IOB2 tags, its entities.

    For a text, return also the text, and where each token starts and ends in it. An entity has a type, start, end, text
    and confidence, the mean of its tokens'. In a text, start and end count characters: text[start:end] is the entity.
    For tokens, tokens[start:end] are those of the entity, and its text joins them by blanks.
    """
    found, entities = [], not is_without_scheme(predictions.schema.metadata)
    if entities:  # predictions of earlier versions do not say so
        entities = has_entities([label for labels in predictions["predictions"].to_pylist() for label in labels])
    names = [
        "id",
        "tokens",
        "predictions",
        "confidences",
        *(name for name in OFFSETS if name in predictions.schema.names),
    ]
    for row in predictions.select(names).to_pylist():
        row["labels"] = row.pop("predictions")
        answer = {name: value for name, value in row.items() if value is not None}
        found.append(answer | ({"entities": _entities(row)} if entities else {}))
    return found


def _tokens(given: dict[str, Any], where: str) -> list[str]:
    tokens = given["tokens"]
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise UserError(f"{where}: tokens is {tokens!r:.60}; {EXPECTED}")
    return tokens


def _words(given: dict[str, Any], where: str, rule: Rule) -> dict[str, Any]:
    text = text_of(given, "text", where, EXPECTED)
    words = cut(text, rule)
    starts, ends = ([word[side] for word in words] for side in (0, 1))
    return {"tokens": [text[start:end] for start, end in words], "text": text, "starts": starts, "ends": ends}


def _entities(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the entities as conlleval reads labels: I- continues an entity of its type, or begins one."""
    spans: list[tuple[str, int, int]] = []
    for position, label in enumerate(row["labels"]):
        if label == "O":
            continue
        if label.startswith("I-") and spans and spans[-1][0] == label[2:] and spans[-1][2] == position:
            spans[-1] = (label[2:], spans[-1][1], position + 1)
        else:
            spans.append((label[2:], position, position + 1))
    return [{"type": kind, **_place(row, first, end)} for kind, first, end in spans]


def _place(row: dict[str, Any], first: int, end: int) -> dict[str, Any]:
    """Return the entity of tokens[first:end], by characters if they are of a text."""
    confidences = row["confidences"][first:end]
    place = {"start": first, "end": end, "text": " ".join(row["tokens"][first:end])}
    if row.get("text") is not None:
        start, last = row["starts"][first], row["ends"][end - 1]
        place = {"start": start, "end": last, "text": row["text"][start:last]}
    return place | {"confidence": sum(confidences) / len(confidences)}


# --- what annotation tools take -----------------------------------------------------------------------------------


def doccano(found: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield answers as lines of doccano's JSONL, whose offsets count UTF-16 units."""
    for answer in found:
        text, entities = _annotatable(answer)
        spans = [[_utf16(text, one["start"]), _utf16(text, one["end"]), one["type"]] for one in entities]
        yield json.dumps({"id": answer["id"], "text": text, "label": spans}, ensure_ascii=False)


def label_studio(found: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield answers as a JSON array of Label Studio's tasks with predictions, a line each.

    Names are those of its template for named entities. A task's score is the confidence of its least certain token.
    """
    separator = "["
    for answer in found:
        text, entities = _annotatable(answer)
        result = [_region(number, entity) for number, entity in enumerate(entities)]
        prediction = {"model_version": "finetrail", "score": min(answer["confidences"], default=1.0), "result": result}
        task = {"data": {"text": text, "id": answer["id"]}, "predictions": [prediction]}
        yield separator + json.dumps(task, ensure_ascii=False)
        separator = ","
    yield "]" if separator == "," else "[]"


def _region(number: int, entity: dict[str, Any]) -> dict[str, Any]:
    value = {"start": entity["start"], "end": entity["end"], "text": entity["text"], "labels": [entity["type"]]}
    names = {"id": f"entity-{number}", "from_name": "label", "to_name": "text", "type": "labels"}
    return names | {"value": value, "score": entity["confidence"]}


def _annotatable(answer: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """Return text and entities of an answer; UserError if it lacks one of them."""
    if "entities" not in answer:
        raise UserError("--format: the model labels words, and has no entities; expected the format jsonl")
    if "text" not in answer:
        raise UserError(f"input {answer['id']!r}: tokens, whose characters no tool could count; expected a text")
    return answer["text"], answer["entities"]


def _utf16(text: str, place: int) -> int:
    return len(text[:place].encode("utf-16-le")) // 2


# The option --format of finetrail.predict: answers -> the lines of a file.
FORMATS = {"doccano": doccano, "label_studio": label_studio}
