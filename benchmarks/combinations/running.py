"""Runs combinations in processes that are restarted when one dies or hangs, and tells what came of each."""

import json
import os
import re
import select
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import ROOT
from benchmarks.combinations import starts
from benchmarks.combinations.draw import PARAMS
from benchmarks.combinations.starts import Recipe, Start
from finetrail import layout

STAGES = ("download_corpus", "download_model", "tokenize", "teach", "train", "evaluate", "export", "report")
BEFORE_TRAINING = ("check", "download_corpus", "download_model", "tokenize", "teach")
# Outputs of each stage, which a stage that fails must not change.
OUTPUTS = {
    "download_corpus": ("data/corpus",),
    "download_model": ("data/model",),
    "tokenize": ("data/tokenized",),
    "teach": ("data/taught",),
    "train": ("data/trained", "metrics/train"),
    "evaluate": ("data/predictions.parquet", "data/candidates", "metrics/evaluation"),
    "export": ("data/exported", "metrics/export.json"),
    "report": ("metrics/record.json", "metrics/metrics.json", "metrics/report.html"),
}
LINKED = ("dvc.yaml", "stages", "finetrail", ".dvcignore")
LONGEST_LINE = 2000
# What nobody can know before: the train stage's line for a loss that is not finite.
DIVERGED = re.compile(r"^error: train: \w+ is (nan|inf) at update")

Ended = dict[str, Any]


class Workers:
    """A process for each kind of numerics, as long as it lives."""

    def __init__(self, work: Path, limit: float) -> None:
        self.work, self.limit = work, limit
        self.processes: dict[str, subprocess.Popen[str]] = {}

    def ask(self, numerics: str, job: dict[str, Any], limit: float | None = None) -> Ended:
        """Return a worker's answer, or a description of its time-out or death."""
        process = self.processes.get(numerics) or self._start(numerics)
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], limit or self.limit)
        if ready and (line := process.stdout.readline()):
            return dict(json.loads(line))
        self.stop(numerics)
        return {"outcome": "died" if ready else "hung", "at": "?", "said": "", "seconds": limit or self.limit}

    def _start(self, numerics: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "benchmarks.combinations.worker", numerics]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}
        environment |= {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_HOME": str(self.work / "hf")}
        log = (self.work / f"worker-{numerics}.log").open("a")
        self.processes[numerics] = process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
        return process

    def stop(self, numerics: str | None = None) -> None:
        """End a worker, or all."""
        for name in [numerics] if numerics else list(self.processes):
            process = self.processes.pop(name)
            process.kill()
            process.communicate()


def prepare(work: Path, workers: Workers, made: dict[str, Start]) -> None:
    """Write corpora and base models, once for a folder."""
    if (work / "prepared").exists():
        return
    for name, start in made.items():
        start.write(work / "corpora" / name)
    workers.ask("fast", {"bases": str(work / "bases")}, 120)
    (work / "prepared").touch()


def run(
    name: str,
    plain: Recipe,
    combination: Recipe,
    folder: Path,
    workers: Workers,
    stages: tuple[str, ...] = STAGES,
) -> Ended:
    """Lay a project out for a combination, run its stages, and return how it ended.

    Of a student, its teacher first, once for a folder: what the plain recipe of its start trains.
    """
    teacher = workers.work / "teachers" / name
    if combination["model"].get("teacher") and not teacher.exists():
        through_train = STAGES[: STAGES.index("train") + 1]
        if (ended := run(name, plain, plain, folder, workers, through_train))["outcome"] != "ran":
            raise RuntimeError(f"{name}: its plain recipe ended so: {ended}")
        shutil.copytree(folder / "data/trained", teacher)
    lay_out(name, combination, folder, workers.work)
    ended = workers.ask(combination["numerics"], {"folder": str(folder), "stages": stages})
    return ended | {"outcome": judged(ended, folder)}


def lay_out(name: str, combination: Recipe, folder: Path, work: Path) -> None:
    """Make the project of a combination: its recipe, params.yaml, and links to the code."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for linked in LINKED:
        (folder / linked).symlink_to(ROOT / linked)
    params = combination[PARAMS]
    recipe = starts.laid_out({key: of for key, of in combination.items() if key != PARAMS}, name, work)
    path = folder / "recipes" / params["task"] / f"{params['recipe']}.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(recipe, indent=1))  # JSON is YAML
    shutil.copy(ROOT / layout.defaults_file(params["task"]), path.parent)
    (folder / "params.yaml").write_text(json.dumps(params))


def judged(ended: Ended, folder: Path) -> str:
    """Return the outcome: ran, refused, or a kind of fault."""
    if any(path.name.endswith(".partial") for path in folder.rglob(".*")):
        return "left something half-written"
    if ended["outcome"] != "refused":
        return str(ended["outcome"])
    said, at = ended["said"], ended["at"]
    if not said.startswith("error: ") or not said.isprintable() or len(said) > LONGEST_LINE:
        return "refused in more than a line"
    if any((folder / output).exists() for output in OUTPUTS.get(at, ())):
        return "left something half-written"
    if at in BEFORE_TRAINING or (at == "train" and not has_trained(folder)):
        return "refused"
    return "diverged" if DIVERGED.search(said) else "refused late"


def has_trained(folder: Path) -> bool:
    """Return True if a run has made an update."""
    curves = (folder / ".scratch").rglob("loss.tsv")
    return any(len(path.read_text().splitlines()) > 1 for path in curves)
