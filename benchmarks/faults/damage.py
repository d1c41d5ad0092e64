"""One flipped bit: in a checkpoint from which a killed training would resume, and in an exported model."""

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.faults import forked
from benchmarks.faults.outcomes import Outcome, judge
from benchmarks.faults.toys import Toy

CHECKPOINTS = 8
CHECKPOINT, SECONDS = ".scratch/train/*/checkpoint-*", 60.0


def run(toy: Toy, log: Path) -> Iterator[Outcome]:
    """Flip a bit in the checkpoints of killed trainings, and resume them."""
    generator = random.Random(toy.task)
    for _ in range(CHECKPOINTS):
        toy.clear("train")
        process = forked.start("train", toy.project, log)
        until = time.monotonic() + SECONDS
        while time.monotonic() < until and not list(toy.project.glob(f"{CHECKPOINT}/complete.json")):
            time.sleep(0.01)
        time.sleep(generator.uniform(0, 0.2) * toy.seconds["train"])
        forked.kill(process)
        first = forked.wait(process, log)
        files = [file for file in sorted(toy.project.glob(f"{CHECKPOINT}/**/*")) if file.is_file()]
        if not files:  # it was done before
            continue
        file = generator.choice(files)
        flip(file, generator)
        again = forked.run("train", toy.project, log)
        yield judge("a flipped bit in a checkpoint", toy.task, file.name, first, again, toy.is_as_it_was("train"))


def flip(file: Path, generator: random.Random) -> None:
    """Flip one bit of a file, at which its size and times stay what they were."""
    status, content = file.stat(), bytearray(file.read_bytes())
    if content:
        content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
    mode = status.st_mode
    file.chmod(mode | 0o200)
    with file.open("r+b") as opened:  # the same inode
        opened.write(content)
    file.chmod(mode)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
