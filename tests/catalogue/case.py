"""What a case is, and what its files are made of."""

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

# Bytes, or what writes the file at a path.
Content = bytes | Callable[[Path], None]
Changes = dict[str, Any]


class Case(NamedTuple):
    """One bad input: files beside the recipe, changes to the toy recipe of a task, and what the stages say."""

    name: str
    files: dict[str, Content]
    changes: Changes  # "section.key" of the recipe -> its value
    says: str  # the line on stderr, after "error: "; if `through` ends well, a part of its log
    task: str = "text_classification"
    through: str = "download@corpus"
    ends_well: bool = False
    model: Callable[[Path], object] | None = None  # what becomes of a copy of the tiny base model


def changed(recipe: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Change a recipe by the paths of its keys."""
    for key, value in changes.items():
        *sections, name = key.split(".")
        section = recipe
        for step in sections:
            section = section[step]
        section[name] = value
    return recipe


def parquet(columns: dict[str, Any] | pa.Table, metadata: dict[str, str] | None = None, plain: bool = False) -> bytes:
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    if metadata is not None:
        table = table.replace_schema_metadata(metadata)
    sink = io.BytesIO()
    options: dict[str, Any] = {"compression": "none", "use_dictionary": False} if plain else {}
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def lines(*rows: Any) -> bytes:
    """JSON Lines; what is text already stays as it is."""
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows).encode()


def tar(*members: tuple[str, bytes, bytes], packed: bool = True) -> bytes:
    """An archive of (name, type, content); the content of a link is where it leads."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz" if packed else "w", format=tarfile.GNU_FORMAT) as archive:
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            is_link = kind in (tarfile.SYMTYPE, tarfile.LNKTYPE)
            member.linkname, member.size = (content.decode(), 0) if is_link else ("", len(content))
            archive.addfile(member, io.BytesIO(content))
    return sink.getvalue()


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return sink.getvalue()


def packed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)
