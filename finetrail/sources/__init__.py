"""Fetches a pinned source (package, file, archive, URL, Hub, DVC, or a new model) with its provenance."""

import glob
from pathlib import Path, PurePosixPath
from typing import Literal

from finetrail import schema
from finetrail.errors import UserError
from finetrail.sources.provenance import Fetched, describe, pin_hint, some

__all__ = ["Fetched", "describe", "fetch", "find", "pin_hint"]


def fetch(source: schema.ModelSource, repo_type: Literal["dataset", "model"], scratch: Path) -> Fetched:
    """Fetch the files of a source to the local disk and verify them; UserError on failure.

    Copies and unpacked files go to `scratch`; files of package and file sources stay where they are.
    Each module is imported when it is needed, so that a file source does not wait for `datasets` or `dvc`.
    """
    match source:
        case schema.PackageSource():
            from finetrail.sources import package

            return package.fetch(source)
        case schema.FileSource():
            from finetrail.sources import local

            return local.fetch(source)
        case schema.ArchiveSource():
            from finetrail.sources import local

            return local.fetch_archives(source, scratch)
        case schema.UrlSource():
            from finetrail.sources import url

            return url.fetch(source, scratch)
        case schema.HubSource():
            from finetrail.sources import hub

            return hub.fetch(source, repo_type, scratch)
        case schema.DvcSource():
            from finetrail.sources import dvc_repo

            return dvc_repo.fetch(source, scratch)
        case schema.NewSource():
            from finetrail.sources import new

            return new.fetch(source, scratch)


def find(fetched: Fetched, pattern: str) -> list[Path]:
    """Return the files that match a path or a glob, sorted; for a folder, all files below it; "." is the whole source.

    Globs are those of Python: * within a folder, ** across folders, neither matches names like .hidden. UserError if
    nothing matches.
    """
    known = set(fetched.files)
    exact = PurePosixPath(pattern).as_posix()
    names = {name for name in known if exact == "." or name == exact or name.startswith(f"{exact}/")}
    names = names or known.intersection(glob.glob(pattern, root_dir=fetched.root, recursive=True))
    if not names:
        there = some(fetched.files)
        raise UserError(f"{describe(fetched.provenance)}: nothing matches {pattern!r}; the files there: {there}")
    return [fetched.root / name for name in sorted(names)]
