"""Reads SQuAD's JSON (1.1, 2.0, KorQuAD 1.0) as raw records, one per question."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetrail.corpus.raw import Raw, as_id, document, listed, require_text
from finetrail.errors import UserError
from finetrail.schema import SquadReader

TYPES = {str: "a string", list: "a list", int: "a whole number", dict: "an object"}


def squad(path: Path, name: str, _: SquadReader) -> Iterator[Raw]:
    """Yield title, question, context and answers (text, start) of each question; no answers if it is impossible.

    The file is one JSON value, so that it is read whole. Places are paths in it: data[0].paragraphs[1].qas[2].
    """
    content = document(path, name, None)
    for in_article, article in _items(content, "data", f"{name}: "):
        title = _get(article, "title", str, in_article) if "title" in article else ""
        for in_paragraph, paragraph in _items(article, "paragraphs", f"{in_article}."):
            context = _get(paragraph, "context", str, in_paragraph)
            for where, question in _items(paragraph, "qas", f"{in_paragraph}."):
                values = {
                    "title": title,
                    "question": _get(question, "question", str, where),
                    "context": context,
                    "answers": _answers(question, where),
                    **_ignored(question),
                }
                require_text(values, where)
                yield as_id(question.get("id"), where), where, values


def _answers(question: dict[str, Any], where: str) -> list[dict[str, Any]]:
    impossible = question.get("is_impossible", False)
    if not isinstance(impossible, bool):
        raise UserError(f"{where}: is_impossible is {impossible!r:.60}; expected true or false")
    if impossible:
        return []
    return [
        {"text": _get(answer, "text", str, place), "start": _get(answer, "answer_start", int, place)}
        for place, answer in _items(question, "answers", f"{where}.")
    ]


def _ignored(question: dict[str, Any]) -> dict[str, int]:
    """Return the number of answers of a question that is marked as impossible; an empty dict if there are none."""
    answers = question.get("answers")
    count = len(answers) if question.get("is_impossible") is True and isinstance(answers, list) else 0
    return {"answers_ignored": count} if count else {}


def _items(parent: Any, key: str, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place, object) of the objects in a list."""
    for index, item in enumerate(_get(parent, key, list, where.rstrip(".: "))):
        place = f"{where}{key}[{index}]"
        if not isinstance(item, dict):
            raise UserError(f"{place}: {item!r:.60}; expected an object")
        yield place, item


def _get(parent: Any, key: str, kind: type, where: str) -> Any:
    if not isinstance(parent, dict):
        raise UserError(f"{where}: {type(parent).__name__}; expected an object with {key!r}")
    if key not in parent:
        raise UserError(f"{where}: no {key!r}; the keys there are {listed(parent)}")
    if not isinstance(parent[key], kind) or isinstance(parent[key], bool):
        raise UserError(f"{where}: {key} is {parent[key]!r:.60}; expected {TYPES[kind]}")
    return parent[key]
