"""Inputs of the demo page, and the parts of an answer that it shows: the probabilities of the labels, or the score."""

from pathlib import Path
from typing import Any

from finetrail.errors import UserError
from finetrail.tasks.text_classification.settings import Target
from finetrail.tasks.views import Row, View

TITLES = {"text": "Text", "text_pair": "Second text"}


def fields(target: Target) -> dict[str, str]:
    if "texts" not in target:
        raise UserError(
            "this folder is of an early version, which does not say whether it takes one text or two; "
            "expected a newer export, or `python -m finetrail predict`"
        )
    return {key: TITLES[key] for key in target["texts"]}


def asked(row: Row, folder: Path) -> dict[str, str]:
    return {key: row[key] for key in TITLES if key in row}


def views(target: Target) -> list[View]:
    chosen = {"single_label": "Label", "multi_label": "Labels", "regression": "Score"}[target["problem"]]
    first = View(chosen, "text")
    return [first] if target["problem"] == "regression" else [first, View("Probabilities", "probabilities")]


def shown(given: dict[str, str], answer: dict[str, Any], target: Target) -> list[Any]:
    if "score" in answer:
        return [f"{answer['score']:.4f}"]
    chosen = answer["label"] if "label" in answer else ", ".join(answer["labels"]) or "(none)"
    return [chosen, answer["probabilities"]]
