"""A small project of each task after an uninterrupted run: where faults are tried, with the bytes to compare."""

import hashlib
import json
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from benchmarks import ROOT
from benchmarks.accelerator import models, projects
from benchmarks.faults import STAGES, forked

TASKS = tuple(projects.SECTIONS)
EXAMPLES, EPOCHS, CHECKPOINTS = 48, 4.0, "2 updates"


@dataclass(frozen=True)
class Toy:
    """The project of a task, the hashes of its outputs, and how many seconds each stage took."""

    task: str
    project: Path
    reference: dict[str, str]
    seconds: dict[str, float]

    def copied(self, project: Path) -> "Toy":
        """Return a copy of it elsewhere, with the code of now."""
        shutil.copytree(self.project, project)
        for name in ("stages", "finetrail"):
            remove(project / name)
            shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
        return replace(self, project=project)

    def clear(self, stage: str) -> None:
        """Remove a stage's outputs, as DVC does before it runs the stage, and what an earlier trial left in scratch."""
        for path in outputs(self.project, stage):
            remove(path)
        remove(self.project / ".scratch")

    def is_as_it_was(self, stage: str) -> bool:
        """Return True if a stage's outputs have the bytes of the uninterrupted run, without other files."""
        found = hashes(self.project, outputs(self.project, stage))
        names = {str(path.relative_to(self.project)) for path in outputs(self.project, stage)}
        expected = {name: digest for name, digest in self.reference.items() if belongs(name, names)}
        return found == expected and not list(self.project.glob("*/.*.partial"))


def uninterrupted(task: str, folder: Path, log: Path) -> Toy:
    """Return the project of a task after an uninterrupted run: the one of an earlier call, if the folder has it."""
    project, kept = folder / task / "project", folder / task / "uninterrupted.json"
    if not kept.exists():
        remove(project)
        projects.make(task, project, models.TINY, True, EXAMPLES, epochs=EPOCHS, checkpoint_every=CHECKPOINTS)
        seconds = {}
        for stage in STAGES:
            started = time.monotonic()
            ended = forked.run(stage, project, log)
            if ended.code:
                raise RuntimeError(ended.log)
            seconds[stage] = time.monotonic() - started
        everything = [path for stage in STAGES for path in outputs(project, stage)]
        kept.write_text(json.dumps({"reference": hashes(project, everything), "seconds": seconds}))
    return Toy(task, project, **json.loads(kept.read_text()))


def outputs(project: Path, stage: str) -> list[Path]:
    """Return the outputs of a stage, from dvc.yaml."""
    name, _, key = stage.partition("@")
    definition = yaml.safe_load((project / "dvc.yaml").read_text())["stages"][name]
    definition = definition.get("do", definition)
    listed = [*definition.get("outs", []), *definition.get("metrics", [])]
    names = [one if isinstance(one, str) else next(iter(one)) for one in listed]
    return [project / name.replace("${key}", key) for name in names]


def hashes(project: Path, paths: list[Path]) -> dict[str, str]:
    """Return the sha256 of each file, and of those in folders, by its name in the project."""
    files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()]
    return {str(file.relative_to(project)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def belongs(name: str, outputs: set[str]) -> bool:
    return any(name == output or name.startswith(f"{output}/") for output in outputs)


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
