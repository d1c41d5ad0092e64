"""Runs a trial as a DVC experiment in its clone, and looks at the validation curve that training writes there."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from finetrail import layout
from finetrail.errors import UserError
from finetrail.searching.places import Place

GRACE = 60.0  # seconds to end in, when asked to
CURVE = "plots/metrics/validation/{}.tsv"
# (update, value) after each epoch.
Curve = list[tuple[int, float]]


@contextmanager
def started(place: Place, log: Path, name: str, overrides: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Start an experiment in a process group of its own, so that Ctrl-C reaches it from here alone; end it at the end.

    What it prints goes into a log. It holds the slot's lock too: where this process is killed and that one is not,
    nobody else works in the clone.
    """
    python = Path(sys.executable)
    settings = (word for override in overrides for word in ("--set-param", override))
    with log.open("wb") as opened:
        process = subprocess.Popen(
            [python, "-m", "dvc", "exp", "run", "--name", name, *settings],
            cwd=place.project,
            env=os.environ | {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            stdout=opened,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=[place.lock],
        )
    try:
        yield process
    finally:
        _end(process, place.project)


def curve_so_far(project: Path, metric: str) -> Curve:
    """Return the curve of the training that runs, or was interrupted, in a clone."""
    files = sorted((project / layout.SCRATCH).glob(f"train/*/history/{CURVE.format(metric)}"))
    try:
        return parsed(files[0].read_text(encoding="utf-8")) if files else []
    except FileNotFoundError:  # training has ended meanwhile, and moved it
        return []


def parsed(text: str) -> Curve:
    """Return the points of a curve's file, without a line that is still being written."""
    lines = text.splitlines(keepends=True)[1:]
    rows = (line.split("\t") for line in lines if line.endswith("\n"))
    return [(int(step), float(value)) for step, value in rows]


def reached(curve: Curve, kept: int, name: str) -> float:
    """Return the metric at the update whose weights a run has kept, which another metric may have chosen."""
    at = dict(curve)
    if kept not in at:
        raise UserError(f"{name}: its validation curve has no update {kept}, whose weights were kept; expected it")
    return at[kept]


def reason(log: str) -> str:
    """Return why a run failed: our own last line of error, or else DVC's."""
    for pattern in (r"^error: (.+)$", r"^ERROR: (.+)$"):
        if found := re.findall(pattern, log, re.MULTILINE):
            return str(found[-1])
    return "it was killed, or ended without saying why"


def _end(process: subprocess.Popen[bytes], project: Path) -> None:
    """End a process group that still runs, and wait until no stage works in the clone."""
    if process.poll() is not None:
        return
    _signal(process, signal.SIGTERM)
    try:
        process.wait(GRACE)
        with FileLock(project / layout.SCRATCH / "running", timeout=GRACE):
            pass
    except (subprocess.TimeoutExpired, Timeout):
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
