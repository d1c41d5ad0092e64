"""Runs drawn combinations of settings, and keeps what came of them: do all run, or are they refused before training?

python -m benchmarks.combinations run FOLDER COUNT [START ...]   so many of each start; after 350 s call it again
python -m benchmarks.combinations again FOLDER START NUMBER      one that ran, with what it changes and its log
python -m benchmarks.combinations shrink FOLDER START NUMBER     the fewest of its changes that end in the same way
python -m benchmarks.combinations keep FOLDER ...                the table of all that ran, into benchmarks/results
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

LIMIT = 900.0  # seconds of one combination; torch.compile takes minutes of it
SEED = 0
ENGINES = ("trainer", "accelerate")
# One in so many combinations continues to export and report, which take longer than all other stages.
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
                record |= {"engine": combination["train"]["engine"], "combination": combination}
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


def drawn(work: Path, name: str, number: int) -> tuple[Drawer, Recipe]:
    """Return a combination that ran, as it was: a changed schema would draw another one."""
    for one in outcomes(work):
        if (one["start"], one["number"]) == (name, number):
            return Drawer(starts()[name], SEED), one["combination"]
    raise SystemExit(f"error: {work / 'outcomes.jsonl'} has no number {number} of {name}; expected one that ran")


def changes(drawer: Drawer, combination: Recipe) -> dict[tuple[str, ...], Any]:
    """Return the keys in which a combination is not the plain one, those of sections before those inside."""
    found = settled(combination, drawer.menu)
    return {
        path: of for path, of in found.items() if not (is_there(drawer.plain, path) and has(drawer.plain, path, of))
    }


def again(work: Path, name: str, number: int) -> None:
    """Run one combination again, and show what it changes and its log."""
    drawer, combination = drawn(work, name, number)
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
    drawer, combination = drawn(work, name, number)
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


def table(folders: list[Path]) -> None:
    """Keep the counts of what ran, by start and engine, and which share of all pairs of values was tried."""
    found = [one for folder in folders for one in outcomes(folder)]
    kinds: dict[str, dict[str, dict[str, int]]] = {}
    tried = pairs = 0
    accepted: Counter[str] = Counter()
    for name, start in starts().items():
        own = [one for one in found if one["start"] == name]
        kinds[name] = {engine: counts([one for one in own if one["engine"] == engine]) for engine in ENGINES}
        drawer = Drawer(start, SEED)
        tried += len(set().union(*(drawer.pairs(one["combination"]) for one in own)))
        pairs += drawer.all_pairs()
        for _ in range(len(own)):
            drawer.draw()
        accepted.update(drawer.said)
    whole = counts(found) | {
        "pairs of values tried": tried,
        "pairs of values that there are, with those that the check refuses": pairs,
        "candidates of the draws that the check refused, without a traceback": accepted["refused"],
        "seed": SEED,
        "machine": machine(),
    }
    keep("combinations", {"starts": kinds, "all": whole})


def counts(ended: list[Ended]) -> dict[str, int]:
    """Return how many combinations there were, and how they ended; a fault is whatever else there is."""
    of = Counter(one["outcome"] for one in ended)
    exported = sum(one["outcome"] == "ran" and one["at"] == "report" for one in ended)
    found = {"combinations": len(ended), "ran": of["ran"], "through export and report": exported}
    found |= {"refused before training": of["refused"], "diverged": of["diverged"]}
    return found | {"faults": len(ended) - of["ran"] - of["refused"] - of["diverged"]}


def main(command: str, folder: str, *arguments: str) -> None:
    """Do what the command says, in a folder."""
    work = Path(folder).resolve()
    work.mkdir(parents=True, exist_ok=True)
    if command == "run":
        run(work, int(arguments[0]), list(arguments[1:]))
    elif command == "again":
        again(work, arguments[0], int(arguments[1]))
    elif command == "shrink":
        shrink(work, arguments[0], int(arguments[1]))
    else:
        table([work, *(Path(more).resolve() for more in arguments)])


if __name__ == "__main__":
    main(*sys.argv[1:])
