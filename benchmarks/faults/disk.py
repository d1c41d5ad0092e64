"""A small file system that fills up at any point of each stage, and folders that nobody may write to."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.faults import STAGES, forked
from benchmarks.faults.outcomes import Outcome, judge
from benchmarks.faults.toys import Toy, outputs, remove

# Shares of what a stage writes that there is room for.
ROOM = (0.0, 0.4, 0.8, 0.97)
LARGE = 1 << 30
NOBODY = 65534


def run(toy: Toy, log: Path) -> Iterator[Outcome]:
    """Try a full disk and folders without permissions; the project is on a file system of its own."""
    for stage in STAGES:
        needed = room_needed(toy, stage, log)
        for share in ROOM:
            toy.clear(stage)
            size_of(toy.project.parent, int(used(toy.project) + share * needed))
            first = forked.run(stage, toy.project, log)
            size_of(toy.project.parent, LARGE)
            again = forked.run(stage, toy.project, log) if first.code else None
            yield judge("full disk", toy.task, stage, first, again, toy.is_as_it_was(stage))
        written_to = {path.parent for path in outputs(toy.project, stage)}
        for folder in (*sorted(written_to), *((toy.project, toy.project / ".scratch") if stage == "tokenize" else ())):
            yield closed(toy, stage, folder, log)
        yield of_another_user(toy, stage, log)


def room_needed(toy: Toy, stage: str, log: Path) -> int:
    """Return the most bytes that a stage takes on the disk while it runs."""
    toy.clear(stage)
    before, most = used(toy.project), 0
    process = forked.start(stage, toy.project, log)
    while os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        most = max(most, used(toy.project) - before)
    forked.wait(process, log)
    return most


def used(path: Path) -> int:
    """Return how many bytes of a file system are used."""
    found = os.statvfs(path)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def size_of(mounted: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(mounted)], check=True)


@contextmanager
def file_system(folder: Path) -> Iterator[Path]:
    """Mount a file system in memory."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={LARGE}", "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--recursive", "--lazy", str(folder)], check=True)


def closed(toy: Toy, stage: str, folder: Path, log: Path) -> Outcome:
    """Run a stage while a folder is on a file system that is read-only, and again when it is not."""
    toy.clear(stage)
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
    first = forked.run(stage, toy.project, log)
    subprocess.run(["umount", folder], check=True)
    again = forked.run(stage, toy.project, log) if first.code else None
    where = f"{stage}, {folder.relative_to(toy.project.parent)}"
    return judge("read-only file system", toy.task, where, first, again, toy.is_as_it_was(stage))


def of_another_user(toy: Toy, stage: str, log: Path) -> Outcome:
    """Run a stage as a user who may read the project and write nowhere in it."""
    toy.clear(stage)
    first = forked.run(stage, toy.project, log, lambda: os.setuid(NOBODY))
    remove(toy.project / ".scratch")
    again = forked.run(stage, toy.project, log) if first.code else None
    return judge("folders of another user", toy.task, stage, first, again, toy.is_as_it_was(stage))
