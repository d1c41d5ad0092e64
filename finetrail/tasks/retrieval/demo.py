"""Inputs of the demo page, and the parts of an answer that it shows: the documents found for a query."""

from pathlib import Path
from typing import Any

from finetrail.tasks.retrieval.settings import Target
from finetrail.tasks.views import Row, View


def fields(target: Target) -> dict[str, str]:
    return {"query": "Query"}


def asked(row: Row, folder: Path) -> dict[str, str]:
    return {"query": row["query"]}


def views(target: Target) -> list[View]:
    return [View("Found", "table", ("similarity", "id", "document"))]


def shown(given: dict[str, str], answer: dict[str, Any], target: Target) -> list[Any]:
    texts = [f"{one['title']}: {one['text']}" if one["title"] else one["text"] for one in answer["results"]]
    return [[[round(one["score"], 4), one["id"], text] for one, text in zip(answer["results"], texts, strict=True)]]
