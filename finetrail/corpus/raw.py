"""Code that all formats share: reading files as lines of text or JSON, and the raw example that each format yields."""

import codecs
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from finetrail import json_errors
from finetrail.errors import UserError

# (id or None, place, values) of an example; an id of None is replaced by a running number.
Raw = tuple[str | None, str, dict[str, Any]]

CHUNK_BYTES = 1 << 20
# Codecs of Python's that turn text into text: no file is written in one.
NO_ENCODINGS = ("idna", "punycode", "raw_unicode_escape", "unicode_escape")
# The longer mark of UTF-32 begins with that of UTF-16.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
PACKED = {b"\x1f\x8b": "a gzip archive", b"PK\x03\x04": "a zip archive, or a file of an office program"}
SHOWN_NAMES = 20
SHOWN_LENGTH = 40


def objects(path: Path, name: str, encoding: str | None, instead: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (file and line, JSON object) of a file with one object per line; blank lines are skipped.

    `instead` is appended to the message for a file that is an array of objects.
    """
    for number, line in lines(path, name, encoding):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        if line.lstrip().startswith("["):
            raise UserError(f"{where}: a JSON array; expected one JSON object per line{instead}")
        try:
            example = loads(line)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{where}: not JSON: {json_errors.described(error)}; expected one object per line"
            ) from None
        except RecursionError:
            raise UserError(f"{where}: JSON nested too deeply; expected one flat object per line") from None
        except ValueError as error:
            raise UserError(f"{where}: {error}") from None
        if not isinstance(example, dict):
            raise UserError(f"{where}: {type(example).__name__}; expected one JSON object per line")
        yield where, example


def document(path: Path, name: str, encoding: str | None, instead: str = "") -> Any:
    """Read a file with one JSON value; UserError with the line if it is invalid.

    `instead` is appended to the message for a file with several values.
    """
    try:
        return loads("".join(decoded(path, name, encoding)))
    except json.JSONDecodeError as error:
        several = instead if error.msg.startswith("Extra data") else ""
        raise UserError(
            f"{name}:{error.lineno}: not JSON: {json_errors.described(error)}; expected one value{several}"
        ) from None
    except RecursionError:
        raise UserError(f"{name}: JSON nested too deeply; expected arrays of plain objects") from None
    except ValueError as error:
        raise UserError(f"{name}: {error}") from None


def loads(text: str) -> Any:
    """Parse a JSON value; ValueError for duplicate keys in an object, and numbers of thousands of digits."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except ValueError as error:
        if "integer string conversion" not in str(error):
            raise
        raise ValueError("a number of thousands of digits; expected a smaller one, or a text in quotes") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise ValueError(
            f"the key {max(counts, key=counts.__getitem__)!r:.60} occurs twice in an object; expected once"
        )
    return found


def at_path(example: dict[str, Any], path: str, where: str) -> Any:
    """Return the value of a key, or of a dotted path of keys in nested objects; null if one of them is null."""
    if path in example:
        return example[path]
    value: Any = example
    inside = ""
    for key in path.split("."):
        if value is None:
            return None
        if not isinstance(value, dict):
            raise UserError(f"{where}: {value!r:.60}{inside}; expected an object with the key {key!r}")
        if key not in value:
            raise UserError(f"{where}: no key {key!r}{inside}; the keys there are {listed(value)}")
        value, inside = value[key], f" in {key!r}"
    return value


def listed(names: Iterable[str]) -> str:
    """Return names in quotes, for messages: only the first of many, and the beginning of long ones."""
    quoted = [repr(name if len(name) <= SHOWN_LENGTH else f"{name[:SHOWN_LENGTH]}...") for name in names]
    more = f" and {len(quoted) - SHOWN_NAMES} more" if len(quoted) > SHOWN_NAMES else ""
    return ", ".join(quoted[:SHOWN_NAMES]) + more or "none"


def parts(columns: Mapping[str, Any]) -> list[Any]:
    """Return the distinct names, paths or numbers in a reader's columns, in the order of their declaration."""
    return list(dict.fromkeys(part for given in columns.values() for part in _as_list(given)))


def selected(columns: Mapping[str, Any], found: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """Return the task's columns from the values of their parts; the texts of a list of parts are joined by spaces."""
    return {
        column: _joined([found[part] for part in given], column, where) if isinstance(given, list) else found[given]
        for column, given in columns.items()
    }


def _as_list(given: Any) -> list[Any]:
    return given if isinstance(given, list) else [given]


def _joined(texts: list[Any], column: str, where: str) -> str:
    for text in texts:
        if text is not None and not isinstance(text, str):
            raise UserError(f"{where}: {text!r:.60} is not a string; expected strings to join as {column}")
    return " ".join(text for text in texts if text and not text.isspace())


def require_text(values: Any, where: str) -> None:
    r"""Raise UserError for a lone surrogate, which JSON can escape but UTF-8 and Parquet cannot hold."""
    try:
        json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise UserError(f"{where}: a lone surrogate such as \\ud83d; expected text that UTF-8 can hold") from None


def with_more(example: dict[str, Any], key: str) -> dict[str, Any]:
    """Return an object's values together with those of the object under one key, if any, such as metadata of tools."""
    inside = example.get(key)
    return (inside if isinstance(inside, dict) else {}) | example


def as_id(given: Any, where: str) -> str:
    """Return an id as a string; UserError if it is neither a string nor a whole number."""
    if not isinstance(given, str | int) or isinstance(given, bool):
        raise UserError(f"{where}: the id is {given!r:.60}; expected a string or a whole number")
    if given == "":
        raise UserError(f"{where}: the id is empty; expected a string or a whole number")
    return str(given)


def taken_id(values: dict[str, Any], where: str) -> str | None:
    """Remove the id from the values and return it as a string; None if the recipe names no id column."""
    return as_id(values.pop("id"), where) if "id" in values else None


def blocks(numbered: Iterable[tuple[int, str]], parts: Callable[[str], bool]) -> Iterator[list[tuple[int, str]]]:
    """Yield the runs of numbered lines between separators; `parts` returns True for a separator."""
    block: list[tuple[int, str]] = []
    for number, line in numbered:
        if not parts(line):
            block.append((number, line))
        elif block:
            yield block
            block = []
    if block:
        yield block


def lines(path: Path, name: str, encoding: str | None) -> Iterator[tuple[int, str]]:
    r"""Yield (number from 1, line); only \n and \r\n end one, str.splitlines() also ends it at U+2028 and others.

    In a file that begins with a chunk without any \n, \r ends one, as classic Mac OS wrote it.
    """
    number, end = 0, ""
    rest: list[str] = []  # pieces of an unfinished line, joined once
    for text in decoded(path, name, encoding):
        end = end or ("\r" if "\r" in text[:-1] and "\n" not in text else "\n")
        if end == "\r" and "\n" in text:
            raise UserError(
                f"{name}: the first lines end with \\r alone, and later ones with \\n; expected one of them"
            )
        first, *others = text.split(end)
        rest.append(first)
        if others:
            *whole, last = ["".join(rest), *others]
            rest = [last]
            for line in whole:
                number += 1
                yield number, line.removesuffix("\r")
    if left := "".join(rest):
        yield number + 1, left.removesuffix("\r")


def decoded(path: Path, name: str, declared: str | None) -> Iterator[str]:
    """Yield a file's text in chunks, without a byte order mark; UserError with the offset of invalid bytes.

    `declared` is reader.encoding, None for formats that are always UTF-8.
    """
    hint = "expected text in that encoding" + ("; a recipe may name another as reader.encoding" if declared else "")
    with path.open("rb") as file:
        chunk = file.read(CHUNK_BYTES)
        encoding = _encoding(chunk[:4], name, declared)
        decoder = codecs.getincrementaldecoder(encoding)()
        while True:
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                # error.object begins with the rest of the previous chunk, and ends where reading stopped.
                offset = file.tell() - len(error.object) + error.start
                raise UserError(
                    f"{name}: the byte 0x{error.object[error.start]:02x} at offset {offset} is not {encoding}; {hint}"
                ) from None
            except UnicodeError:  # of utf-16 and utf-32, which need the mark
                raise UserError(f"{name}: not {encoding}: it has no byte order mark; {hint}") from None
            yield text.removeprefix("\ufeff") if file.tell() == len(chunk) else text
            if not chunk:
                return
            chunk = file.read(CHUNK_BYTES)


def _encoding(beginning: bytes, name: str, declared: str | None) -> str:
    """Return the encoding of the byte order mark, or else the declared one; UserError if it is invalid."""
    for magic, kind in PACKED.items():
        if beginning.startswith(magic):
            raise UserError(f"{name}: {kind}; unpack it, or name it in a source of kind: archive or url")
    for mark, encoding in MARKS.items():
        if beginning.startswith(mark):
            return encoding
    encoding = declared or "utf-8"
    try:
        "a".encode(encoding)  # refuses those of bytes, such as base64, which the next line takes
        decoder = codecs.getincrementaldecoder(encoding)()
        if codecs.lookup(encoding).name.replace("-", "_") in NO_ENCODINGS:
            raise LookupError
    except (LookupError, ValueError):  # the latter of a name with a NUL, and of UnicodeError
        raise UserError(f"reader.encoding: Python knows no encoding {encoding!r}; expected such as utf-8") from None
    with suppress(UnicodeError):  # reported with its place when it is read
        if "\0" in decoder.decode(beginning):
            instead = "reader.encoding: utf-16-le or utf-16-be" if declared else "UTF-8"
            raise UserError(
                f"{name}: NULs between the letters, as in UTF-16, and it is read as {encoding}; expected {instead}"
            )
    return encoding
