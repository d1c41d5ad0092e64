"""Turns what dvc.yaml declares for a stage into hashes, and says what changed while the stage ran.

DVC hashes a stage's dependencies after its command. It would record a file that was edited meanwhile as the one that
made the output.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from finetrail import params
from finetrail.errors import UserError

# Size, inode, times of writing and of change: a file that has kept them was not written to, and is not read again.
Stat = tuple[int, int, int, int]


def watch(stage_name: str) -> Callable[[], None]:
    """Note the declared files and settings of a stage; return a check that raises UserError if one has changed."""
    paths, settings = params.declared_files(stage_name), params.declared_settings(stage_name)
    noted = {file: (_stat(file), sha256(file)) for file in files(paths)}

    def check() -> None:
        settings_now = _settings_now(stage_name)
        changed = [key for key, value in settings.items() if settings_now.get(key) != value]
        now = set(files(paths))
        changed += sorted(file.as_posix() for file in now ^ set(noted))
        changed += [file.as_posix() for file in sorted(now & set(noted)) if _differs(file, *noted[file])]
        if changed:
            others = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            raise UserError(
                f"{changed[0]}{others} changed while {stage_name} ran, and DVC would record that as what made the "
                "output; nothing was written: run it again, or undo the change before"
            )

    return check


def watch_read(paths: Iterable[Path], stage_name: str) -> Callable[[], None]:
    """Return a check that a source's files, whose hashes are recorded, were not written to since; DVC watches none."""
    noted = {path: _stat(path) for path in paths}

    def check() -> None:
        for path, stat in noted.items():
            if not path.exists() or _stat(path)[:3] != stat[:3]:
                raise UserError(f"{path} changed while {stage_name} read it; nothing was written: run it again")

    return check


def hashes(paths: Iterable[Path]) -> dict[str, str]:
    """Return the sha256 of each file, and of those in folders, by its path."""
    return {file.as_posix(): sha256(file) for file in files(paths)}


def files(paths: Iterable[Path]) -> list[Path]:
    """Return the files among paths and in the folders among them, without what .dvcignore leaves out: bytecode."""
    found: list[Path] = []
    for path in paths:
        found += sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return [file for file in found if "__pycache__" not in file.parts and file.is_file()]


def sha256(file: Path) -> str:
    """Return the file's sha256."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _settings_now(stage_name: str) -> dict[str, Any]:
    try:
        return params.declared_settings(stage_name)
    except UserError:  # a file that is being edited
        return {}


def _stat(file: Path) -> Stat:
    status = file.stat()
    return status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def _differs(file: Path, stat: Stat, digest: str) -> bool:
    try:
        return _stat(file) != stat and sha256(file) != digest
    except FileNotFoundError:
        return True
