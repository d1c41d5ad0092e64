"""DVC's records cut off as a kill or a full disk does it, and flipped bits in the data that DVC keeps."""

import hashlib
import os
import random
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.faults import forked
from benchmarks.faults.damage import flip
from benchmarks.faults.disk import LARGE, size_of, used
from benchmarks.faults.dvc_project import MEND, MEND_ALL, call, mended, state, track
from benchmarks.faults.forked import Ended
from benchmarks.faults.outcomes import Outcome, judge
from benchmarks.faults.toys import Toy, remove

CUTS = 6
# Bytes that there are for what DVC writes: its cache, the run-cache, dvc.lock.
ROOM = (0, 20_000, 100_000, 300_000, 600_000)
# Outputs, and a stage that reads each.
READERS = {"data/corpus": "tokenize", "data/model": "teach", "data/tokenized": "train", "data/trained": "evaluate"}


def run(toy: Toy, log: Path) -> Iterator[Outcome]:
    """Spoil records and data of a project that has run."""
    generator, expected = random.Random(toy.task), track(toy, log)
    yield from cut_records(toy, (toy.project / "dvc.lock").read_bytes(), expected, log, generator)
    yield from flipped(toy, expected, log, generator)
    yield from full(toy, expected, log)


def cut_records(
    toy: Toy, lock: bytes, expected: dict[str, str], log: Path, generator: random.Random
) -> Iterator[Outcome]:
    """Cut dvc.lock and DVC's record of who works off where a kill would, and leave Git's index locked."""
    killed = Ended(-signal.SIGKILL, "")
    for _ in range(CUTS):
        size = generator.choice((0, generator.randrange(len(lock))))
        (toy.project / "dvc.lock").write_bytes(lock[:size])
        again = mended(toy, log, MEND)
        where = "dvc.lock"
        yield judge("a record of DVC's that was cut off", toy.task, where, killed, again, state(toy) == expected)
    for name, content in {
        ".dvc/tmp/rwlock": '{"write": {"data/cor',
        ".dvc/tmp/rwlock of a process that is another now": '{"write": {"%s": {"pid": 1, "cmd": "dvc repro"}}}'
        % (toy.project / "data/corpus"),
        ".git/index.lock": "",
    }.items():
        (toy.project / name.partition(" ")[0]).write_text(content)
        (toy.project / "dvc.lock").write_bytes(lock[: len(lock) // 2])
        again = mended(toy, log, MEND)
        yield judge("a record of DVC's that was cut off", toy.task, name, killed, again, state(toy) == expected)


def flipped(toy: Toy, expected: dict[str, str], log: Path, generator: random.Random) -> Iterator[Outcome]:
    """Flip a bit of an output on the disk, and of DVC's cache, and let a stage read it."""
    for name, reader in READERS.items():
        for cached in (False, True):
            files = [file for file in sorted((toy.project / name).rglob("*")) if file.is_file() and file.stat().st_size]
            file = generator.choice(files)
            if cached:
                digest = hashlib.md5(file.read_bytes()).hexdigest()
                flip(toy.project / ".dvc/cache/files/md5" / digest[:2] / digest[2:], generator)
                remove(toy.project / name)
                call(toy.project, log, "-m", "dvc", "checkout")
            else:
                flip(file, generator)
            first = forked.run(reader, toy.project, log, partial(as_dvc_runs, reader))
            again = mended(toy, log, MEND_ALL)
            fault = f"a flipped bit in {'the cache' if cached else 'data/'}"
            yield judge(fault, toy.task, name, first, again, state(toy) == expected)


def full(toy: Toy, expected: dict[str, str], log: Path) -> Iterator[Outcome]:
    """Let DVC commit the outputs to a cache on a disk that fills up, and run again when there is room."""
    for room in ROOM:
        remove(toy.project / ".dvc/cache")
        size_of(toy.project.parent, used(toy.project) + room)
        first = call(toy.project, log, "-m", "dvc", "commit", "--force")
        size_of(toy.project.parent, LARGE)
        again = mended(toy, log, MEND)
        if first.code and "No space left" in first.log:  # DVC's own line
            first = Ended(1, "error: No space left on device")
        yield judge("a full disk under DVC", toy.task, f"{room} bytes", first, again, state(toy) == expected)


def as_dvc_runs(stage: str) -> None:
    os.environ["DVC_STAGE"] = stage
