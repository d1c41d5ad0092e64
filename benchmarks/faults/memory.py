"""Less memory than a stage takes: a limit on its address space, as `ulimit -v` sets it."""

import resource
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.faults import STAGES, forked
from benchmarks.faults.outcomes import Outcome, judge
from benchmarks.faults.toys import Toy

# MiB beyond what the process has when it begins.
MORE = (4, 16, 64)


def run(toy: Toy, log: Path) -> Iterator[Outcome]:
    """Run each stage with little memory, and again with as much as there is."""
    for stage in STAGES:
        for mib in MORE:
            toy.clear(stage)
            first = forked.run(stage, toy.project, log, partial(limit, mib))
            again = forked.run(stage, toy.project, log) if first.code else None
            same = toy.is_as_it_was(stage)
            yield judge("no memory", toy.task, stage, first, again, same)
            if not same:  # for the stages after it
                toy.clear(stage)
                forked.run(stage, toy.project, log)


def limit(mib: int) -> None:
    """Limit this process to so much more memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = pages * resource.getpagesize() + (mib << 20)
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
