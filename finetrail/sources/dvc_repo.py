"""Copies an output of a DVC repository, at a Git revision or experiment."""

import hashlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from dvc.fs import GitFileSystem
from dvc.fs.callbacks import TqdmCallback
from dvc_data.index import DataIndexDirError

from finetrail import schema
from finetrail.errors import UserError
from finetrail.progress import Bar
from finetrail.sources import limits, local
from finetrail.sources.provenance import Fetched, record
from finetrail.stage import FULL, remove

# Seconds to connect, and between two parts of an answer. DVC's Git (dulwich 1.2) has no limit.
TIMEOUT = 60.0


def fetch(source: schema.DvcSource, scratch: Path) -> Fetched:
    """Copy a file or a folder out of a DVC repository; UserError if the revision, the output or its data is missing."""
    if source.repo is None and source.rev is None:
        root, files = local.locate(source.path)
        if not files:
            raise UserError(f"dvc source {source.path}: not in the workspace; bring it with `dvc pull {source.path}`")
        return record(source, root, files, pinned=source.sha256)
    what = f"dvc source {source.path} at {source.rev or 'its default revision'} of {source.repo or 'this repository'}"
    key = hashlib.sha256(f"{source.repo} {source.rev} {source.path}".encode()).hexdigest()
    root = scratch / "dvc" / key
    remove(root)
    root.mkdir(parents=True)
    try:
        with _impatient():
            resolved, is_folder = _copy(source, what, root / PurePosixPath(source.path).name)
    except DvcException as error:
        raise UserError(f"{what}: {_reason(error)}") from None
    except (OSError, DataIndexDirError) as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{what}: {reason}; expected an output whose data is in the cache or remote") from None
    root = root / PurePosixPath(source.path).name if is_folder else root
    fetched = record(source, root, local.below(root), pinned=source.sha256, resolved=resolved)
    limits.check(what, fetched.provenance["bytes"], source.max_mib)
    return fetched


@contextmanager
def _impatient() -> Iterator[None]:
    """Set a timeout for sockets that have none."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _copy(source: schema.DvcSource, what: str, target: Path) -> tuple[dict[str, Any], bool]:
    """Copy the output; return its Git commit and DVC hash (or null), and whether it is a folder.

    UserError if the sizes that DVC knows exceed the limit of the recipe.
    """
    system = DVCFileSystem(repo=source.repo, rev=source.rev)
    try:
        info = system.info(source.path)
        is_folder = info["type"] == "directory"
        files = system.find(source.path, detail=True).values() if is_folder else [info]
        limits.check(what, sum(file["size"] or 0 for file in files), source.max_mib)
        # The size of the Git repository does not count, because it was cloned before.
        with (
            limits.within(what, source.max_mib),
            TqdmCallback(desc=source.path, unit="files", tqdm_cls=Bar) as progress,
        ):
            system.get(source.path, str(target), recursive=is_folder, callback=progress)
        # A local repository without a revision is its working directory, which has no commit.
        commit = system.repo.get_rev() if isinstance(system.repo.fs, GitFileSystem) else None
        return {"commit": commit, "md5": (info.get("dvc_info") or {}).get("md5")}, is_folder
    finally:
        system.close()


def _reason(error: BaseException) -> str:
    """Return DVC's message with its cause, if any: 'SCM error' alone says little."""
    cause = error.__cause__
    return f"{error}: {cause}" if cause else str(error)
