"""Unpacks archives (.gz, .zip, .tar, .tar.gz, .tgz), with a limit of size, and never outside the target folder."""

import errno
import gzip
import lzma
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from finetrail.errors import UserError
from finetrail.progress import working

CHUNK = 1 << 20
MOST_MEMBERS = 1_000_000
# Bytes that common systems allow in a name and in a path; characters shown in messages.
LONGEST_NAME, LONGEST_PATH, SHOWN = 255, 1023, 60
# Limit of the headers of one member of a tar, such as its attributes, which tarfile reads into memory.
MOST_HEADER_MIB = 4
TARS = (".tar", ".tar.gz", ".tgz")
ENDINGS = (*TARS, ".zip", ".gz")


class _Limited:
    """A stream with a limit of bytes: the sizes in the headers of an archive may be wrong."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, limit_mib: int, used: int = 0) -> None:
        self.stream = stream
        self.limit_mib = limit_mib
        self.used = used
        self.header_ends: int | None = None  # at most, while tarfile reads a header

    def read(self, size: int = CHUNK, /) -> bytes:
        left = (self.limit_mib << 20) - self.used
        data = self.stream.read(min(size, left + 1))
        self.used += len(data)
        if len(data) > left:
            raise UserError(f"unpacks to more than {self.limit_mib} MiB, the recipe's max_unpacked_mib")
        if self.header_ends is not None and self.used > self.header_ends:
            raise UserError(f"a header of more than {MOST_HEADER_MIB} MiB before a member; expected names and dates")
        return data


def is_archive(name: str) -> bool:
    """Return True if a file is to be unpacked, by its extension."""
    return name.lower().endswith(ENDINGS)


def unpack(path: Path, root: Path, limit_mib: int) -> None:
    """Unpack an archive into a folder; UserError if it is damaged, hostile, or larger than the limit unpacked.

    A tar's limit is on its whole stream, because its headers can be as large as its files.
    """
    name = path.name.lower()
    unpack_kind = _unpack_tar if name.endswith(TARS) else _unpack_zip if name.endswith(".zip") else _unpack_gzip
    try:
        with working(f"unpack {path.name}"):
            unpack_kind(path, root, limit_mib)
    except (UserError, NotImplementedError) as error:  # the latter from zipfile, of a compression it does not know
        raise UserError(f"{path.name}: {error}") from None
    # ValueError: of tarfile, for an attribute that should be a number; struct.error, for a zip's sizes.
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, struct.error):
        raise _damaged(path) from None
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):
            raise
        raise _damaged(path) from None  # of gzip and bz2, and of a zip whose member begins before the file


def _damaged(path: Path) -> UserError:
    return UserError(
        f"{path.name}: a damaged or truncated archive, or not an archive; expected the format of its extension"
    )


def _unpack_tar(path: Path, root: Path, limit_mib: int) -> None:
    with path.open("rb") if path.name.lower().endswith(".tar") else gzip.open(path) as plain:
        # A stream (r|) is read once, from front to end; seeking would go around the limit.
        limited = _Limited(plain, limit_mib)
        limited.header_ends = MOST_HEADER_MIB << 20  # open() reads the first one
        with tarfile.open(fileobj=limited, mode="r|") as tar:  # type: ignore[call-overload]  # it calls read() only
            for number, member in enumerate(_members(tar, limited)):
                _check_number(number)
                if member.issparse() or not (member.isdir() or member.isreg()):
                    raise UserError(f"member {member.name!r} is a link or a special file; expected files and folders")
                _check_name(member.name, root, member.isdir())
                _write(tar.extractfile(member), root / member.name)  # extract() with a filter needs Python 3.11.4
            # tarfile (3.11) takes a damaged header for the end of the archive; after the real end there are only zeros.
            while rest := tar.fileobj.read(CHUNK):
                if rest.strip(b"\0"):
                    raise tarfile.ReadError("a header cannot be read")


def _members(tar: tarfile.TarFile, stream: _Limited) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a tar, of which it keeps none."""
    while True:
        stream.header_ends = stream.used + (MOST_HEADER_MIB << 20)
        member = tar.next()
        stream.header_ends = None
        if member is None:
            return
        yield member
        tar.members.clear()  # type: ignore[attr-defined]  # else a million of them are a gigabyte


def _unpack_zip(path: Path, root: Path, limit_mib: int) -> None:
    used = 0
    with zipfile.ZipFile(path) as archive:
        _check_number(len(archive.infolist()))
        for member in archive.infolist():
            if stat.S_ISLNK(member.external_attr >> 16):
                raise UserError(f"member {member.filename!r} is a link; expected files and folders")
            if member.flag_bits & 1:
                raise UserError(f"member {member.filename!r} is encrypted; expected an archive without a password")
            is_folder = member.filename.endswith("/")  # is_dir() raises IndexError for an empty name
            _check_name(member.filename, root, is_folder)
            if is_folder:
                _write(None, root / member.filename)
                continue
            with archive.open(member) as stream:
                limited = _Limited(stream, limit_mib, used)
                _write(limited, root / member.filename)
                used = limited.used


def _unpack_gzip(path: Path, root: Path, limit_mib: int) -> None:
    name = path.name[: -len(".gz")]
    _check_name(name, root, False)
    with gzip.open(path) as stream, (root / name).open("xb") as file:
        shutil.copyfileobj(_Limited(stream, limit_mib), file, CHUNK)


def _write(content: "IO[bytes] | _Limited | None", target: Path) -> None:
    """Write a member with the folders above it; None is the content of a folder."""
    (target.parent if content else target).mkdir(parents=True, exist_ok=True)
    if content:
        with target.open("xb") as file:
            shutil.copyfileobj(content, file, CHUNK)


def _check_number(members: int) -> None:
    if members > MOST_MEMBERS:
        raise UserError(f"more than {MOST_MEMBERS:,} files; expected fewer, or the files unpacked")


def _check_name(name: str, root: Path, is_folder: bool) -> None:
    """Raise UserError for a name that leads out of the folder, on Windows too, or that another member has."""
    for flavour in (PurePosixPath, PureWindowsPath):
        if flavour(name).anchor or ".." in flavour(name).parts or "\0" in name:
            raise UserError(f"member {name!r} would be written outside the folder; nothing of the archive is used")
    if not PurePosixPath(name).parts:
        raise UserError(f"member {name!r} has no name; expected files and folders")
    parts = PurePosixPath(name).parts
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in parts):
        raise UserError(f"member {name[:SHOWN]!r}...: a name of more than {LONGEST_NAME} bytes; expected a shorter one")
    if len(os.fsencode(name)) > LONGEST_PATH:
        raise UserError(f"member {name[:SHOWN]!r}...: a path of more than {LONGEST_PATH} bytes; expected a shorter one")
    target = root / name
    taken = target.is_file() if is_folder else target.exists()
    if taken or any(root.joinpath(*parts[:depth]).is_file() for depth in range(1, len(parts))):
        raise UserError(f"member {name!r} occurs twice; expected archives whose files do not replace each other")
