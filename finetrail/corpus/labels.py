"""Finds labels that may have been meant to be the same."""

import re
import unicodedata
from collections.abc import Mapping

from finetrail.corpus.forms import normalized

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def alike(labels: Mapping[str, int]) -> list[str]:
    """Return one line for each group of labels, with their counts, that differ only in surrounding white space,
    invisible characters, case, and Unicode form (NFC or NFD).
    """
    groups: dict[str, list[str]] = {}
    for label in sorted(labels):
        groups.setdefault(_nfc(_nfc(_visible(label).strip()).casefold()), []).append(label)
    return [", ".join(_shown(group, labels)) for group in groups.values() if len(group) > 1]


def shown(label: str) -> str:
    """Return a label for messages: quoted if it has controls, or blanks or invisible characters at its ends."""
    ends = label[:1] + label[-1:]
    return label if ends == _visible(ends).strip() and not CONTROL.search(label) else ascii(label)


def by_frequency(labels: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return labels with their counts, the most frequent first, ties in alphabetical order."""
    return sorted(labels.items(), key=lambda item: (-item[1], item[0]))


def _shown(group: list[str], labels: Mapping[str, int]) -> list[str]:
    # Two Unicode forms of one text look the same.
    quoted = repr if len({*map(_nfc, group)}) == len(group) else ascii
    return [f"{quoted(label)} ({labels[label]:,})" for label in group]


def _visible(text: str) -> str:
    """Remove invisible characters: controls, marks of writing directions, zero-width spaces and joiners."""
    return "".join(character for character in text if unicodedata.category(character) not in ("Cc", "Cf"))


def _nfc(text: str) -> str:
    return normalized("NFC", text)
