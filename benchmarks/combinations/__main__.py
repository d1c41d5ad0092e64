"""Runs drawn combinations of settings, and keeps what came of them: do all run, or are they refused before training?

python -m benchmarks.combinations run FOLDER COUNT       so many of each start, or how many of them the time allows
python -m benchmarks.combinations again FOLDER NAME NUMBER   one of them, with what it changes
python -m benchmarks.combinations shrink FOLDER NAME NUMBER  the fewest of its changes that end in the same way
python -m benchmarks.combinations keep FOLDER            the table of all that ran, into benchmarks/results
"""

import itertools
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks import keep, machine
from benchmarks.combinations import running
from benchmarks.combinations.draw import Drawer, changed, has, is_there, settled
from benchmarks.combinations.running import Ended, Workers
from benchmarks.combinations.starts import Recipe, starts

LIMIT = 90.0  # seconds of one combination
SEED = 0
# So many combinations one goes on to export and report, which take longer than all before.
EXPORTED = 4


def run(work: Path, count: int, names: list[str], seconds: float = 350) -> None:
    """Run combinations that have not run yet, a line of outcomes.jsonl each, until the time is over."""
    made, ends = starts(), time.monotonic() + seconds
    workers = Workers(work, LIMIT)
    done = {(one["start"], one["number"]) for one in outcomes(work)}
    drawers = {name: Drawer(made[name], SEED) for name in names or made}
    try:
        running.prepare(work, workers, made)
        with (work / "outcomes.jsonl").open("a") as kept:
            for number, (name, drawer) in itertools.product(range(1, count + 1), drawers.items()):
                combination = drawer.draw()
                if (name, number) in done:
                    continue
                if time.monotonic() > ends:
                    return
                stages = running.STAGES if number % EXPORTED == 0 else running.STAGES[:-2]
                ended = running.run(name, drawer.plain, combination, work / "project", workers, stages)
                record = {"start": name, "number": number, "seed": SEED} | ended
                record |= {"task": drawer.start.task, "engine": combination["train"]["engine"]}
                kept.write(json.dumps(record) + "\n")
                kept.flush()
                print(f"{name} {number}: {line(ended)}", flush=True)
    finally:
        workers.stop()


def line(ended: Ended) -> str:
    """Return how a combination ended, in a line."""
    return f"{ended['outcome']} {ended['seconds']:.1f} s {ended['at']} {ended['said'][:400]}"


def outcomes(work: Path) -> list[Ended]:
    """Return the record of each combination that ran."""
    file = work / "outcomes.jsonl"
    return [json.loads(one) for one in file.read_text().splitlines()] if file.exists() else []


def drawn(name: str, number: int) -> tuple[Drawer, Recipe]:
    """Return the combination of a number."""
    drawer = Drawer(starts()[name], SEED)
    combination = drawer.plain
    for _ in range(number):
        combination = drawer.draw()
    return drawer, combination


def changes(drawer: Drawer, combination: Recipe) -> dict[tuple[str, ...], Any]:
    """Return the keys in which a combination is not the plain one, those of sections before those inside."""
    found = settled(combination, drawer.menu)
    return {
        path: of for path, of in found.items() if not (is_there(drawer.plain, path) and has(drawer.plain, path, of))
    }


def again(work: Path, name: str, number: int) -> None:
    """Run one combination again, and show what it changes and its log."""
    drawer, combination = drawn(name, number)
    for path, value in changes(drawer, combination).items():
        print(f"  {'.'.join(path)}: {json.dumps(value)[:150]}")
    workers = Workers(work, LIMIT)
    try:
        print(line(running.run(name, drawer.plain, combination, work / "again", workers)))
    finally:
        workers.stop()
    print((work / "again/log").read_text()[-3000:])


def shrink(work: Path, name: str, number: int) -> None:
    """Print the fewest changes with which a combination still ends as it did, found by taking back ever fewer."""
    drawer, combination = drawn(name, number)
    workers = Workers(work, LIMIT)

    def ends(candidate: Recipe) -> tuple[str, str, str]:
        ended = running.run(name, drawer.plain, candidate, work / "shrunk", workers)
        return ended["outcome"], ended["at"], ended["said"][:40]

    try:
        expected, tries = ends(combination), 1
        size = max(1, len(changes(drawer, combination)) // 2)
        while True:
            left = list(changes(drawer, combination))
            for begin in range(0, len(left), size):
                candidate = taken_back(drawer, combination, left[begin : begin + size])
                if candidate != combination and drawer.accepts(candidate):
                    tries += 1
                    if ends(candidate) == expected:
                        combination = candidate
            if size == 1 and len(changes(drawer, combination)) == len(left):
                break
            size = max(1, size // 2)
    finally:
        workers.stop()
    print(f"{expected} after {tries} runs:")
    for path, value in changes(drawer, combination).items():
        print(f"  {'.'.join(path)}: {json.dumps(value)[:300]}")


def taken_back(drawer: Drawer, combination: Recipe, paths: list[tuple[str, ...]]) -> Recipe:
    """Return a combination with the plain values of these keys; what the plain recipe lacks is removed."""
    for path in paths:
        if not is_there(combination, path):
            continue
        if is_there(drawer.plain, path):
            combination = changed(combination, path, settled(drawer.plain, drawer.menu)[path])
        elif is_there(drawer.plain, path[:-1]) and len(path) == 2:
            section = dict(combination[path[0]])
            section.pop(path[1], None)
            combination = combination | {path[0]: section}
    return combination


def table(work: Path) -> None:
    """Keep the counts of what ran, by start and engine, and which share of all pairs of values was tried."""
    found, made = outcomes(work), starts()
    kinds: dict[str, dict[str, dict[str, int]]] = {}
    pairs = {}
    for name in made:
        for engine in ("trainer", "accelerate"):
            of = [one for one in found if one["start"] == name and one["engine"] == engine]
            kinds.setdefault(name, {})[engine] = dict(Counter(one["outcome"] for one in of))
        drawer = Drawer(made[name], SEED)
        count = max((one["number"] for one in found if one["start"] == name), default=0)
        for _ in range(count):
            drawer.draw()
        pairs[name] = {"tried": len(drawer.tried), "of": drawer.all_pairs(), "check": dict(drawer.said)}
    keep("combinations", {"machine": machine(), "seed": SEED, "outcomes": kinds, "pairs": pairs})


def main(command: str, folder: str, *arguments: str) -> None:
    work = Path(folder).resolve()
    work.mkdir(parents=True, exist_ok=True)
    if command == "run":
        run(work, int(arguments[0]), list(arguments[1:]))
    elif command == "again":
        again(work, arguments[0], int(arguments[1]))
    elif command == "shrink":
        shrink(work, arguments[0], int(arguments[1]))
    else:
        table(work)


if __name__ == "__main__":
    main(*sys.argv[1:])
