"""Reads plain text as raw records: one per file, line or paragraph."""

from collections.abc import Iterator
from pathlib import Path

from finetrail.corpus.raw import Raw, blocks, lines, taken_id
from finetrail.schema import TextReader


def text(path: Path, name: str, reader: TextReader) -> Iterator[Raw]:
    r"""Yield the units of a file, with \n between their lines and no blank lines around them.

    A file without text is an example with an empty text, so that it is counted; blank lines are no examples.
    """
    about_file = {"folder": path.absolute().parent.name, "stem": path.stem}
    for number, unit in _units(path, name, reader):
        where = name if reader.unit == "file" else f"{name}:{number}"
        facts = about_file | {"text": "\n".join(unit), "first_line": unit[0], "rest": "\n".join(_trimmed(unit[1:]))}
        values = {column: facts[fact] for column, fact in reader.columns.items()}
        yield taken_id(values, where), where, values


def _units(path: Path, name: str, reader: TextReader) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of the first line, lines) of each unit."""
    numbered = lines(path, name, reader.encoding)
    if reader.unit == "file":
        yield 1, _trimmed([line for _, line in numbered]) or [""]
    elif reader.unit == "line":
        yield from ((number, [line]) for number, line in numbered if not _is_blank(line))
    else:
        for block in blocks(numbered, _is_blank):
            yield block[0][0], [line for _, line in block]


def _trimmed(unit: list[str]) -> list[str]:
    """Return the lines from the first to the last that is not blank."""
    full = [number for number, line in enumerate(unit) if not _is_blank(line)]
    return unit[full[0] : full[-1] + 1] if full else []


def _is_blank(line: str) -> bool:
    return not line.strip()
