"""`dvc repro` itself: killed in each stage with all that it started, and twice at once."""

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import kills
from benchmarks.faults import STAGES
from benchmarks.faults.dvc_project import MEND, REPRO, begin, call, git, mended, state, track
from benchmarks.faults.forked import Ended
from benchmarks.faults.outcomes import Outcome, judge
from benchmarks.faults.toys import Toy, outputs, remove

START = 3.0  # seconds that a stage's imports take, at least


def run(toy: Toy, log: Path) -> Iterator[Outcome]:
    """Disturb runs of a project whose results are known."""
    generator, expected = random.Random(toy.task), track(toy, log)
    yield from killed(toy, expected, log, generator)
    yield at_once(toy, expected, log, generator.uniform(0.0, 15.0))


def killed(toy: Toy, expected: dict[str, str], log: Path, generator: random.Random) -> Iterator[Outcome]:
    """Kill `dvc repro` once in each stage, and run it to the end: all of the kills have come to nothing, or none."""
    forget(toy)
    ends = []
    for number, stage in enumerate(STAGES):
        how = signal.SIGKILL if number % 2 == 0 else signal.SIGTERM
        if kills.killed_in(stage, generator.uniform(0, START + toy.seconds[stage]), how, toy.project, log):
            ends.append((stage, Ended(-how, log.read_text(errors="replace"))))
    again = mended(toy, log, MEND)
    same = state(toy) == expected
    for stage, first in ends:
        yield judge("a kill of `dvc repro` with its stage", toy.task, stage, first, again, same)


def at_once(toy: Toy, expected: dict[str, str], log: Path, after: float) -> Outcome:
    """Start `dvc repro` beside one that runs: the second may be refused, and neither may spoil anything."""
    other = log.with_name("other")
    forget(toy)
    one = begin(toy.project, log, *REPRO)
    time.sleep(after)
    second = call(toy.project, other, *REPRO)
    first = Ended(one.wait(), log.read_text(errors="replace"))
    refused = next((ended for ended in (first, second) if ended.code), first)
    told = refusal(refused)
    again = mended(toy, log, MEND)
    ended = Ended(1, f"error: {told}") if told else refused
    return judge("two `dvc repro` at once", toy.task, "repro", ended, again, state(toy) == expected)


def refusal(ended: Ended) -> str:
    """Return DVC's line about a lock, or ours about another stage."""
    lines = [
        line for line in ended.log.splitlines() if "lock" in line or "still runs a stage" in line or "busy" in line
    ]
    return lines[-1] if ended.code and lines else ""


def forget(toy: Toy) -> None:
    """Take away outputs and what DVC has of earlier runs, so that all stages run."""
    for stage in STAGES:
        for path in outputs(toy.project, stage):
            remove(path)
    git(toy.project, "checkout", "--quiet", "HEAD~1", "--", ".")
    for path in (toy.project / ".dvc/cache/runs", toy.project / ".scratch", toy.project / "dvc.lock"):
        remove(path)
