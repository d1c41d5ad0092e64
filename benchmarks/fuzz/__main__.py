"""Fuzzes what reads foreign bytes, guided by coverage: python -m benchmarks.fuzz TARGET|all SECONDS [FOLDER].

It needs atheris, which is not in the lock file (it has wheels for few Pythons): pip install atheris. FOLDER (else one
below .scratch) keeps the inputs that reached new code, with which a later run starts, and the findings.
"""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import keep
from benchmarks.fuzz.targets import TARGETS

MOST_MEMORY_MIB = 4096
LONGEST_SECONDS = 60  # of one input, on a machine that others use too
LONGEST_INPUT = 8192
COVERED = re.compile(r"cov: (\d+)")
DONE = re.compile(r"stat::number_of_executed_units: (\d+)")


def fuzz(name: str, seconds: int, folder: Path) -> dict[str, Any]:
    """Run one target; return how often, what it covered, and the kinds of what it found."""
    folder.mkdir(parents=True, exist_ok=True)
    options = {
        "max_total_time": seconds,
        "print_final_stats": 1,
        "rss_limit_mb": MOST_MEMORY_MIB,
        "timeout": LONGEST_SECONDS,
        "max_len": LONGEST_INPUT,
        "artifact_prefix": f"{folder}/",
    }
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.fuzz.child", name, str(folder)]
    done = subprocess.run(
        [*command, *(f"-{key}={value}" for key, value in options.items())],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
    )  # fmt: skip
    executed, covered = DONE.search(done.stderr), COVERED.findall(done.stderr)
    if executed is None or not covered:
        sys.exit(f"error: {name}: the fuzzer ended early: {done.stderr[-2000:]}")
    found = [path.read_text(encoding="utf-8").partition("\n")[0] for path in sorted(folder.glob("findings/*.txt"))]
    found += [f"{path.name.partition('-')[0]}: {path.name}" for path in sorted(folder.glob("*-*")) if path.is_file()]
    return {
        "executions": int(executed[1]),
        "edges": int(covered[-1]),
        "seconds": seconds,
        "findings": found,
    }


def main() -> None:
    if len(sys.argv) < 3 or not {sys.argv[1]} <= {*TARGETS, "all"} or not sys.argv[2].isdigit():
        sys.exit(f"error: expected TARGET SECONDS [FOLDER], and as TARGET one of all, {', '.join(TARGETS)}")
    if find_spec("atheris") is None:
        sys.exit("error: atheris is not installed; expected `pip install atheris`, which has wheels for Linux")
    target, seconds = sys.argv[1], int(sys.argv[2])
    folder = Path(sys.argv[3] if len(sys.argv) > 3 else ".scratch/fuzz")
    for name in TARGETS if target == "all" else [target]:
        keep("fuzz", fuzz(name, seconds, folder / name), name)


if __name__ == "__main__":
    main()
