"""Finds labels that somebody may have meant as one."""

import unicodedata
from collections.abc import Mapping


def alike(labels: Mapping[str, int]) -> list[str]:
    """Return a line for each two labels or more, with how often each is there, that are equal but for blanks around
    them, upper and lower case, and their Unicode form (NFC or NFD).
    """
    groups: dict[str, list[str]] = {}
    for label in sorted(labels):
        groups.setdefault(_nfc(_nfc(label.strip()).casefold()), []).append(label)
    return [", ".join(_shown(group, labels)) for group in groups.values() if len(group) > 1]


def shown(label: str) -> str:
    """Return a label for messages, in quotes where it begins or ends with a blank, which would not be seen."""
    return label if label == label.strip() else repr(label)


def _shown(group: list[str], labels: Mapping[str, int]) -> list[str]:
    # Two forms of one text look the same.
    quoted = repr if len({*map(_nfc, group)}) == len(group) else ascii
    return [f"{quoted(label)} ({labels[label]:,})" for label in group]


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)
