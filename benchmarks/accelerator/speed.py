"""Useful tokens a second of ours beside the plain Trainer, with its defaults and with its own fastest switches.

All cases are measured in one process, which costs its start but once. Where a case ends it, or takes too long, another
process continues with the next one. What the budget leaves no time for is not measured, which is not a failure.
"""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import ROOT
from benchmarks.accelerator import features, machine, models, projects
from benchmarks.accelerator.cases import CASES, CASES_TINY, FORMULA, Case
from benchmarks.accelerator.part import Part

MOST_SECONDS = {"cuda": 45, "cpu": 120}  # of one side
MOST_SECONDS_COMPILED = {"cuda": 90, "cpu": 240}
KEPT_FREE = 5  # seconds before the end
TICK = 0.02
START_UPDATES = 20
MOST_SECONDS_TO_START = 60
SPEED = "useful_tokens_per_second"
FIRST_CURVE = ".scratch/train/*/history/plots/metrics/train/loss.tsv"


def run(part: Part) -> None:
    part.keep(formula=FORMULA, peak_teraflops=machine.peak(part.device, part.tiny) / 1e12, cases={})
    with part.scratch() as work:
        try:
            part.keep(seconds_from_start_to_first_update=start_ups(part, work))
        except RuntimeError as error:
            part.fail(str(error))
        todo = [(case, side) for case in (CASES_TINY if part.tiny else CASES) for side in case.sides]
        while todo and part.seconds_left > KEPT_FREE:
            todo = measure(todo, part, work)
        part.keep(not_measured=[f"{case.name}: {side}" for case, side in todo])


def measure(todo: list[tuple[Case, str]], part: Part, work: Path) -> list[tuple[Case, str]]:
    """Measure in one process until it ends or is ended; return what is still to be measured."""
    file = work / "measured.jsonl"
    file.write_text("")
    orders = {
        "device": part.device,
        "tiny": part.tiny,
        "folder": str(work),
        "results": str(file),
        "deadline": part.deadline - KEPT_FREE,
        "cases": todo,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.accelerator.side_by_side"], cwd=ROOT, stdin=subprocess.PIPE, text=True
    )
    assert process.stdin
    process.stdin.write(json.dumps(orders))
    process.stdin.close()
    ended = watched(process, file, part)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    done = len({(line["case"], line["side"]) for line in lines})
    if lines and "found" not in lines[-1] and part.seconds_left > KEPT_FREE:
        take(part, lines[-1] | {"found": {"error": ended}})
    if not lines and process.returncode:
        raise RuntimeError(f"the process that measures ended with code {process.returncode} before it began")
    return todo[done:]


def watched(process: subprocess.Popen[str], file: Path, part: Part) -> str:
    """Keep what a process finds, until it ends, takes too long for one side, or time is up; say how it ended."""
    read, since = 0, time.time()
    side = ""
    while True:
        code = process.poll()
        lines = file.read_text().splitlines()
        for line in map(json.loads, lines[read:]):
            since, side = time.time(), line["side"]
            if "found" in line:
                take(part, line)
        read = len(lines)
        if code is not None:
            return f"its process ended with code {code}"
        most = (MOST_SECONDS_COMPILED if side.endswith("compile") else MOST_SECONDS)[part.device]
        if time.time() - since > most or part.seconds_left < KEPT_FREE:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return f"stopped after {most} s"
        time.sleep(TICK)


def take(part: Part, line: dict[str, Any]) -> None:
    """Keep the figures of one side, with its shares of the peak."""
    found = line["found"]
    if "useful_teraflops" in found:
        found["share_of_peak"] = round(found["useful_teraflops"] / part.result["peak_teraflops"], 4)
    cases = part.result["cases"]
    cases.setdefault(line["case"], {})[line["side"]] = found
    part.keep(cases=cases)
    if "error" in found:
        part.fail(f"{line['case']}: {line['side']}: {found['error'].splitlines()[0][:150]}")


def start_ups(part: Part, work: Path) -> dict[str, float]:
    """Return the seconds from the start of a process to its first update, of the train stage and of a plain Trainer."""
    case = (CASES_TINY if part.tiny else CASES)[0]
    data = features.of_case(case, part.device, part.tiny, work, START_UPDATES)
    project = projects.make(case.task, work / "start", models.TINY, True, START_UPDATES, batch_size=case.batch_size)
    shutil.copytree(data / "data", project / "data", symlinks=True)
    plain = [sys.executable, "-m", "benchmarks.accelerator.first_update", part.device]
    return {
        "plain": started([*plain, case.task, str(case.batch_size)], data, "first_update", ROOT),
        "ours": started([sys.executable, "-m", "stages.train"], project, FIRST_CURVE, project),
    }


def started(command: list[str], folder: Path, pattern: str, code: Path) -> float:
    """Return the seconds until a file that the pattern names has a second line; the process is ended then."""
    begun = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, env=projects.environment(code)) as process:
        while not any(len(path.read_text().splitlines()) > 1 for path in folder.glob(pattern)):
            if process.poll() is not None or time.perf_counter() - begun > MOST_SECONDS_TO_START:
                process.kill()
                raise RuntimeError(f"{' '.join(command[1:4])} made no update")
            time.sleep(TICK)
        seconds = time.perf_counter() - begun
        process.kill()
    return round(seconds, 2)


def rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    seconds = result.get("seconds_from_start_to_first_update", {})
    found = [("first update", ", ".join(f"{side} after {value:.1f} s" for side, value in seconds.items()))]
    found += [(name, row(sides)) for name, sides in result["cases"].items()]
    return found + [("not measured", str(len(result.get("not_measured", []))))]


def row(sides: dict[str, Any]) -> str:
    """Return the tokens a second of each side, and how many times the plain ones ours are."""
    speeds = {name: found[SPEED] for name, found in sides.items() if SPEED in found}
    shown = [f"{name} {speeds[name]:,}" if name in speeds else f"{name} {absent(sides[name])}" for name in sides]
    plain = [name for name in ("plain", "plain_best") if {name, "ours"} <= speeds.keys()]
    return ", ".join(shown + [f"ours is {speeds['ours'] / speeds[name]:.2f} times {name}" for name in plain])


def absent(found: dict[str, Any]) -> str:
    return "not available" if "not_available" in found else "failed"
