"""Orders labels: whole numbers as numbers, so that output 10 is label 10, others as texts."""

import re
from collections.abc import Callable, Iterable

WHOLE_NUMBER = re.compile(r"[-+]?[0-9]+")


def sort_key(labels: Iterable[str]) -> Callable[[str], tuple[int, str]]:
    """Return by what to sort these labels; as numbers only where all of them are."""
    if all(WHOLE_NUMBER.fullmatch(label) for label in labels):
        return lambda label: (int(label), label)
    return lambda label: (0, label)
