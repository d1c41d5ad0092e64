"""What the page to try a model asks for, and shows of an answer: the documents found for a query."""

from pathlib import Path
from typing import Any

from finetrail.tasks.retrieval.settings import Target
from finetrail.tasks.views import Row, View


def fields(target: Target) -> dict[str, str]:
    """Return the keys of an input with their titles."""
    return {"query": "Query"}


def asked(row: Row, folder: Path) -> dict[str, str]:
    """Return the input that a row of the test split is."""
    return {"query": row["query"]}


def views(target: Target) -> list[View]:
    """Return what is shown of an answer."""
    return [View("Found", "table", ("similarity", "id", "document"))]


def shown(given: dict[str, str], answer: dict[str, Any], target: Target) -> list[Any]:
    """Return a value for each view."""
    texts = [f"{one['title']}: {one['text']}" if one["title"] else one["text"] for one in answer["results"]]
    return [[[round(one["score"], 4), one["id"], text] for one, text in zip(answer["results"], texts, strict=True)]]
