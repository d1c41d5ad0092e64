"""A project that is in Git and DVC, with its results in DVC's cache; and `dvc repro` in it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks import ROOT
from benchmarks.faults import STAGES
from benchmarks.faults.forked import Ended
from benchmarks.faults.toys import Toy, hashes, outputs, remove

# What `make run` does first, and what a line of ours names; then the one command.
MEND, MEND_ALL = ("-m", "finetrail.mend", "--records"), ("-m", "finetrail.mend")
REPRO = ("-m", "dvc", "repro")


def track(toy: Toy, log: Path) -> dict[str, str]:
    """Put a project into Git and DVC, with the settings that ours has, and return the hashes of its results."""
    project = toy.project
    for name in (".dvc/config", ".dvc/.gitignore", ".gitattributes", ".gitignore"):
        (project / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, project / name)
    remove(project / ".scratch")
    git(project, "init", "--quiet")
    git(project, "add", "--all", "--", ":!metrics")
    git(project, "commit", "--quiet", "--message=before")
    committed = call(project, log, "-m", "dvc", "commit", "--force")
    if committed.code:
        raise RuntimeError(committed.log)
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message=ran")
    return state(toy)


def git(project: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.com")
    subprocess.run(["git", *identity, *arguments], cwd=project, check=True)


def state(toy: Toy) -> dict[str, str]:
    """Return the hashes of all outputs and of dvc.lock."""
    everything = [path for stage in STAGES for path in outputs(toy.project, stage)]
    return hashes(toy.project, [*everything, toy.project / "dvc.lock"])


def begin(project: Path, log: Path, *words: str) -> "subprocess.Popen[bytes]":
    """Start Python with these words as the first of its own processes."""
    variables = os.environ | {"PYTHONUNBUFFERED": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with log.open("wb") as opened:
        return subprocess.Popen(
            [sys.executable, *words], cwd=project, env=variables | {"PYTHONPATH": str(project)},
            stdout=opened, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def call(project: Path, log: Path, *words: str) -> Ended:
    code = begin(project, log, *words).wait()
    return Ended(code, log.read_text(errors="replace"))


def mended(toy: Toy, log: Path, mend: tuple[str, ...]) -> Ended:
    """Mend and run again, as `make run` does."""
    ended = call(toy.project, log, *mend)
    return ended if ended.code else call(toy.project, log, *REPRO)
