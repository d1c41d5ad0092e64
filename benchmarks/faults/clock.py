"""A clock that is wrong, or is set while a stage runs: years ahead, back before 1980, or by an hour."""

import ctypes
import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.faults import STAGES, forked
from benchmarks.faults.outcomes import Outcome, judge
from benchmarks.faults.toys import Toy

# Seconds that the clock is moved by, and whether midway.
JUMPS = {
    "stands in 1970": (1000 - time.time(), False),
    "jumps ten years ahead": (3.2e8, True),
    "jumps an hour back": (-3600.0, True),
}
# LD_PRELOAD: shifts the time of day by a number in memory that is shared with all forks.
SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
static volatile long *moved;
static int (*get)(clockid_t, struct timespec *);
__attribute__((constructor)) static void begin(void) {
    moved = mmap(NULL, sizeof(long), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    get = dlsym(RTLD_NEXT, "clock_gettime");
}
void move_clock(long seconds) { *moved = seconds; }
int clock_gettime(clockid_t clock, struct timespec *found) {
    if (!get) get = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = get(clock, found);
    if (!failed && moved && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) found->tv_sec += *moved;
    return failed;
}
time_t time(time_t *at) {
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    if (at) *at = found.tv_sec;
    return found.tv_sec;
}
int gettimeofday(struct timeval *restrict found, void *restrict zone) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    found->tv_sec = exact.tv_sec;
    found->tv_usec = exact.tv_nsec / 1000;
    return 0;
}
"""


def run(toy: Toy, log: Path) -> Iterator[Outcome]:
    """Run each stage under a clock that is wrong from the start, and under one that is set midway."""
    generator = random.Random(toy.task)
    for stage in STAGES:
        for name, (seconds, midway) in JUMPS.items():
            toy.clear(stage)
            first = moved(toy, stage, seconds, generator.uniform(0.1, 0.9) if midway else 0.0, log)
            again = forked.run(stage, toy.project, log) if first.code else None
            yield judge(f"a clock that {name}", toy.task, stage, first, again, toy.is_as_it_was(stage))


def moved(toy: Toy, stage: str, seconds: float, share: float, log: Path) -> forked.Ended:
    """Run a stage, and move its clock after this share of its time."""
    clock = ctypes.CDLL(os.environ["LD_PRELOAD"])
    clock.move_clock.argtypes = [ctypes.c_long]
    if not share:
        clock.move_clock(int(seconds))
    process = forked.start(stage, toy.project, log)
    time.sleep(share * toy.seconds[stage])
    clock.move_clock(int(seconds))
    ended = forked.wait(process, log)
    clock.move_clock(0)
    return ended


def library(folder: Path) -> Path:
    """Compile what moves the clock, with the machine's C compiler."""
    source = folder / "clock.c"
    source.write_text(SOURCE)
    built = folder / "clock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(built), str(source), "-ldl"], check=True)
    return built
