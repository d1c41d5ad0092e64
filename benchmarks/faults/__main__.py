"""Runs the parts, each in a process of its own, and keeps what they found."""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path

from benchmarks import RESULTS, ROOT, machine
from benchmarks.faults import PARTS, STAGES
from benchmarks.faults.outcomes import FAULT, Outcome, table

RESULT = RESULTS / "faults.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=(__doc__ or "").strip())
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=f"of {', '.join(PARTS)}; all if none is named")
    parser.add_argument("--tasks", nargs="+", help="some of the six")
    parser.add_argument("--keep", type=Path, default=RESULT, help="the file that has the counts of all parts")
    parser.add_argument(
        "--toys", type=Path, help="folder that keeps the projects of uninterrupted runs, for the next call"
    )
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    for part in chosen.parts:
        if chosen.here:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
            with tempfile.TemporaryDirectory(prefix="finetrail-faults-") as folder:
                Path(folder).chmod(0o755)  # for the faults that are of another user
                measure(part, chosen, Path(folder))
        else:
            tasks = ["--tasks", *chosen.tasks] if chosen.tasks else []
            toys = ["--toys", str(chosen.toys.resolve())] if chosen.toys else []
            options = [*tasks, *toys, "--keep", str(chosen.keep.resolve()), "--here"]
            command = [sys.executable, "-m", "benchmarks.faults", part, *options]
            with tempfile.TemporaryDirectory(prefix="finetrail-clock-") as folder:
                subprocess.run(command, cwd=ROOT, env=environment(part, Path(folder)), check=True)


def environment(part: str, folder: Path) -> dict[str, str]:
    """Return the variables of a part's process: one thread and no network, and for the clock what moves it."""
    variables = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if part == "clock":
        from benchmarks.faults import clock

        variables["LD_PRELOAD"] = str(clock.library(folder))
    return variables


def measure(part: str, chosen: argparse.Namespace, folder: Path) -> None:
    """Try a part's faults on the projects of the chosen tasks, and keep what was found task by task."""
    from benchmarks.faults import disk, toys

    for stage in STAGES:
        import_module(f"stages.{stage.replace('@', '_')}")
    module = import_module(f"benchmarks.faults.{part}")
    for task in chosen.tasks or toys.TASKS:
        place, log, found = folder / task, folder / "log", []
        try:
            with disk.file_system(place) if hasattr(module, "ROOM") else nullcontext(place):
                toy = toys.uninterrupted(task, chosen.toys or folder / "toys", log).copied(place / "project")
                for outcome in module.run(toy, log):
                    print(*outcome, sep=" | ", flush=True)
                    found.append(outcome)
        finally:  # also when it is ended: what was tried was tried
            keep(part, task, found, chosen.keep)


def keep(part: str, task: str, found: list[Outcome], file: Path) -> None:
    """Keep a task's counts beside those of other tasks and parts."""
    if not found:
        return
    kept = json.loads(file.read_text()) if file.exists() else {}
    of_part = kept.get(part, {}) | {task: table(found)}
    kept |= {"machine": machine(), part: of_part}
    order = ["machine", *PARTS]
    file.write_text(json.dumps({name: kept[name] for name in order if name in kept}, indent=2) + "\n")
    print(f"{part}: {task}: {len(found)} trials, {sum(one.kind == FAULT for one in found)} faults", flush=True)


if __name__ == "__main__":
    main()
