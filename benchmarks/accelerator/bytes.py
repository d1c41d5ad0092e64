"""Do two trainings give the same bytes on the device, in its default precision; and does one that is killed?

Where they do not, the same updates run twice in one process, and the parameters whose gradients differ first are named.
Where torch has no deterministic algorithm, its message is the error. The cost of deterministic algorithms is measured
by the part `speed`: ours beside ours_any_order.
"""

import hashlib
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import ROOT
from benchmarks.accelerator import models, ours, projects
from benchmarks.accelerator.part import Part
from finetrail.stage import read_json

EXAMPLES, EXAMPLES_TINY = 270, 50
EPOCHS, EPOCHS_TINY = 4.0, 2.0
TASKS_TINY = ("text_classification", "masked_lm")
KILLED = TASKS_TINY[0]
# Sizes of a base model in real use, so that the same kernels run: MiniLM-L6's.
SIZES = models.MINILM
CHECKPOINTS = ".scratch/train/*/checkpoint-*/complete.json"
RESUMED = "resumes from the checkpoint"
MOST_SECONDS = 50
TICK = 0.002


def run(part: Part) -> None:
    with part.scratch() as work:
        tasks = TASKS_TINY if part.tiny else tuple(projects.SECTIONS)
        folders = {task: work / task / "first" for task in tasks}
        for task, folder in folders.items():
            make(task, folder, part.tiny)
        stages = (*projects.PREPARED, "train")
        failed = projects.run([(folder, stages) for folder in folders.values()], part.device, part.workers)
        ready = [folder for folder in folders.values() if folder not in failed]
        with ThreadPoolExecutor() as pool:
            killed = projects.copy(folders[KILLED], "killed") if folders[KILLED] in ready else None
            survived = pool.submit(killed_and_resumed, killed, part.device) if killed else None
            failed |= repeated(ready, part)
        for task, folder in folders.items():
            pairs = {execution: pair(folder, execution) for execution in ours.executions(part.device)}
            for execution, both in pairs.items():
                keep_pair(part, f"{task}, {execution}", both, failed if folder in ready else {both[0]: failed[folder]})
        if survived:
            keep_survival(part, survived.result(), folders[KILLED])


def make(task: str, folder: Path, tiny: bool) -> None:
    """Make a project whose training takes a few seconds; that of one task writes checkpoints meanwhile."""
    projects.make(
        task,
        folder,
        models.TINY if tiny else SIZES,
        dropout=True,
        examples=EXAMPLES_TINY if tiny else EXAMPLES,
        precision="auto",
        epochs=EPOCHS_TINY if tiny else EPOCHS,
        checkpoint_every="2 updates" if task == KILLED else None,
    )


def pair(first: Path, execution: str) -> tuple[Path, Path]:
    """Return the folders of two trainings that are executed in one way."""
    if execution == "auto":
        return first, first.with_name("second")
    return first.with_name(execution), first.with_name(f"{execution}-second")


def repeated(ready: list[Path], part: Part) -> dict[Path, str]:
    """Train all that is compared with another training, each pair in two processes; return the errors."""
    rounds: list[list[projects.Job]] = [[], []]
    for first in ready:
        for execution in ours.executions(part.device):
            for turn, folder in enumerate(pair(first, execution)):
                if folder != first:
                    projects.copy(first, folder.name, execution=execution)
                    rounds[turn].append((folder, ("train",)))
    errors = [projects.run(jobs, part.device, part.workers) for jobs in rounds if jobs]
    return {folder: error for of_round in errors for folder, error in of_round.items()}


def keep_pair(part: Part, name: str, both: tuple[Path, Path], failed: dict[Path, str]) -> None:
    """Keep whether two trainings have the same bytes."""
    errors = [failed[path] for path in both if path in failed]
    if errors and ours.NO_GRAPHS in errors[0]:
        found: dict[str, Any] = {"not_available": "cannot be recorded"}
    else:
        found = {"error": errors[0]} if errors else compared(both, part)
    part.keep(tasks=part.result.get("tasks", {}) | {name: found})
    for what in wrong(found):
        part.fail(f"{name}: {what}")


def compared(both: tuple[Path, Path], part: Part) -> dict[str, Any]:
    """Compare the weights of two trainings."""
    record = read_json(both[0] / projects.RECORD)
    found = {
        "updates": record["updates"],
        "how": projects.how(record),
        "sha256": [sha256(folder / projects.WEIGHTS)[:12] for folder in both],
    }
    if len(set(found["sha256"])) > 1 and part.seconds_left > MOST_SECONDS / 2:
        found["gradients"] = gradients(both[0], part.device)
    return found


def gradients(folder: Path, device: str) -> Any:
    """Return which gradients differ first between two trainings in one process."""
    command = [sys.executable, "-m", "benchmarks.accelerator.gradients", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, env=projects.environment(ROOT, device), stdout=subprocess.PIPE, text=True, check=False
    )
    lines = done.stdout.splitlines()
    return json.loads(lines[-1]) if done.returncode == 0 and lines else f"ended with code {done.returncode}"


def killed_and_resumed(folder: Path, device: str) -> dict[str, Any]:
    """Kill the train stage after its first checkpoint, and resume it; return how that went."""
    command = [sys.executable, "-m", "stages.train"]
    started = {"cwd": folder, "env": projects.environment(folder, device), "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **started) as process:
        begun = time.perf_counter()
        while process.poll() is None and not any(folder.glob(CHECKPOINTS)):
            if time.perf_counter() - begun > MOST_SECONDS:
                break
            time.sleep(TICK)
        alive = process.poll() is None
        process.kill()
        process.communicate()
    done = subprocess.run(command, timeout=MOST_SECONDS, check=False, **started)
    return {"killed": alive, "resumed": RESUMED in done.stderr, "code": done.returncode, "folder": folder}


def keep_survival(part: Part, found: dict[str, Any], first: Path) -> None:
    """Keep whether the killed training ended with the bytes of the undisturbed one."""
    weights = found.pop("folder") / projects.WEIGHTS
    same = weights.is_file() and (first / projects.WEIGHTS).is_file()
    found["same_bytes"] = same and sha256(weights) == sha256(first / projects.WEIGHTS)
    part.keep(killed=found)
    if not (found["killed"] and found["resumed"] and found["same_bytes"]):
        part.fail(f"killed training: {found}")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def wrong(found: dict[str, Any]) -> list[str]:
    """Return what is not as it should be."""
    if "error" in found:
        return [found["error"]]
    differ = len(set(found.get("sha256", []))) > 1
    return [f"two trainings differ; gradients: {found.get('gradients', 'no time to compare')}"] if differ else []


def rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    found = [(name, "failed" if wrong(values) else row(values)) for name, values in result["tasks"].items()]
    killed = result.get("killed", {})
    return [*found, ("killed and resumed", "the same bytes" if killed.get("same_bytes") else f"not: {killed}")]


def row(found: dict[str, Any]) -> str:
    if "not_available" in found:
        return found["not_available"]
    return f"the same bytes after {found['updates']} updates in {found['how']}: {found['sha256'][0]}"
