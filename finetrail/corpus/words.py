"""Splits texts into words by a declared rule, with their offsets: for corpora of spans, and for inference.

The rules need no tokenizer, so that download can tell which spans end at words, and all base models get the same words.
"""

from collections.abc import Iterator
from typing import Literal

import regex

Rule = Literal["unicode", "punctuation", "characters"]

# The rule by which raw texts are split into words if the corpus came as words.
UNKNOWN_RULE: Rule = "unicode"

# Default word boundaries of Unicode (UAX #29): neither 3.5 nor don't is parted, ideographs are words of their own.
BOUNDARY = regex.compile(r"\b", regex.WORD)
# regex (2026.11) keeps it with a vowel that follows, where Unicode separates the two: 'Oslo' in quotes.
QUOTE = regex.compile(r"['\u2019](?=\p{L})")
# Not all symbols, because an emoji may consist of several.
MARK = regex.compile(r"\p{P}|[$+<=>^`|~]")
# A character as a reader perceives it (an extended grapheme cluster of UAX #29).
CHARACTER = regex.compile(r"\X")


# regex (2026.11) counts all regional indicators before each one, so that 100,000 of them take minutes. Two are a flag.
FLAGS, MOST_FLAGS = regex.compile("[\U0001f1e6-\U0001f1ff]{256,}"), 128


def characters(text: str) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of each perceived character (CHARACTER)."""
    return (
        (first + match.start(), first + match.end())
        for first, part in _parts(text)
        for match in CHARACTER.finditer(part)
    )


def cut(text: str, rule: Rule) -> list[tuple[int, int]]:
    """Return (start, end) of each word in a text, in characters; white space is in none."""
    pieces: Iterator[tuple[int, int]]
    if rule == "characters":
        pieces = characters(text)
    else:
        borders = [first + match.start() for first, part in _parts(text) for match in BOUNDARY.finditer(part)]
        pieces = _between(text, [*borders, *(border + 1 for border in borders if QUOTE.match(text, border))])
        if rule == "punctuation":
            pieces = (part for start, end in pieces for part in _without_marks(text, start, end))
    return [(start, end) for start, end in pieces if not text[start:end].isspace()]


def _parts(text: str) -> Iterator[tuple[int, str]]:
    """Yield (start, part) of a text that is split between flags if very many follow each other."""
    start = 0
    for run in FLAGS.finditer(text):
        for border in range(run.start() + MOST_FLAGS, run.end(), MOST_FLAGS):
            yield start, text[start:border]
            start = border
    yield start, text[start:]


def _between(text: str, borders: list[int]) -> Iterator[tuple[int, int]]:
    """Yield the pieces between borders, including those before the first and after the last one."""
    edges = sorted({0, *borders, len(text)})
    yield from zip(edges, edges[1:], strict=False)


def _without_marks(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the pieces of a word, each punctuation mark by itself."""
    for match in MARK.finditer(text, start, end):
        if start < match.start():
            yield start, match.start()
        yield match.span()
        start = match.end()
    if start < end:
        yield start, end
