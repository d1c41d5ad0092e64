"""Bounds the length of a text after a tokenizer's normalizer, pre-tokenizer or decoder, from its tokenizer.json."""

import re
from math import ceil, prod
from typing import Any

MOST = 1000  # characters made of one; those of tokenizers in use are at most 20
# Parts that contain others, which are applied one after the other.
LISTS = ("normalizers", "pretokenizers", "decoders")


def growth(part: Any) -> int:
    """Return the largest number of characters that a normalizer, pre-tokenizer or decoder makes of one.

    Only parts for which a file gives text count; the others are Unicode's forms, with at most 18. RecursionError if
    they are nested too deeply.
    """
    if not isinstance(part, dict):
        return 1
    inside = prod(growth(one) for name in LISTS if isinstance(part.get(name), list) for one in part[name])
    return inside * (_of_replacement(part) if part.get("type") == "Replace" else 1)


def _of_replacement(part: dict[str, Any]) -> int:
    """Return the growth of a replaced pattern; one that matches the empty text also matches between all characters."""
    content, pattern = part.get("content"), part.get("pattern")
    if not isinstance(content, str) or not isinstance(pattern, dict):
        return 1
    if isinstance(text := pattern.get("String"), str) and text:
        return max(1, ceil(len(content) / len(text)))
    try:
        finds_nothing = re.search(str(pattern.get("Regex", "")), "") is not None
    except (re.error, OverflowError):  # tokenizers knows patterns that Python does not
        finds_nothing = False
    return max(1, len(content)) + (len(content) if finds_nothing else 0)
