"""Locates an answer in its context if its start or its text does not match exactly.

Starts may be shifted because text was cut from the beginning of the context, or may count UTF-16 units, as JavaScript
does. Texts may be surrounded by white space that the context lacks there, or have another Unicode form.
"""

import unicodedata
from bisect import bisect_left
from typing import NamedTuple

from finetrail.corpus.forms import normalized


class Place(NamedTuple):
    """Location of an answer, and how it was repaired: MOVED, UNITS, BLANKS or FORM."""

    start: int
    end: int
    mended: str


MOVED, UNITS, BLANKS, FORM = "moved", "units", "blanks", "form"


def from_utf16(start: int, context: str) -> int:
    """Return the number of characters in the first UTF-16 units of a context."""
    if start <= 0 or context.isascii():
        return start
    units = context.encode("utf-16-le")
    within = units[: 2 * start].decode("utf-16-le", errors="ignore")
    return len(within) + max(0, start - len(units) // 2)


def find(text: str, context: str, start: int, in_characters: bool) -> Place | None:
    """Return the location of a text that is not at its start; None if it is not in the context.

    It is searched in this order:

    1. at its start, in UTF-16 units, unless the start is known to count characters;
    2. at its start, ignoring white space around it or its Unicode form;
    3. at the occurrence nearest to its start, the earlier of two: as it is, else without the white space, else in
       another Unicode form.
    """
    stripped = text.strip()
    if not stripped:
        return None
    units = from_utf16(start, context)
    if not in_characters and units != start and context.startswith(text, units):
        return Place(units, units + len(text), UNITS)
    begin = start + len(text) - len(text.lstrip())
    bare = [Place(place, place + len(stripped), BLANKS) for place in _all(stripped, context)]
    forms = [Place(*span, FORM) for span in _same_form(stripped, context)]
    there = [place for place in bare + forms if place.start == begin]
    if there:
        return there[0]
    exact = [Place(place, place + len(text), MOVED) for place in _all(text, context)]
    return min(exact or bare or forms, key=lambda place: abs(place.start - start), default=None)


def _all(text: str, context: str) -> list[int]:
    places, place = [], context.find(text)
    while place >= 0:
        places.append(place)
        place = context.find(text, place + 1)
    return places


def _same_form(text: str, context: str) -> list[tuple[int, int]]:
    """Return (start, end) of all that is the text in another Unicode form (canonical equivalence)."""
    if any(all(unicodedata.is_normalized(form, part) for part in (text, context)) for form in ("NFC", "NFD")):
        return []
    parts = _clusters(context)
    decomposed = [normalized("NFD", part) for part in parts]
    borders, characters = [0], [0]  # of the clusters: in the decomposed context, and in the context
    for part, whole in zip(decomposed, parts, strict=True):
        borders.append(borders[-1] + len(part))
        characters.append(characters[-1] + len(whole))
    wanted, found = normalized("NFD", text), []
    for begin in _all(wanted, "".join(decomposed)):
        first, end = bisect_left(borders, begin), bisect_left(borders, begin + len(wanted))
        if borders[first] == begin and borders[end] == begin + len(wanted):
            found.append((characters[first], characters[end]))
    return found


def _clusters(text: str) -> list[str]:
    """Split a text before each character that canonical reordering does not cross: all but combining marks."""
    parts: list[str] = []
    for character in text:
        if parts and unicodedata.combining(unicodedata.normalize("NFD", character)[0]):
            parts[-1] += character
        else:
            parts.append(character)
    return parts
