"""Inputs of the demo page, and the parts of an answer it shows: entities, or the label of each word, in their text."""

from pathlib import Path
from typing import Any

from finetrail.tasks.token_classification.settings import Target
from finetrail.tasks.views import Row, View, highlighted


def fields(target: Target) -> dict[str, str]:
    return {"text": "Text"}


def asked(row: Row, folder: Path) -> dict[str, str]:
    return {"text": row.get("text") or " ".join(row["tokens"])}


def views(target: Target) -> list[View]:
    return [View("Found in the text", "highlighted"), View("One by one", "table", ("text", "label", "confidence"))]


def shown(given: dict[str, str], answer: dict[str, Any], target: Target) -> list[Any]:
    if "entities" in answer:
        found = [tuple(one[key] for key in ("start", "end", "type", "confidence")) for one in answer["entities"]]
    else:
        found = list(zip(*(answer[key] for key in ("starts", "ends", "labels", "confidences")), strict=True))
    text = answer["text"]
    rows = [[text[start:end], label, round(confidence, 4)] for start, end, label, confidence in found]
    return [highlighted(text, [one[:3] for one in found]), rows or [["(nothing found)", "", ""]]]
