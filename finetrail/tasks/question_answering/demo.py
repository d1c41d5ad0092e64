"""What the page to try a model asks for, and shows of an answer: its place in the context, and other candidates."""

from pathlib import Path
from typing import Any

from finetrail.tasks.question_answering.settings import Target
from finetrail.tasks.views import Row, View, highlighted


def fields(target: Target) -> dict[str, str]:
    """Return the keys of an input with their titles."""
    return {"question": "Question", "context": "Context"}


def asked(row: Row, folder: Path) -> dict[str, str]:
    """Return the input that a row of the test split is."""
    return {"question": row["question"], "context": row["context"]}


def views(target: Target) -> list[View]:
    """Return what is shown of an answer."""
    return [
        View("Answer", "text"),
        View("In its context", "highlighted"),
        View("Best answers", "table", ("answer", "probability")),
    ]


def shown(given: dict[str, str], answer: dict[str, Any], target: Target) -> list[Any]:
    """Return a value for each view."""
    spans = [] if answer["start"] is None else [(answer["start"], answer["end"], "answer")]
    best = [[one["text"] or "(no answer)", round(one["confidence"], 4)] for one in answer["n_best"]]
    return [answer["answer"] or "(no answer)", highlighted(given["context"], spans), best]
