"""Checks that inputs of all tasks share: an id, known keys, texts, and their name in messages."""

from typing import Any

from finetrail.corpus.raw import as_id, require_text
from finetrail.errors import UserError


def identified(given: dict[str, Any], number: int, keys: tuple[str, ...], kind: str = "input") -> tuple[str, str]:
    """Return an input's id, or its number if it has none, and its name in messages.

    UserError if the id is neither a string nor a whole number, if a key is neither id nor one of `keys`, or if a text
    cannot be encoded as UTF-8.
    """
    name = as_id(given.get("id", number), f"{kind} {number}")
    if unknown := [key for key in given if key not in ("id", *keys)]:
        raise UserError(f"{kind} {name!r}: unknown key {unknown[0]!r}; expected id, {', '.join(keys)}")
    require_text(given, f"{kind} {name!r}")
    return name, f"{kind} {name!r}"


def text_of(given: dict[str, Any], key: str, where: str, expected: str = "expected a string") -> str:
    """Return the text of a key; UserError, which ends with `expected`, if there is none."""
    if key not in given:
        raise UserError(f"{where}: there is no {key}; {expected}")
    if not isinstance(given[key], str):
        raise UserError(f"{where}: {key} is {given[key]!r:.60}; {expected}")
    return str(given[key])
