"""Kills `dvc repro` at random moments of every stage and runs it again: are the bytes those of an uninterrupted run?

python -m benchmarks.kills [ROUNDS]    (3 rounds are 21 kills; clones of the last commit run less of params.yaml)

Every second kill is SIGKILL to dvc and all that it started, the others are SIGTERM.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ruamel.yaml import YAML

from benchmarks import keep
from finetrail import mend

STAGES = ("download@corpus", "download@model", "tokenize", "teach", "train", "evaluate", "export", "report")
ENVIRONMENT = os.environ | {"PYTHONUNBUFFERED": "1"}  # dvc's lines as they come


def repro(project: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start `dvc repro` as the first of its own processes."""
    with log.open("wb") as opened:
        return subprocess.Popen(
            ["dvc", "repro"], cwd=project, env=ENVIRONMENT, stdout=opened, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip


def mended(project: Path) -> None:
    """Mend what a kill has left of DVC's records, and log it."""
    for line in mend.mend(project.resolve(), data=False):
        print(line, flush=True)


def undisturbed(project: Path, log: Path) -> dict[str, float]:
    """Run everything, and return how many seconds each stage took."""
    process = repro(project, log)
    begun: dict[str, float] = {}
    while process.poll() is None:
        for stage in STAGES:
            if stage not in begun and running(stage, log):
                begun[stage] = time.monotonic()
        time.sleep(0.02)
    if process.returncode:
        raise RuntimeError(log.read_text())
    ends = [*begun.values(), time.monotonic()][1:]
    return {stage: end - start for (stage, start), end in zip(begun.items(), ends, strict=True)}


def running(stage: str, log: Path) -> bool:
    """Return True if dvc has started a stage."""
    return f"Running stage '{stage}'" in log.read_text(errors="replace")


def killed_in(stage: str, after: float, how: signal.Signals, project: Path, log: Path) -> bool:
    """Run as `make run` does until so many seconds into a stage, and kill; False where it was done before."""
    mended(project)
    process = repro(project, log)
    while process.poll() is None and not running(stage, log):
        time.sleep(0.01)
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, how)
        process.wait()
        return True
    return False


def results(project: Path) -> dict[str, str]:
    """Return the hashes of all outputs, and the record in Git."""
    return {name: (project / name).read_text() for name in ("dvc.lock", "metrics/record.json")}


def survive(project: Path, seconds: dict[str, float], generator: random.Random, stages: tuple[str, ...]) -> list[str]:
    """Kill once in each of these stages, then run to the end; return a line for each kill."""
    log, killed = project.parent / f"{project.name}.log", []
    for number, stage in enumerate(stages):
        how = signal.SIGKILL if number % 2 == 0 else signal.SIGTERM
        after = generator.uniform(0, seconds[stage])
        hit = killed_in(stage, after, how, project, log)
        killed.append(f"{stage}: {how.name} after {after:.2f} s{'' if hit else ': it was done before'}")
    mended(project)
    undisturbed(project, log)
    return killed


def clone(folder: Path, project: Path) -> Path:
    """Clone a project, to run little of it, with a checkpoint after each update."""
    subprocess.run(["git", "clone", "--quiet", str(project), str(folder)], check=True)
    params = folder / "params.yaml"
    yaml = YAML()
    given = yaml.load(params)
    recipe = folder / "recipes" / given["task"] / f"{given['recipe']}.yaml"
    given.update(limit=200, epochs=2.0)
    yaml.dump(given, params)
    settings = yaml.load(recipe)
    settings["train"].update(checkpoint_every="1 updates", log_steps=1)
    yaml.dump(settings, recipe)
    return folder


def main(rounds: int) -> None:
    """Run once without interruption, and then `rounds` times with a kill in each stage."""
    generator, equal = random.Random(0), 0
    with tempfile.TemporaryDirectory() as folder:
        # All come from one commit, whatever is committed meanwhile.
        reference = clone(Path(folder) / "reference", Path.cwd())
        seconds = undisturbed(reference, Path(folder) / "reference.log")
        for number in range(1, rounds + 1):
            project = clone(Path(folder) / f"round{number}", reference)
            for line in survive(project, seconds, generator, STAGES):
                print(line, flush=True)
            same = results(project) == results(reference)
            print(f"round {number}: {'the same bytes' if same else 'OTHER BYTES'}", flush=True)
            equal += same
    keep("kills", {"kills": rounds * len(STAGES), "rounds": rounds, "rounds that ended with the same bytes": equal})


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 3)
