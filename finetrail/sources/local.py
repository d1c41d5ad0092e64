"""A file, a folder or a glob on this disk -> its files, left where they are; archives -> copies of theirs."""

import glob
import hashlib
import os
from pathlib import Path

from finetrail import schema
from finetrail.errors import UserError
from finetrail.sources import archives
from finetrail.sources.provenance import Fetched, hash_file, record
from finetrail.stage import remove


def fetch(source: schema.FileSource) -> Fetched:
    """List the files of a path or a glob; UserError if there are none, or if the path is an archive."""
    root, files = locate(source.path)
    if not files:
        raise UserError(f"file source {source.path}: no such file; expected a file, a folder or a glob that matches")
    if Path(source.path).is_file() and archives.is_archive(source.path):
        raise UserError(
            f"file source {source.path}: an archive; unpack it, or name it in a source of kind: archive, which has "
            "path, sha256 and max_unpacked_mib"
        )
    return record(source, root, files, pinned=source.sha256)


def fetch_archives(source: schema.ArchiveSource, scratch: Path) -> Fetched:
    """Unpack an archive, or all that a glob names; UserError if one is damaged, hostile, larger unpacked, or none."""
    root, files = locate(source.path)
    if not files:
        raise UserError(f"archive source {source.path}: no such file; expected {', '.join(archives.ENDINGS)}")
    for name in files:
        if not archives.is_archive(name):
            endings = ", ".join(archives.ENDINGS)
            raise UserError(f"archive source {source.path}: {name} is no archive; expected {endings}, or kind: file")
    hashed = [hash_file(root, name) for name in files]
    unpacked = scratch / "unpacked" / hashlib.sha256(source.path.encode()).hexdigest()
    remove(unpacked)
    unpacked.mkdir(parents=True)
    for name in files:
        archives.unpack(root / name, unpacked, source.max_unpacked_mib)
    return record(source, unpacked, below(unpacked), pinned=source.sha256, served=hashed)


def locate(pattern: str) -> tuple[Path, list[str]]:
    """Return the folder that a file, a folder or a glob stands in, and the files below it (none if there are none)."""
    path = Path(pattern)
    if path.is_file():
        return path.parent, [path.name]
    if path.is_dir():
        return path, below(path)
    plain = []
    for part in path.parts:
        if glob.has_magic(part):
            break
        plain.append(part)
    root = Path(*plain)
    matches = (Path(match) for match in glob.glob(pattern, recursive=True))
    return root, sorted(match.relative_to(root).as_posix() for match in matches if match.is_file())


def below(root: Path) -> list[str]:
    """Return all files below a folder, sorted, without Python's bytecode; links to folders are followed."""
    walk = os.walk(root, followlinks=True)
    paths = (Path(folder, name).relative_to(root) for folder, _, names in walk for name in names)
    return sorted(path.as_posix() for path in paths if "__pycache__" not in path.parts)
