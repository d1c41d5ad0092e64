"""Bounds what a tokenizer makes of a text before it looks tokens up, by what its tokenizer.json says."""

import re
from math import ceil, prod
from typing import Any

MOST = 1000  # characters of one; tokenizers in use make up to 20
# Parts that hold others, which are applied one behind the other.
LISTS = ("normalizers", "pretokenizers", "decoders")


def growth(part: Any) -> int:
    """Return how many characters a normalizer, pre-tokenizer or decoder makes of one, at most.

    Of those that a file can give text to; others are Unicode's own forms, with 18 at most. RecursionError where they
    are nested too deeply.
    """
    if not isinstance(part, dict):
        return 1
    inside = prod(growth(one) for name in LISTS if isinstance(part.get(name), list) for one in part[name])
    return inside * (_of_replacement(part) if part.get("type") == "Replace" else 1)


def _of_replacement(part: dict[str, Any]) -> int:
    """Return the growth of a pattern that is replaced; one of no characters is found between all others too."""
    content, pattern = part.get("content"), part.get("pattern")
    if not isinstance(content, str) or not isinstance(pattern, dict):
        return 1
    if isinstance(text := pattern.get("String"), str) and text:
        return max(1, ceil(len(content) / len(text)))
    try:
        finds_nothing = re.search(str(pattern.get("Regex", "")), "") is not None
    except (re.error, OverflowError):  # tokenizers has patterns that Python has not
        finds_nothing = False
    return max(1, len(content)) + (len(content) if finds_nothing else 0)
