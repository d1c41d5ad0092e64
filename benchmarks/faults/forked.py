"""Runs a stage in a fork of this process, which has imported it: a trial then takes the time of its work alone."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

STOPPED = "stopped: it had no end"


class Ended(NamedTuple):
    """How a stage ended: its exit code, negative for a signal, and what it printed."""

    code: int
    log: str

    @property
    def reported(self) -> str | None:
        """Return the one line that says what to do, if the stage ended with that and no traceback."""
        last = self.log.strip().rpartition("\n")[2]
        return last if self.code == 1 and last.startswith("error: ") and "Traceback" not in self.log else None


def nothing() -> None:
    pass


def start(stage: str, project: Path, log: Path, before: Callable[[], None] = nothing) -> int:
    """Start a stage in a project, with what it prints in a log; before: what the fork does first. Return its number."""
    main = import_module(f"stages.{stage.replace('@', '_')}").main
    # Until the fork has replaced the handler of this process, which would exit with 1 and print nothing.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    process = os.fork()
    if process:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        return process
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        os.dup2(1, 2)
        os.chdir(project)
        before()
        code = _ended_with(stage, main)
    finally:
        os._exit(code)


def _ended_with(stage: str, main: Callable[[], None]) -> int:
    """Run a stage as its own process would, and return the exit code."""
    import stages
    from finetrail import layout
    from finetrail import stage as around

    around.RUNNING = FileLock(
        layout.SCRATCH / "running"
    )  # the lock belongs to the process before the fork, not to this one
    try:
        around.run(lambda: stages.begin(stage))
        around.run(main)
    except SystemExit as ended:
        print(ended.code, file=sys.stderr, flush=True)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    sys.stdout.flush()
    return 0


def wait(process: int, log: Path, seconds: float = 120.0) -> Ended:
    """Wait for a fork, and end it where it takes longer."""
    until, text = time.monotonic() + seconds, ""
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            break
        if time.monotonic() > until:
            kill(process)
            _, status = os.waitpid(process, 0)
            text = STOPPED
            break
        time.sleep(0.005)
    return Ended(os.waitstatus_to_exitcode(status), log.read_text(errors="replace") + text)


def kill(process: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Signal a fork and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process, number)


def run(stage: str, project: Path, log: Path, before: Callable[[], None] = nothing, seconds: float = 120.0) -> Ended:
    """Run a stage to its end."""
    return wait(start(stage, project, log, before), log, seconds)
