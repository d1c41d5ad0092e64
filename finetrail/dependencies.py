"""Hashes the dependencies of a stage, and refuses to write if one was damaged before or has changed while it ran.

DVC hashes a stage's dependencies after its command. It would record a file that was edited meanwhile as the one that
made the output. And it reads a file again only if its time or size has changed, so it does not notice disk errors.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from finetrail import layout, params
from finetrail.errors import UserError

# Size, inode, mtime and ctime: a file with the same values was not written to, and is not read again.
Stat = tuple[int, int, int, int]


def watch(stage_name: str) -> Callable[[], None]:
    """Hash the declared files and settings of a stage; return a check that raises UserError if one has changed.

    UserError at once if DVC runs the stage and an output that it reads differs from what dvc.lock records.
    """
    paths, settings = params.declared_files(stage_name), params.declared_settings(stage_name)
    noted = {file: (stat_of(file), md5(file)) for file in files(paths)}
    # A stage that is run by hand may read outputs of another run.
    if "DVC_STAGE" in os.environ and layout.LOCK.exists():
        _check_outputs(paths, {file: digest for file, (_, digest) in noted.items()})

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


def _check_outputs(paths: Iterable[Path], known: dict[Path, str]) -> None:
    """Compare the outputs that a stage depends on with their hashes in dvc.lock."""
    stages = YAML(typ="safe").load(layout.LOCK)["stages"].values()
    recorded = {Path(out["path"]): out for one in stages for out in one.get("outs", ()) if "md5" in out}
    for output in sorted(output for output in recorded if any(path.is_relative_to(output) for path in paths)):
        there = files([output])
        # DVC itself notices missing and additional files, and applies .dvcignore.
        if len(there) != recorded[output].get("nfiles", 1):
            continue
        if _md5_of_output(output, there, known) != recorded[output]["md5"]:
            raise UserError(
                f"{output}: not what its stage has written, by its hash in dvc.lock; expected the recorded content: "
                "after a change of branches `dvc checkout` restores it; after damage to the disk or to DVC's cache, "
                "`python -m finetrail mend` removes damaged files, and `dvc repro` makes them again"
            )


def _md5_of_output(output: Path, there: list[Path], known: dict[Path, str]) -> str:
    """Return the hash of an output as DVC (3) computes it; a folder has that of its list of files."""
    if output.is_file():
        return known.get(output) or md5(output)
    found = {file.relative_to(output).as_posix(): known.get(file) or md5(file) for file in there}
    listed = [{"md5": digest, "relpath": name} for name, digest in sorted(found.items())]
    return f"{hashlib.md5(json.dumps(listed).encode(), usedforsecurity=False).hexdigest()}.dir"


def watch_read(paths: Iterable[Path], stage_name: str) -> Callable[[], None]:
    """Return a check that the files of a source have not changed since they were hashed; DVC does not track them."""
    noted = {path: stat_of(path) for path in paths}

    def check() -> None:
        for path, stat in noted.items():
            if not path.exists() or stat_of(path)[:3] != stat[:3]:
                raise UserError(f"{path} changed while {stage_name} read it; nothing was written: run it again")

    return check


def hashes(paths: Iterable[Path]) -> dict[str, str]:
    """Return the sha256 of each file, and of each file in a folder, by path."""
    return {file.as_posix(): sha256(file) for file in files(paths)}


def files(paths: Iterable[Path]) -> list[Path]:
    """Return the files among paths and in folders among them, without bytecode, which .dvcignore excludes."""
    found: list[Path] = []
    for path in paths:
        found += sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return [file for file in found if "__pycache__" not in file.parts and file.is_file()]


def sha256(file: Path) -> str:
    """Return the file's sha256."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def md5(file: Path) -> str:
    """Return the hash of a file as DVC computes it."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, partial(hashlib.md5, usedforsecurity=False)).hexdigest()


def _settings_now(stage_name: str) -> dict[str, Any]:
    try:
        return params.declared_settings(stage_name)
    except UserError:  # a file that is half edited
        return {}


def stat_of(file: Path) -> Stat:
    """Return what changes when a file is written to."""
    status = file.stat()
    return status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def _differs(file: Path, stat: Stat, digest: str) -> bool:
    try:
        return stat_of(file) != stat and md5(file) != digest
    except FileNotFoundError:
        return True
