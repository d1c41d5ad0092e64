"""SIGKILL and SIGTERM at random moments of each stage, and before its first moves of files into their places."""

import os
import random
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.faults import STAGES, forked
from benchmarks.faults.outcomes import Outcome, judge
from benchmarks.faults.toys import Toy

KILLS_A_STAGE, MOST_MOVES = 4, 4
# Train resumes from its checkpoints; export takes longest.
OF_STAGE = {"train": 8, "export": 2}


def run(toy: Toy, log: Path) -> Iterator[Outcome]:
    """Kill each stage, at random moments and at its moves."""
    generator = random.Random(toy.task)
    for stage in STAGES:
        for number in range(OF_STAGE.get(stage, KILLS_A_STAGE)):
            how = signal.SIGKILL if number % 2 == 0 else signal.SIGTERM
            yield killed(toy, stage, generator.uniform(0, toy.seconds[stage]), how, log)
        for move in range(MOST_MOVES):
            if (outcome := killed_at_move(toy, stage, move, log)) is None:
                break
            yield outcome


def killed(toy: Toy, stage: str, after: float, how: signal.Signals, log: Path) -> Outcome:
    """Kill a stage after so many seconds, and run it again."""
    toy.clear(stage)
    process = forked.start(stage, toy.project, log)
    time.sleep(after)
    forked.kill(process, how)
    first = forked.wait(process, log)
    again = forked.run(stage, toy.project, log)
    return judge(f"{how.name} at a random moment", toy.task, stage, first, again, toy.is_as_it_was(stage))


def killed_at_move(toy: Toy, stage: str, move: int, log: Path) -> Outcome | None:
    """Kill a stage before its os.replace of that number, and run it again; None if it has fewer."""
    toy.clear(stage)
    first = forked.run(stage, toy.project, log, partial(die_before_move, move))
    if first.code != -signal.SIGKILL:
        return None
    again = forked.run(stage, toy.project, log)
    return judge("SIGKILL before a move into place", toy.task, stage, first, again, toy.is_as_it_was(stage))


def die_before_move(number: int) -> None:
    """Kill the process before it moves a file or folder for that time."""
    replace, left = os.replace, [number]

    def dying(*paths: str, **others: int) -> None:
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        replace(*paths, **others)

    os.replace = dying  # type: ignore[assignment]
