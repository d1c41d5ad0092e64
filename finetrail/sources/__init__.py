"""A pinned source (package, file, archive, URL, Hub, DVC, or a new model) -> its files here and their provenance."""

import glob
from pathlib import Path, PurePosixPath
from typing import Literal

from finetrail import schema
from finetrail.errors import UserError
from finetrail.sources.provenance import Fetched, describe, pin_hint, some

__all__ = ["Fetched", "describe", "fetch", "find", "pin_hint"]


def fetch(source: schema.ModelSource, repo_type: Literal["dataset", "model"], scratch: Path) -> Fetched:
    """Bring the files of a source to this disk and verify them; UserError if that cannot be.

    What has to be copied or unpacked goes under `scratch`; package and file sources are left where they are.
    Each kind is imported when it is asked for, so that a file does not wait for `datasets` or `dvc`.
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
    """Return the files that a path or a glob names, sorted; never none. Of a folder all below it; "." is the source's.

    A glob is taken as Python's glob takes it: * within a folder, ** across folders, neither for a name like .hidden.
    """
    known = set(fetched.files)
    exact = PurePosixPath(pattern).as_posix()
    names = {name for name in known if exact == "." or name == exact or name.startswith(f"{exact}/")}
    names = names or known.intersection(glob.glob(pattern, root_dir=fetched.root, recursive=True))
    if not names:
        there = some(fetched.files)
        raise UserError(f"{describe(fetched.provenance)}: nothing matches {pattern!r}; the files there: {there}")
    return [fetched.root / name for name in sorted(names)]
