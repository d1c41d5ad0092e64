"""Runs the parts one after the other, each in a process of its own, and prints a table of what they found."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import ROOT
from benchmarks.accelerator import BUDGETS
from benchmarks.accelerator.part import Part, log_file, result_file

RESULTS = "results.json"
STAND_INS = Path(__file__).parent / "stand_ins"
ON_A_CPU = 4  # times the budgets


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accelerator", description="Measure training on a GPU.")
    parser.add_argument("output", type=Path, help="folder of results.json, and of each part's result and log")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--only", nargs="+", choices=BUDGETS, default=list(BUDGETS), metavar="PART")
    parser.add_argument("--tiny", action="store_true", help="tiny models and few updates, to try the script itself")
    parser.add_argument("--part", nargs=2, metavar=("NAME", "DEADLINE"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    chosen.output = chosen.output.resolve()
    chosen.output.mkdir(parents=True, exist_ok=True)
    if chosen.part:
        sys.exit(measure(chosen))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the part that runs is ended too
    parts, started = {}, time.time()
    for name in (name for name in BUDGETS if name in chosen.only):
        parts[name] = run(name, budget(name, chosen, started), chosen)
        print(f"{name}: {parts[name]['seconds']} s, {len(parts[name]['failures'])} failures", flush=True)
        write(parts, chosen, time.time() - started)
    print(table(parts, time.time() - started))
    sys.exit(1 if any(part["failures"] for part in parts.values()) else 0)


def budget(name: str, chosen: argparse.Namespace, started: float) -> float:
    """Return the seconds of a part; the last one has all that is left of the whole."""
    factor = ON_A_CPU if chosen.device == "cpu" else 1
    if name == list(BUDGETS)[-1] and len(chosen.only) == len(BUDGETS):
        return factor * sum(BUDGETS.values()) - (time.time() - started)
    return factor * BUDGETS[name]


def run(name: str, seconds: float, chosen: argparse.Namespace) -> dict[str, Any]:
    """Run a part in a process of its own, and return what it kept, with its failures and time."""
    result_file(chosen.output, name).unlink(missing_ok=True)
    started = time.time()
    command = [sys.executable, "-m", "benchmarks.accelerator", str(chosen.output), "--device", chosen.device]
    command += ["--tiny"] * chosen.tiny + ["--part", name, str(started + seconds)]
    with log_file(chosen.output, name).open("wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(chosen.device), stdout=log, stderr=log, start_new_session=True
        )
        try:
            code: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            end(process)
    file = result_file(chosen.output, name)
    result = json.loads(file.read_text()) if file.exists() else {}
    failures, rows = result.pop("failures", []), result.pop("rows", [])
    if code is None:
        failures.append(f"stopped after its budget of {seconds:.0f} s")
    elif code:
        failures.append(f"ended with code {code}: {last_line(log_file(chosen.output, name))}")
    return {"seconds": round(time.time() - started, 1), "failures": failures, "rows": rows, "result": result}


def end(process: subprocess.Popen[bytes]) -> None:
    """End a part's process with all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def environment(device: str) -> dict[str, str]:
    """Return the variables of the parts: no network, and a stand-in for DVCLive where that is not installed.

    A JAX that is installed keeps off the GPU: bm25s imports it, and it would take most of the memory.
    """
    paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    paths += [] if find_spec("dvclive") else [str(STAND_INS)]
    variables = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1", "JAX_PLATFORMS": "cpu"}
    variables["PYTHONUNBUFFERED"] = "1"
    # Tiny models on several threads wait for each other.
    return variables | ({"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"} if device == "cpu" else {})


def measure(chosen: argparse.Namespace) -> int:
    """Measure one part, here; a failure's traceback goes to its log."""
    name, deadline = chosen.part
    part = Part(name, chosen.device, chosen.tiny, chosen.output, float(deadline), lambda result: [])
    try:
        module = import_module(f"benchmarks.accelerator.{name}")
        part.rows = module.rows
        module.run(part)
    except Exception as error:
        traceback.print_exc()
        part.fail(f"{type(error).__name__}: {first_line(str(error))}")
    return 0


def write(parts: dict[str, Any], chosen: argparse.Namespace, seconds: float) -> None:
    """Write what all parts found so far under the card's name, as docs/performance.md takes it."""
    machine = parts.get("machine", {}).get("result", {})
    whole = {"device": chosen.device, "tiny": chosen.tiny, "seconds": round(seconds, 1), "parts": parts}
    (chosen.output / RESULTS).write_text(json.dumps({machine.get("card", chosen.device): whole}, indent=2) + "\n")


def table(parts: dict[str, Any], seconds: float) -> str:
    """Return a few lines about each part."""
    rows = []
    for name, part in parts.items():
        rows.append((name, "FAILED" if part["failures"] else "ok", f"{part['seconds']} s"))
        rows += [(name, "failure", what) for what in part["failures"]]
        rows += [(name, *row) for row in part["rows"]]
    rows.append(("all", "seconds", f"{seconds:.0f}"))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]}" for row in rows)


def first_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0][:200]


def last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else ""


if __name__ == "__main__":
    main()
