"""Arithmetic on ragged arrays: runs of unequal lengths, concatenated in a flat array."""

import numpy as np
import pyarrow as pa


def bounds(lengths: np.ndarray) -> np.ndarray:
    """Return the offsets of runs of these lengths, and the end of the last: [n] -> [n + 1]."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def gather(values: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Concatenate the runs values[start : start + length]."""
    offsets = np.repeat(starts - bounds(lengths)[:-1], lengths)
    return values[offsets + np.arange(len(offsets))]


def framed(body: np.ndarray, sizes: np.ndarray, prefix: list[int], suffix: list[int]) -> np.ndarray:
    """Put the prefix before and the suffix after each of the consecutive runs of these sizes in body."""
    extra = len(prefix) + len(suffix)
    ends = bounds(sizes + extra)
    framed = np.empty(ends[-1], dtype=np.int64)
    framed[np.arange(len(body)) + np.repeat(np.arange(len(sizes)) * extra + len(prefix), sizes)] = body
    for index, value in enumerate(prefix):
        framed[ends[:-1] + index] = value
    for index, value in enumerate(reversed(suffix), start=1):
        framed[ends[1:] - index] = value
    return framed


def lists(sizes: np.ndarray, values: np.ndarray) -> pa.Array:
    """Return runs of whole numbers as lists of int32."""
    return runs(sizes, pa.array(values, pa.int32()))


def runs(sizes: np.ndarray, values: pa.Array) -> pa.Array:
    """Return runs of any values as lists of these sizes."""
    return pa.ListArray.from_arrays(pa.array(bounds(sizes), pa.int32()), values)
