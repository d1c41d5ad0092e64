"""What the project adds to DVC's own time: a no-op `dvc repro`, `make check`, and what the light stages import.

python -m benchmarks.overhead    (needs a finished `dvc repro`)
"""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import ROOT, keep

ROUNDS = 5
HEAVY = ("torch", "transformers", "datasets")


def seconds(*command: str, folder: Path = ROOT) -> float:
    """Return the best time of a command."""
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    return round(min(times), 2)


def bare_dvc(folder: Path) -> float:
    """Return the time of a no-op `dvc repro` with seven trivial stages instead of finetrail's."""
    names = [f"s{index}" for index in range(7)]
    stages = "".join(
        f"  {name}:\n    cmd: cp {before} {name}\n    deps:\n      - {before}\n    outs:\n      - {name}\n"
        for before, name in zip(["start", *names], names, strict=False)
    )
    (folder / "start").write_text("x")
    (folder / "dvc.yaml").write_text(f"stages:\n{stages}")
    for command in (
        ["git", "init", "-q"],
        ["dvc", "init", "-q"],
        ["dvc", "config", "core.analytics", "false"],
        ["dvc", "repro", "-q"],
    ):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return seconds("dvc", "repro", folder=folder)


def imported(module: str) -> list[str]:
    """Return which heavy packages importing a stage brings in."""
    code = f"import sys, {module}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.split()


def main() -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        keep(
            "overhead",
            {
                "noop_repro_seconds": seconds("dvc", "repro"),
                "noop_repro_of_seven_trivial_stages_seconds": bare_dvc(folder),
                "check_seconds": seconds(sys.executable, "-m", "finetrail.check"),
                "heavy_imports": {
                    f"download_{what}": imported(f"stages.download_{what}") for what in ("corpus", "model")
                },
            },
        )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
