"""What people's inputs have in common, whatever the task: an id, known keys, texts, and how messages name them."""

from typing import Any

from finetrail.corpus.raw import as_id, require_text
from finetrail.errors import UserError


def identified(given: dict[str, Any], number: int, keys: tuple[str, ...], kind: str = "input") -> tuple[str, str]:
    """Return an input's id, its number where it has none, and what messages call it.

    UserError where the id is neither a string nor a whole number, where a key is neither id nor one of `keys`, or where
    a text is none that UTF-8 can hold.
    """
    name = as_id(given.get("id", number), f"{kind} {number}")
    if unknown := [key for key in given if key not in ("id", *keys)]:
        raise UserError(f"{kind} {name!r}: unknown key {unknown[0]!r}; expected id, {', '.join(keys)}")
    require_text(given, f"{kind} {name!r}")
    return name, f"{kind} {name!r}"


def text_of(given: dict[str, Any], key: str, where: str, expected: str = "expected a string") -> str:
    """Return the text under a key; UserError that ends with what was expected where there is none."""
    if key not in given:
        raise UserError(f"{where}: there is no {key}; {expected}")
    if not isinstance(given[key], str):
        raise UserError(f"{where}: {key} is {given[key]!r:.60}; {expected}")
    return str(given[key])
