"""Turns what dvc.yaml declares for a stage into hashes, and says what was damaged before or changed while it ran.

DVC hashes a stage's dependencies after its command. It would record a file that was edited meanwhile as the one that
made the output. And it reads a file again only where its time or size has changed, so that it sees no damage of a disk.
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

# Size, inode, times of writing and of change: a file that has kept them was not written to, and is not read again.
Stat = tuple[int, int, int, int]


def watch(stage_name: str) -> Callable[[], None]:
    """Note the declared files and settings of a stage; return a check that raises UserError if one has changed.

    UserError at once where DVC runs the stage and an earlier output is not what that stage has written.
    """
    paths, settings = params.declared_files(stage_name), params.declared_settings(stage_name)
    noted = {file: (stat_of(file), md5(file)) for file in files(paths)}
    if "DVC_STAGE" in os.environ and layout.LOCK.exists():  # by hand, dvc.lock may be of another run
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
    """Hold the outputs that a stage depends on against dvc.lock, which has them since their stages ended."""
    stages = YAML(typ="safe").load(layout.LOCK)["stages"].values()
    recorded = {Path(out["path"]): out for one in stages for out in one.get("outs", ()) if "md5" in out}
    for output in sorted(output for output in recorded if any(path.is_relative_to(output) for path in paths)):
        there = files([output])
        # Whether a folder lacks a file, or has another one, DVC sees itself, and it knows what .dvcignore leaves out.
        if len(there) != recorded[output].get("nfiles", 1):
            continue
        if _md5_of_output(output, there, known) != recorded[output]["md5"]:
            raise UserError(
                f"{output}: not what its stage has written, as dvc.lock says; expected it whole: `dvc checkout` brings "
                "that back after a change of branches; of damage on the disk or in DVC's cache, `python -m finetrail "
                "mend` removes what is damaged, and `dvc repro` makes it again"
            )


def _md5_of_output(output: Path, there: list[Path], known: dict[Path, str]) -> str:
    """Return the hash of an output as DVC (3) has it: of a folder, that of the list of its files."""
    if output.is_file():
        return known.get(output) or md5(output)
    found = {file.relative_to(output).as_posix(): known.get(file) or md5(file) for file in there}
    listed = [{"md5": digest, "relpath": name} for name, digest in sorted(found.items())]
    return f"{hashlib.md5(json.dumps(listed).encode(), usedforsecurity=False).hexdigest()}.dir"


def watch_read(paths: Iterable[Path], stage_name: str) -> Callable[[], None]:
    """Return a check that a source's files, whose hashes are recorded, were not written to since; DVC watches none."""
    noted = {path: stat_of(path) for path in paths}

    def check() -> None:
        for path, stat in noted.items():
            if not path.exists() or stat_of(path)[:3] != stat[:3]:
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


def md5(file: Path) -> str:
    """Return the hash that DVC has of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, partial(hashlib.md5, usedforsecurity=False)).hexdigest()


def _settings_now(stage_name: str) -> dict[str, Any]:
    try:
        return params.declared_settings(stage_name)
    except UserError:  # a file that is being edited
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
