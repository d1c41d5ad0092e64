"""What the page to try a model asks for, and shows of an answer: entities, or the label of each word, in their text."""

from pathlib import Path
from typing import Any

from finetrail.tasks.views import Row, View, highlighted


def fields(target: Any) -> dict[str, str]:
    """Return the keys of an input with their titles."""
    return {"text": "Text"}


def asked(row: Row, folder: Path) -> dict[str, str]:
    """Return the input that a row of the test split is."""
    return {"text": row.get("text") or " ".join(row["tokens"])}


def views(target: Any) -> list[View]:
    """Return what is shown of an answer."""
    return [View("Found in the text", "highlighted")]


def shown(given: dict[str, str], answer: dict[str, Any], target: Any) -> list[Any]:
    """Return a value for each view."""
    if "entities" in answer:
        return [highlighted(answer["text"], [(one["start"], one["end"], one["type"]) for one in answer["entities"]])]
    words = zip(answer["starts"], answer["ends"], answer["labels"], strict=True)
    return [highlighted(answer["text"], list(words))]
