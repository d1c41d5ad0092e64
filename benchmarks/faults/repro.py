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

EXPERIMENT = ("-m", "dvc", "exp", "run", "--temp", "-S", "seed=43")
REFUSALS = ("Unable to acquire lock", "is busy", "still runs a stage", "changed while")
START = 3.0  # seconds that a stage's imports take, at least


def run(toy: Toy, log: Path) -> Iterator[Outcome]:
    """Disturb runs of a project whose results are known."""
    generator, expected = random.Random(toy.task), track(toy, log)
    yield from killed(toy, expected, log, generator)
    yield at_once("two `dvc repro` at once", REPRO, toy, expected, log, generator.uniform(0.0, 15.0))
    yield at_once(
        "`dvc exp run --temp` beside `dvc repro`", EXPERIMENT, toy, expected, log, generator.uniform(0.0, 15.0)
    )


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


def at_once(fault: str, words: tuple[str, ...], toy: Toy, expected: dict[str, str], log: Path, after: float) -> Outcome:
    """Start another command beside a `dvc repro`: one of them may be refused, and neither may spoil anything."""
    forget(toy)
    running = begin(toy.project, log, *REPRO)
    time.sleep(after)
    other = call(toy.project, log.with_name("other"), *words)
    ended = Ended(running.wait(), log.read_text(errors="replace"))
    refused = next((one for one in (ended, other) if one.code), ended)
    if reported := refusal(refused):
        refused = Ended(1, f"error: {reported}")
    again = mended(toy, log, MEND)
    return judge(fault, toy.task, "repro", refused, again, state(toy) == expected)


def refusal(ended: Ended) -> str:
    """Return DVC's line about a lock, or ours about another stage or a change."""
    lines = [line for line in ended.log.splitlines() if any(words in line for words in REFUSALS)]
    return lines[-1] if ended.code and lines else ""


def forget(toy: Toy) -> None:
    """Take away outputs and what DVC has of earlier runs, so that all stages run."""
    for stage in STAGES:
        for path in outputs(toy.project, stage):
            remove(path)
    git(toy.project, "checkout", "--quiet", "HEAD~1", "--", ".")
    for path in (toy.project / ".dvc/cache/runs", toy.project / ".scratch", toy.project / "dvc.lock"):
        remove(path)
