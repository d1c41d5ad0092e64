"""Inputs of the demo page, and the parts of an answer that it shows: filled masks, and the best tokens of each."""

import json
from pathlib import Path
from typing import Any

from finetrail.tasks.views import Row, View, beginning


def fields(target: None) -> dict[str, str]:
    return {"text": "Text with masks"}


def asked(row: Row, folder: Path) -> dict[str, str]:
    """Return the beginning of a text of the test split, with its longest word masked."""
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))["mask_token"]
    mask = config["content"] if isinstance(config, dict) else config
    words = beginning(row["text"]).split(" ")
    longest = max(range(len(words)), key=lambda place: len(words[place]))
    return {"text": " ".join([*words[:longest], mask, *words[longest + 1 :]])}


def views(target: None) -> list[View]:
    return [View("Filled", "text"), View("Best tokens", "table", ("mask", "token", "probability"))]


def shown(given: dict[str, str], answer: dict[str, Any], target: None) -> list[Any]:
    best = [
        [number, token, round(probability, 4)]
        for number, mask in enumerate(answer["masks"], start=1)
        for token, probability in zip(mask["tokens"], mask["probabilities"], strict=True)
    ]
    return [answer["text"], best]
