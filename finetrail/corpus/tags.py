"""Turns chunk tags of the schemes IOB1, IOB2, IOBES (BIOES), BILOU and IO into IOB2, reading them as conlleval does."""

import re
from functools import lru_cache

PREFIXES = {"iob1": "BI", "iob2": "BI", "iobes": "BIESLU", "bilou": "BILU", "io": "I"}
ALL_PREFIXES = "BIESLU"
# The IOBES names of L- and U-.
BILOU = {"L": "E", "U": "S"}
# How most files write a label; TYPE-B and B_TYPE are other shapes.
SHAPE = "B-TYPE"
OTHER_SHAPE = re.compile(f"[{ALL_PREFIXES}][^A-Za-z0-9-].+|.+[^A-Za-z0-9][{ALL_PREFIXES}]")


def to_iob2(labels: list[str], scheme: str, shape: str = SHAPE) -> tuple[list[str], list[int]]:
    """Return the labels of one sentence as IOB2, and the positions (from 0) of labels that their scheme forbids there.

    A chunk is read as conlleval reads it (Tjong Kim Sang and Buchholz 2000): I-X or E-X begins one after O, after
    another type and after the end of a chunk. A chunk that lacks its E- counts at the label after it, or at the last.
    In IO, neighbours of one type are one chunk. `shape` is how a label is written: B-TYPE, TYPE-B, B_TYPE.
    Raises ValueError with the position and the shapes expected, where a label has none of them.
    """
    normalised, impossible = [], []
    before = "O"
    for position, label in enumerate(labels):
        try:
            tag, possible = _step(before, label, scheme, shape)
        except ValueError as error:
            raise ValueError(f"label {position} is {label!r}; {error}") from None
        normalised.append(tag)
        if not possible:
            impossible.append(position)
        before = label
    if labels and labels[-1] != "O" and not _step(before, "O", scheme, shape)[1]:
        impossible.append(len(labels) - 1)
    return normalised, impossible


# Pairs of labels are few, and tokens many.
@lru_cache(maxsize=1 << 16)
def _step(before: str, label: str, scheme: str, shape: str) -> tuple[str, bool]:
    """Return the IOB2 label, and whether the scheme allows `label` after `before` ("O" at a sentence's beginning)."""
    last, last_type = _parts(before, scheme, shape)
    prefix, chunk_type = _parts(label, scheme, shape)
    is_open = last in "BI"
    goes_on = prefix in "IE" and is_open and chunk_type == last_type
    tag = "O" if prefix == "O" else f"{'I' if goes_on else 'B'}-{chunk_type}"
    if scheme == "iob1":  # B- only parts a chunk from one of the same type just before it
        return tag, prefix != "B" or (last != "O" and chunk_type == last_type)
    if scheme == "io":
        return tag, True
    if scheme == "iob2":
        return tag, prefix != "I" or goes_on
    return tag, goes_on if is_open else prefix in "OBS"


def _parts(label: str, scheme: str, shape: str) -> tuple[str, str]:
    """Return prefix and type of a label, L and U as E and S; a label of IO may be its type alone."""
    if label == "O":
        return "O", ""
    prefix, chunk_type = _split(label, shape)
    if scheme == "io" and label and prefix not in tuple(ALL_PREFIXES):
        return "I", label
    if len(prefix) != 1 or prefix not in PREFIXES[scheme] or not chunk_type:
        hint = "; TYPE-B and the like are declared as corpus.tags.scheme.shape" if OTHER_SHAPE.fullmatch(label) else ""
        raise ValueError(f"expected {_shapes(scheme, shape)} in the scheme {scheme}{hint}")
    return BILOU.get(prefix, prefix), chunk_type


def _split(label: str, shape: str) -> tuple[str, str]:
    """Return prefix and type; "" for both if the label lacks the separator of the shape."""
    if shape.startswith("B"):
        prefix, found, chunk_type = label.partition(shape[1 : -len("TYPE")])
    else:
        chunk_type, found, prefix = label.rpartition(shape[len("TYPE") : -1])
    return (prefix, chunk_type) if found else ("", "")


def _shapes(scheme: str, shape: str) -> str:
    prefixes = PREFIXES[scheme].removesuffix("LU") if scheme == "iobes" else PREFIXES[scheme]
    shapes = ["O", *(["TYPE"] if scheme == "io" else []), *(shape.replace("B", prefix) for prefix in prefixes)]
    also = " (L and U also)" if scheme == "iobes" else ""
    return f"{', '.join(shapes[:-1])} or {shapes[-1]}{also}"
