"""Small corpora of each task, made from a seed: JSON Lines files of sentences about people and places."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]

PEOPLE = ("Anna", "Mary Ann", "Kofi", "Lee", "Ingrid", "Joan of Arc", "Omar", "Wanda")
PLACES = ("Paris", "New York", "Oslo", "Lake Geneva", "Quito", "Seoul", "Munich", "Cape Town")
TEMPLATES = (
    "{person} lives in {place} .",
    "yesterday {person} met {other} near {place} , the old station was closed",
    "{place} is far from the town of {person} !",
    "we saw {person} walking slowly through {place} with a friend and a dog",
    "nobody but {person} was at home .",
    "the train to {place} left without {person}",
    "ask {person} or {other} about it",
)


def sentences(count: int) -> list[str]:
    """Return so many sentences, the same each time."""
    draw = random.Random(0)
    return [
        draw.choice(TEMPLATES).format(person=draw.choice(PEOPLE), other=draw.choice(PEOPLE), place=draw.choice(PLACES))
        for _ in range(count)
    ]


def tagged(texts: list[str]) -> Rows:
    words = [text.split() for text in texts]
    return [{"tokens": of, "labels": ["B-NAME" if word[:1].isupper() else "O" for word in of]} for of in words]


def plain(texts: list[str]) -> Rows:
    return [{"text": text} for text in texts]


def labelled(texts: list[str]) -> Rows:
    return [{"text": text, "label": "travel" if "train" in text or "far" in text else "other"} for text in texts]


def questions(texts: list[str]) -> Rows:
    """Ask for the word after the first blank of a context."""
    rows = []
    for text in texts:
        start = text.index(" ") + 1
        answer = text[start:].split(" ")[0]
        rows.append({"question": "who was it ?", "context": text, "answers": [{"text": answer, "start": start}]})
    return rows


def pairs(texts: list[str]) -> Rows:
    return [{"query": " ".join(text.split()[-3:]), "document": f"{text} {i}"} for i, text in enumerate(texts)]


def completions(texts: list[str]) -> Rows:
    return [{"prompt": " ".join(text.split()[:3]), "completion": text} for text in texts]


ROWS: dict[str, Callable[[list[str]], Rows]] = {
    "token_classification": tagged,
    "masked_lm": plain,
    "text_classification": labelled,
    "question_answering": questions,
    "retrieval": pairs,
    "text_generation": completions,
}


def write(task: str, count: int, path: Path) -> None:
    """Write a task's corpus of so many examples."""
    lines = (json.dumps(row) for row in ROWS[task](sentences(count)))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
