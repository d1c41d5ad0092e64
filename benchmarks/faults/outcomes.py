"""What became of each trial: which fault, where, and whether the same bytes came back."""

import re
from collections import Counter
from typing import Any, NamedTuple

from benchmarks.faults.forked import Ended

SAME = "same bytes after one command"
LINE = "one line that says what to do, and after it the same bytes"
FAULT = "neither"
CLASSES = (SAME, LINE, FAULT)


class Outcome(NamedTuple):
    """One trial; said: the line that it gave, or of a fault what was wrong."""

    fault: str
    task: str
    where: str
    kind: str
    said: str = ""


def judge(fault: str, task: str, where: str, first: Ended, again: Ended | None, same: bool) -> Outcome:
    """Judge a trial by the disturbed run, the one after it (None: not needed), and whether the bytes are the same.

    A run that was killed need not say anything; one that failed by itself must say what to do, in one line.
    """
    failed_again = again is not None and again.code != 0
    if failed_again or not same:
        last = again or first
        return Outcome(fault, task, where, FAULT, last_line(last.log) if failed_again else "other bytes")
    if first.code == 0 or first.code in (-9, -15):
        return Outcome(fault, task, where, SAME)
    if first.reported:
        return Outcome(fault, task, where, LINE, first.reported)
    return Outcome(fault, task, where, FAULT, f"code {first.code}: {last_line(first.log)}")


def last_line(log: str) -> str:
    line = (log.strip().splitlines() or ["nothing was printed"])[-1][:300]
    return re.sub(r"/\S*/finetrail-faults-\w+/", "", line)  # a random folder


def table(outcomes: list[Outcome]) -> dict[str, Any]:
    """Return for each fault how often it was tried and what came of it, with the lines that were said."""
    found: dict[str, Any] = {}
    for fault in dict.fromkeys(outcome.fault for outcome in outcomes):
        of_fault = [outcome for outcome in outcomes if outcome.fault == fault]
        kinds = Counter(outcome.kind for outcome in of_fault)
        wrong = [f"{one.where}: {one.said}" for one in of_fault if one.kind == FAULT]
        found[fault] = {kind: kinds[kind] for kind in CLASSES} | {"what was wrong": wrong}
    return found
