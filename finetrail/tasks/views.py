"""The kinds of values that a task's demo.py shows of an answer; the page has a component for each."""

from typing import Any, Literal, NamedTuple

# text: a string. highlighted: (text, label or None) pairs that join to a text. probabilities: a number per label.
# table: rows.
Kind = Literal["text", "highlighted", "probabilities", "table"]
Row = dict[str, Any]
BEGINNING = 40  # words of a long text that are enough for an example


class View(NamedTuple):
    """One part of an answer: its title, its kind and, for a table, the names of its columns."""

    title: str
    kind: Kind
    columns: tuple[str, ...] = ()


def beginning(text: str) -> str:
    """Return the first BEGINNING words of a text."""
    return " ".join(text.split()[:BEGINNING])


def highlighted(text: str, spans: list[tuple[int, int, str]]) -> list[tuple[str, str | None]]:
    """Split a text into (text, label) pairs by sorted spans (start, end, label)."""
    parts: list[tuple[str, str | None]] = []
    place = 0
    for start, end, label in spans:
        parts += [(text[place:start], None), (text[start:end], label)]
        place = end
    return [part for part in [*parts, (text[place:], None)] if part[0]]
