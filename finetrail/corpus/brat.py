"""Reads brat's standoff format (.txt and .ann files) as raw records of texts with spans, one per document."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from finetrail.corpus.annotated import RELATIONS, annotated
from finetrail.corpus.raw import Raw, decoded, lines
from finetrail.corpus.spans import Misfit, Span
from finetrail.errors import UserError
from finetrail.schema import BratReader

TEXT_BOUND = re.compile(r"T\S*\t(\S+) ([0-9]{1,18} [0-9]{1,18}(?:;[0-9]{1,18} [0-9]{1,18})*)(?:\t(.*))?")
# An id is a letter and a number. A line without an id may be the rest of a text that has a line end.
OTHER = re.compile(r"(?:[REAMN]\d\S*|\*)\t.*|#.*")
OTHER_LINES = {
    "R": RELATIONS,
    "*": RELATIONS,
    "E": "events",
    "A": "attributes",
    "M": "attributes",
    "N": "normalizations",
    "#": "notes",
}
DISCONTINUOUS = "discontinuous"


def brat(path: Path, name: str, reader: BratReader) -> Iterator[Raw]:
    """Yield the document of a .txt file, whose id is its path without the extension; nothing for other files.

    Offsets count characters, including those of line ends. brat splits a span at line ends: parts with only white space
    between them are joined.
    """
    if path.suffix != ".txt":
        return
    annotations, name_of_annotations = path.with_suffix(".ann"), f"{name.removesuffix('.txt')}.ann"
    if not annotations.is_file():
        raise UserError(f"{name}: there is no {name_of_annotations}; expected it beside, empty if there are no spans")
    text = "".join(decoded(path, name, reader.encoding))
    left_out: Counter[str] = Counter()
    misfits: list[Misfit] = []
    spans = []
    for number, line in lines(annotations, name_of_annotations, reader.encoding):
        where = f"{name_of_annotations}:{number}"
        if line[:1] == "T":
            spans += _spans(line, text, where, reader, misfits)
        elif OTHER.fullmatch(line):
            left_out[OTHER_LINES[line[0]]] += 1
        elif line.strip():
            raise UserError(f"{where}: {line!r:.60}; expected an annotation of brat: T1, R1, E1, A1, M1, N1, * or #")
    yield name.removesuffix(".txt"), name, annotated(text, spans, left_out, misfits=misfits)


def _spans(line: str, text: str, where: str, reader: BratReader, misfits: list[Misfit]) -> list[Span]:
    """Return the span of a text-bound annotation; an empty list if it is discontinuous and dropped."""
    match = TEXT_BOUND.fullmatch(line)
    if match is None:
        raise UserError(f"{where}: {line!r:.60}; expected an id, a tab, 'LABEL START END', a tab and the text")
    label, places, stated = match.groups()
    parts = [tuple(map(int, part.split(" "))) for part in places.split(";")]
    between = "".join(text[end:start] for (_, end), (start, _) in zip(parts, parts[1:], strict=False))
    if not between.strip():
        return [Span(parts[0][0], parts[-1][1], label, stated)]
    shown = f"{stated!r:.60} ({label})"
    if reader.discontinuous == "refuse":
        raise UserError(f"{where}: {shown} is in parts; expected none, or reader.discontinuous: cover or drop")
    whole = text[parts[0][0] : parts[-1][1]]
    cover = reader.discontinuous == "cover"
    misfits.append(Misfit(DISCONTINUOUS, f"{shown}, {f'taken as {whole!r:.60}' if cover else 'dropped'}"))
    return [Span(parts[0][0], parts[-1][1], label)] if cover else []
