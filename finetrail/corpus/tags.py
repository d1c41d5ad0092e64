"""Turns chunk tags of the schemes IOB1, IOB2 and IOBES (BIOES, BILOU) into IOB2, reading them as conlleval does."""

from functools import lru_cache

SHAPES = {
    "iob1": "O, B-TYPE or I-TYPE",
    "iob2": "O, B-TYPE or I-TYPE",
    "iobes": "O, B-TYPE, I-TYPE, E-TYPE or S-TYPE (L- and U- also)",
}
PREFIXES = {"iob1": "BI", "iob2": "BI", "iobes": "BIESLU"}
BILOU = {"L": "E", "U": "S"}


def to_iob2(labels: list[str], scheme: str) -> tuple[list[str], list[int]]:
    """Return the labels of one sentence as IOB2, and the positions (from 0) of labels that their scheme forbids there.

    A chunk is read as conlleval reads it (Tjong Kim Sang and Buchholz 2000): I-X or E-X begins one after O, after
    another type and after the end of a chunk. A chunk that lacks its E- counts at the label after it, or at the last.
    Raises ValueError with the position and the shapes expected, where a label has none of them.
    """
    normalised, impossible = [], []
    before = "O"
    for position, label in enumerate(labels):
        try:
            tag, possible = _step(before, label, scheme)
        except ValueError as error:
            raise ValueError(f"label {position} is {label!r}; {error}") from None
        normalised.append(tag)
        if not possible:
            impossible.append(position)
        before = label
    if labels and labels[-1] != "O" and not _step(before, "O", scheme)[1]:
        impossible.append(len(labels) - 1)
    return normalised, impossible


# Pairs of labels are few, and tokens many.
@lru_cache(maxsize=1 << 16)
def _step(before: str, label: str, scheme: str) -> tuple[str, bool]:
    """Return the IOB2 label, and whether the scheme allows `label` after `before` ("O" at a sentence's beginning)."""
    last, last_type = _parts(before, scheme)
    prefix, chunk_type = _parts(label, scheme)
    is_open = last in "BI"
    goes_on = prefix in "IE" and is_open and chunk_type == last_type
    tag = "O" if prefix == "O" else f"{'I' if goes_on else 'B'}-{chunk_type}"
    if scheme == "iob1":  # B- only parts a chunk from one of the same type just before it
        return tag, prefix != "B" or (last != "O" and chunk_type == last_type)
    if scheme == "iob2":
        return tag, prefix != "I" or goes_on
    return tag, goes_on if is_open else prefix in "OBS"


def _parts(label: str, scheme: str) -> tuple[str, str]:
    if label == "O":
        return "O", ""
    prefix, hyphen, chunk_type = label.partition("-")
    if len(prefix) != 1 or prefix not in PREFIXES[scheme] or not hyphen or not chunk_type:
        raise ValueError(f"expected {SHAPES[scheme]} in the scheme {scheme}")
    return BILOU.get(prefix, prefix), chunk_type
