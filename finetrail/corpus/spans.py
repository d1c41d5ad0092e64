"""Turns labelled character spans of a text into a tag for each of its words, and tells which spans do not fit words."""

from bisect import bisect_left, bisect_right
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from finetrail.corpus.words import characters
from finetrail.schema import SpanRules

# Problems of a span; all but REPEATED are keys of the recipe, whose values choose what is done.
EMPTY, BLANKS, INSIDE, OVERLAPPING, REPEATED = "empty", "blanks", "inside_words", "overlapping", "repeated"
# Spans that do not end at words, but would if their offsets counted other units than the recipe declares.
OTHER_UNITS = "other_units"
REFUSED = {
    EMPTY: "a span without text",
    BLANKS: "a span with white space around it",
    INSIDE: "a span that does not end at words",
    OVERLAPPING: "spans that share words",
}
UNITS = ("characters", "utf16", "graphemes")

Word = tuple[int, int]


class Span(NamedTuple):
    """A labelled part of a text: [start, end) in the reader's units, and its text if the file states it."""

    start: int
    end: int
    label: str
    text: str | None = None


class Misfit(NamedTuple):
    """A span that was mended or dropped: the reason, and a description of what was done."""

    kind: str
    shown: str


class Placed(NamedTuple):
    """A span as words: [first, end)."""

    first: int
    end: int
    label: str


def tag(text: str, words: list[Word], spans: list[Span], rules: SpanRules) -> tuple[list[str], list[Misfit]]:
    """Return the IOB2 tag of each word, and the spans that did not fit as they were.

    ValueError if a span is not in the text, has another text than it states, or does not fit and the recipe refuses.
    """
    misfits: list[Misfit] = []
    placed = []
    for span in spans:
        start, end = _in_characters(text, span, rules.units)
        known = len(misfits)
        if found := _place(text, words, Span(start, end, span.label), rules, misfits):
            placed.append(found)
        is_inside = any(misfit.kind == INSIDE for misfit in misfits[known:])
        if is_inside and (units := _other_units(text, span, words, rules.units)):
            misfits.append(Misfit(OTHER_UNITS, f"{_shown(text, start, end, span.label)}, a word by {units}"))
    tags = ["O"] * len(words)
    for first, end, label in _apart(text, words, placed, rules, misfits):
        tags[first:end] = [f"B-{label}", *[f"I-{label}"] * (end - first - 1)]
    return tags, misfits


class Borders(NamedTuple):
    """Boundaries of units that are also boundaries of characters, in order, as the number of units and characters."""

    units: NDArray[np.int64]
    characters: NDArray[np.int64]

    def get(self, unit: int) -> int | None:
        """Convert an offset in units into one in characters; None inside a character, and outside the text."""
        if not 0 <= unit <= self.units[-1]:
            return None
        place = np.searchsorted(self.units, unit)
        return int(self.characters[place]) if self.units[place] == unit else None


# Cached for the current text, because each of its spans needs it.
@lru_cache(maxsize=len(UNITS))
def _borders(text: str, units: str) -> Borders:
    places = np.arange(len(text) + 1)
    if units == "characters":
        return Borders(places, places)
    if units == "graphemes":
        starts = np.array([*(start for start, _ in characters(text)), len(text)])
        return Borders(np.arange(len(starts)), starts)
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    return Borders(np.append(0, np.cumsum(1 + (codes > 0xFFFF))), places)


def _in_characters(text: str, span: Span, units: str) -> tuple[int, int]:
    borders = _borders(text, units)
    start, end = borders.get(span.start), borders.get(span.end)
    if start is None or end is None or start > end:
        raise ValueError(
            f"the span [{span.start}, {span.end}] {span.label} is not in its text, of {borders.units[-1]} in {units}; "
            f"expected 0 <= start <= end{_hint(text, span, units)}"
        )
    if span.text is not None and not _same(span.text, text[start:end]):
        raise ValueError(
            f"the span [{span.start}, {span.end}] {span.label} is {text[start:end]!r:.60} in the text, and "
            f"{span.text!r:.60} in the annotation; expected the same{_hint(text, span, units)}"
        )
    return start, end


def _hint(text: str, span: Span, declared: str) -> str:
    """Return what to write into the recipe if a span is right in other units."""
    for units, known in _others(text, declared):
        start, end = known.get(span.start), known.get(span.end)
        if start is not None and end is not None:
            there = text[start:end]
            if span.text is None or _same(span.text, there):
                return f"; in {units} it is {there!r:.60}: perhaps reader.spans.units: {units}"
    return ""


@lru_cache(maxsize=1)
def _others(text: str, declared: str) -> list[tuple[str, Borders]]:
    """Return the borders for each other unit that counts this text differently."""
    known = _borders(text, declared)
    found = [(units, _borders(text, units)) for units in UNITS if units != declared]
    return [(units, borders) for units, borders in found if not all(map(np.array_equal, borders, known))]


def _same(stated: str, there: str) -> bool:
    r"""Compare texts ignoring white space: brat writes a line end as a blank, Label Studio as a backslash and an n."""
    bare = ["".join(text.replace("\\n", " ").split()) for text in (stated, there)]
    return bare[0] == bare[1]


def _other_units(text: str, span: Span, words: list[Word], declared: str) -> str | None:
    """Return the units in which a span would be whole words."""
    for units, known in _others(text, declared):
        start, end = known.get(span.start), known.get(span.end)
        if start is None or end is None:
            continue
        first, last = (bisect_left(words, place, key=itemgetter(side)) for side, place in ((0, start), (1, end)))
        if max(first, last) < len(words) and words[first][0] == start and words[last][1] == end:
            return units
    return None


def _place(text: str, words: list[Word], span: Span, rules: SpanRules, misfits: list[Misfit]) -> Placed | None:
    """Return the words of a span in characters; None if it is dropped. A span that does not fit is added to misfits."""
    inside = text[span.start : span.end]
    shown = _shown(text, span.start, span.end, span.label)
    if not inside.strip():
        _act(rules.empty, EMPTY, shown, "dropped", misfits)
        return None
    start = span.start + len(inside) - len(inside.lstrip())
    end = start + len(inside.strip())
    if (start, end) != (span.start, span.end):
        _act(rules.blanks, BLANKS, shown, _done(text, start, end, rules.blanks), misfits)
        if rules.blanks == "drop":
            return None
    first = bisect_right(words, start, key=itemgetter(1))
    end_word = bisect_left(words, end, key=itemgetter(0))
    whole = words[first][0], words[end_word - 1][1]
    if whole != (start, end):
        _act(rules.inside_words, INSIDE, shown, _done(text, *whole, rules.inside_words), misfits)
        if rules.inside_words == "drop":
            return None
    return Placed(first, end_word, span.label)


def _apart(text: str, words: list[Word], placed: list[Placed], rules: SpanRules, misfits: list[Misfit]) -> list[Placed]:
    """Return spans that share no word: of overlapping ones the longest, and of equally long ones the first."""
    kept: list[Placed] = []
    taken: dict[int, Placed] = {}  # word -> the span that has it
    for span in sorted(placed, key=lambda one: one.first - one.end):
        other = next((taken[word] for word in range(span.first, span.end) if word in taken), None)
        shown = _shown(text, words[span.first][0], words[span.end - 1][1], span.label)
        if other == span:
            misfits.append(Misfit(REPEATED, shown))
        elif other is not None:
            kept_one = _shown(text, words[other.first][0], words[other.end - 1][1], other.label)
            _act(rules.overlapping, OVERLAPPING, f"{shown} and {kept_one}", "of which the second is kept", misfits)
        else:
            kept.append(span)
            taken.update(dict.fromkeys(range(span.first, span.end), span))
    return kept


def _act(rule: str, kind: str, shown: str, done: str, misfits: list[Misfit]) -> None:
    """Add a misfit, or raise ValueError if the recipe refuses it."""
    if rule == "refuse":
        raise ValueError(f"{shown}: {REFUSED[kind]}; expected none, or another reader.spans.{kind} than refuse")
    misfits.append(Misfit(kind, f"{shown}, {done}"))


def _shown(text: str, start: int, end: int, label: str) -> str:
    return f"{text[start:end]!r:.60} ({label})"


def _done(text: str, start: int, end: int, rule: str) -> str:
    return "dropped" if rule == "drop" else f"taken as {text[start:end]!r:.60}"
