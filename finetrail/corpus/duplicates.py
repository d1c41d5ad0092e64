"""Turns examples into digests of 8 bytes, by which they are counted within a split and between splits."""

import json
from array import array
from hashlib import blake2b
from typing import Any

import numpy as np


def digest(content: Any) -> int:
    """Return 64 bits of the content, a string or a list of them: the same in every process, unlike hash()."""
    # JSON keeps ["a b"] and ["a", "b"] apart.
    text = json.dumps(content, ensure_ascii=False)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest())


def duplicates(digests: "array[int]") -> int:
    """Return how many of the examples stand there a second time or more."""
    return len(digests) - len(np.unique(np.array(digests, dtype=np.uint64)))


def shared(first: "array[int]", second: "array[int]") -> int:
    """Return how many examples of the second also stand in the first."""
    return int(np.isin(np.array(second, dtype=np.uint64), np.array(first, dtype=np.uint64)).sum())
