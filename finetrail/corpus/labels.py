"""Finds labels that somebody may have meant as one."""

import re
import unicodedata
from collections.abc import Mapping

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


def alike(labels: Mapping[str, int]) -> list[str]:
    """Return a line for each two labels or more, with how often each is there, that are equal but for blanks around
    them, characters that nobody sees, upper and lower case, and their Unicode form (NFC or NFD).
    """
    groups: dict[str, list[str]] = {}
    for label in sorted(labels):
        groups.setdefault(_nfc(_nfc(_visible(label).strip()).casefold()), []).append(label)
    return [", ".join(_shown(group, labels)) for group in groups.values() if len(group) > 1]


def shown(label: str) -> str:
    """Return a label for messages: in quotes where a blank or a mark that nobody sees is at its ends, or a control."""
    ends = label[:1] + label[-1:]
    return label if ends == _visible(ends).strip() and not CONTROL.search(label) else ascii(label)


def by_frequency(labels: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return labels with their counts, the most frequent first; equally frequent ones by name."""
    return sorted(labels.items(), key=lambda item: (-item[1], item[0]))


def _shown(group: list[str], labels: Mapping[str, int]) -> list[str]:
    # Two forms of one text look the same.
    quoted = repr if len({*map(_nfc, group)}) == len(group) else ascii
    return [f"{quoted(label)} ({labels[label]:,})" for label in group]


def _visible(text: str) -> str:
    """Leave out what nobody sees: controls, marks of writing directions, zero-width spaces and joiners."""
    return "".join(character for character in text if unicodedata.category(character) not in ("Cc", "Cf"))


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)
