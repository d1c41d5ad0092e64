"""Inputs of the demo page, and the parts of an answer that it shows: how it continues a prompt, or answers it."""

from pathlib import Path
from typing import Any

from finetrail.tasks.text_generation.settings import Target
from finetrail.tasks.views import Row, View, beginning, highlighted


def fields(target: Target) -> dict[str, str]:
    return {"prompt": "Message" if target["chat"] else "Prompt"}


def asked(row: Row, folder: Path) -> dict[str, str]:
    """Return the prompt of a row of the test split, what its user says first, or the beginning of its text."""
    said = [message["content"] for message in row.get("messages") or [] if message["role"] == "user"]
    return {"prompt": row.get("prompt") or (said[0] if said else beginning(row["text"]))}


def views(target: Target) -> list[View]:
    return [View("Answer", "text")] if target["chat"] else [View("Continuation", "highlighted")]


def shown(given: dict[str, str], answer: dict[str, Any], target: Target) -> list[Any]:
    if target["chat"]:
        return [answer["text"]]
    whole = given["prompt"] + answer["text"]
    return [highlighted(whole, [(len(given["prompt"]), len(whole), "continuation")] if answer["text"] else [])]
