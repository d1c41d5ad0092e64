"""Digests of 8 bytes per example, by which duplicates within a split and between splits are counted."""

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
    """Return how many examples repeat an earlier one."""
    return len(digests) - len(np.unique(np.array(digests, dtype=np.uint64)))


def shared(first: "array[int]", second: "array[int]") -> int:
    """Return how many examples of the second are also in the first."""
    return int(np.isin(np.array(second, dtype=np.uint64), np.array(first, dtype=np.uint64)).sum())
