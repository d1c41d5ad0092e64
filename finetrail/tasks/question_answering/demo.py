"""Inputs of the demo page, and the parts of an answer that it shows: its place in the context, and other candidates."""

from pathlib import Path
from typing import Any

from finetrail.tasks.question_answering.settings import Target
from finetrail.tasks.views import Row, View, highlighted


def fields(target: Target) -> dict[str, str]:
    return {"question": "Question", "context": "Context"}


def asked(row: Row, folder: Path) -> dict[str, str]:
    return {"question": row["question"], "context": row["context"]}


def views(target: Target) -> list[View]:
    return [
        View("Answer", "text"),
        View("In its context", "highlighted"),
        View("Best answers", "table", ("answer", "probability")),
    ]


def shown(given: dict[str, str], answer: dict[str, Any], target: Target) -> list[Any]:
    spans = [] if answer["start"] is None else [(answer["start"], answer["end"], "answer")]
    best = [[one["text"] or "(no answer)", round(one["confidence"], 4)] for one in answer["n_best"]]
    return [answer["answer"] or "(no answer)", highlighted(given["context"], spans), best]
