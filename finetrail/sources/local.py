"""A file, a folder or a glob on this disk -> its files, left where they are; archives -> copies of theirs."""

import glob
import hashlib
import os
import re
import stat
from pathlib import Path

from finetrail import schema
from finetrail.errors import UserError
from finetrail.sources import archives
from finetrail.sources.provenance import Fetched, hash_file, record
from finetrail.stage import remove

SYSTEM = ("/proc", "/sys", "/dev")
# Where links of a folder may lead besides the folder: to files that are named by their hashes, as DVC's cache and the
# Hub's name them.
CACHED = re.compile(r"/([0-9a-f]{2}/[0-9a-f]{30}|blobs/[0-9a-f]{40}([0-9a-f]{24})?)\Z")


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
    """Return the folder of a file, folder or glob, and the files below it, which may be none."""
    path = Path(pattern)
    try:
        if path.is_file():
            return path.parent, [path.name]
        if path.is_dir():
            return path, below(path)
    except OSError as error:  # a name that is too long
        raise UserError(f"file source {pattern:.100}: {error.strerror}; expected a file, a folder or a glob") from None
    if "\0" in pattern:
        raise UserError(f"file source {pattern!r}: a NUL in a name; expected a file, a folder or a glob")
    plain = []
    for part in path.parts:
        if glob.has_magic(part):
            break
        plain.append(part)
    root = Path(*plain)
    _refuse_system(root)
    matches = [Path(match) for match in glob.glob(pattern, recursive=True)]
    within = root.resolve()
    found = [_inside(match, within) for match in matches if match.is_file()]
    return root, sorted(match.relative_to(root).as_posix() for match in found)


def below(root: Path) -> list[str]:
    """Return all files below a folder, sorted, without Python's bytecode; links to folders are followed.

    UserError for pipes and devices, for links that form a cycle, and for links to files outside the folder and known
    caches.
    """
    _refuse_system(root)
    found, within = [], root.resolve()
    for folder, folders, names in os.walk(root, followlinks=True):
        if "__pycache__" in folders:
            folders.remove("__pycache__")
        for name in (name for name in folders if os.path.islink(os.path.join(folder, name))):
            if Path(folder).resolve().is_relative_to(Path(folder, name).resolve()):
                raise UserError(f"{Path(folder, name)}: a link to a folder that it is in; expected no such link")
        files = [_inside(_regular(Path(folder, name)), within) for name in names]
        found += [file.relative_to(root).as_posix() for file in files]
    return sorted(found)


def _regular(path: Path) -> Path:
    try:
        mode = path.stat().st_mode
        os.fsencode(path).decode()
    except UnicodeDecodeError:
        raise UserError(f"{os.fsencode(path)!r}: a name that is not UTF-8; expected one that is") from None
    except OSError as error:  # a link to nothing, or to itself
        raise UserError(f"{path}: {error.strerror}; expected a file that can be read") from None
    if not stat.S_ISREG(mode):
        raise UserError(f"{path}: a pipe, a socket or a device; expected files")
    return path


def _inside(path: Path, within: Path) -> Path:
    """Return the path of a file; UserError if links lead to one that is neither below the folder nor in a cache."""
    leads_to = os.path.realpath(path)
    if not leads_to.startswith(os.path.join(within, "")) and not CACHED.search(leads_to):
        raise UserError(
            f"{path}: a link out of the folder; expected a file, or a link into the cache of DVC or of the Hub: "
            "name the file itself as the source's path if you trust it"
        )
    return path


def _refuse_system(folder: Path) -> None:
    """Raise UserError for the root, and where files are the kernel's: reading them all takes hours, or never ends."""
    found = folder.resolve()
    in_memory = found.is_relative_to("/dev/shm")
    if found == Path(found.anchor) or any(found.is_relative_to(system) and not in_memory for system in SYSTEM):
        raise UserError(f"{folder}: a folder of the system; expected a folder of data, or a glob below one")
