"""Sorts labels: integers by value, so that output 10 is label 10, others as strings."""

import re
from collections.abc import Callable, Iterable

WHOLE_NUMBER = re.compile(r"[-+]?[0-9]+")


def sort_key(labels: Iterable[str]) -> Callable[[str], tuple[int, str]]:
    """Return the sort key of these labels: by value if all of them are integers."""
    if all(WHOLE_NUMBER.fullmatch(label) for label in labels):
        return lambda label: (int(label), label)
    return lambda label: (0, label)
