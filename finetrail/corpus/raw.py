"""What the formats share: files as lines of text, lines as JSON objects, and the raw example that each format gives."""

import codecs
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from finetrail.errors import UserError

# id where the file has one, place, values: what each format gives before running numbers fill the ids.
Raw = tuple[str | None, str, dict[str, Any]]

CHUNK_BYTES = 1 << 20
HINT = "expected a file in that encoding; a recipe may name another as reader.encoding"


def objects(path: Path, name: str, encoding: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (file and line, JSON object) of a file with one object a line; blank lines are skipped."""
    for number, line in lines(path, name, encoding):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            example = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{where}: not JSON: {error.msg}, column {error.colno}; expected an object a line"
            ) from None
        except RecursionError:
            raise UserError(f"{where}: JSON nested too deeply; expected one flat object a line") from None
        if not isinstance(example, dict):
            raise UserError(f"{where}: {type(example).__name__}; expected one JSON object a line")
        yield where, example


def require_text(values: Any, where: str) -> None:
    r"""Raise UserError where JSON escaped half of a surrogate pair: no text, UTF-8 and Parquet cannot hold it."""
    try:
        json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise UserError(f"{where}: a lone surrogate such as \\ud83d; expected text that UTF-8 can hold") from None


def as_id(given: Any, where: str) -> str:
    """Return an id as a string; UserError where it is neither a string nor a whole number."""
    if not isinstance(given, str | int) or isinstance(given, bool):
        raise UserError(f"{where}: the id is {given!r}; expected a string or a whole number")
    return str(given)


def taken_id(values: dict[str, Any], where: str) -> str | None:
    """Take the id out of the values, as a string; None where the recipe names no id column."""
    return as_id(values.pop("id"), where) if "id" in values else None


def blocks(numbered: Iterable[tuple[int, str]], parts: Callable[[str], bool]) -> Iterator[list[tuple[int, str]]]:
    """Yield the runs of numbered lines between those that part them, which are in none."""
    block: list[tuple[int, str]] = []
    for number, line in numbered:
        if not parts(line):
            block.append((number, line))
        elif block:
            yield block
            block = []
    if block:
        yield block


def lines(path: Path, name: str, encoding: str) -> Iterator[tuple[int, str]]:
    r"""Yield (number from 1, line); only \n and \r\n end one, str.splitlines() also ends it at U+2028 and others."""
    number, rest = 0, ""
    for text in decoded(path, name, encoding):
        *whole, rest = (rest + text).split("\n")
        for line in whole:
            number += 1
            yield number, line.removesuffix("\r")
    if rest:
        yield number + 1, rest.removesuffix("\r")


def decoded(path: Path, name: str, encoding: str) -> Iterator[str]:
    """Yield a file's text in pieces, without a byte order mark; UserError with the offset of what is not text."""
    try:
        "a".encode(encoding)  # refuses those of bytes, such as base64, which the next line takes
        decoder = codecs.getincrementaldecoder(encoding)()
    except (LookupError, UnicodeError):
        raise UserError(f"reader.encoding: Python knows no encoding {encoding!r}; expected such as utf-8") from None
    with path.open("rb") as file:
        chunk = b"-"
        while chunk:
            chunk = file.read(CHUNK_BYTES)
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                # error.object ends where the file was read to, and begins with what the chunk before left over.
                offset = file.tell() - len(error.object) + error.start
                raise UserError(
                    f"{name}: the byte 0x{error.object[error.start]:02x} at offset {offset} is not {encoding}; {HINT}"
                ) from None
            except UnicodeError as error:
                raise UserError(f"{name}: {error}; {HINT}") from None
            yield text.removeprefix("\ufeff") if file.tell() == len(chunk) else text
