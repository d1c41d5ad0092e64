"""Checkpoints that a killed run resumes from: complete, undamaged, and of exactly this run.

1. `key` hashes everything that determines a run, and names its folder below .scratch. Other runs never use it.
2. `CheckpointTimer` says after which updates a checkpoint is due; each end of an epoch has one as well.
3. The engine writes a checkpoint in its library's format, all processes into one folder.
4. `seal` writes complete.json last: the hashes of all files, moved into place. Only then older checkpoints are removed,
   except for the best one.
5. `newest` returns the newest checkpoint with a seal and undamaged files. An engine resumes there.
6. `clear` removes the folder once the model is written.
"""

import hashlib
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast

from finetrail import stage
from finetrail.dependencies import hashes, sha256

# Written last and moved into place: a checkpoint without it was never finished.
SEAL = "complete.json"
PREFIX = "checkpoint-"


def key(settings: Any, paths: Iterable[Path]) -> str:
    """Return the name of a run's scratch folder: a hash of everything that determines the run.

    settings: JSON values. paths: files, and folders with all their files, which count with their names and bytes.
    """
    whole = json.dumps([settings, hashes(paths)], sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


def folder(scratch: Path, update: int) -> Path:
    """Return the checkpoint's folder, as the Trainer names it."""
    return scratch / f"{PREFIX}{update}"


def seal(checkpoint: Path, scratch: Path, best: Path | None) -> None:
    """Mark a checkpoint as complete, with the hash of each file, and remove all others except the best."""
    sealed = {file.relative_to(checkpoint).as_posix(): sha256(file) for file in _files(checkpoint)}
    with stage.output(checkpoint / SEAL) as path:
        stage.write_json(path, {"best": best.name if best else None, "sha256": sealed})
    for other in scratch.glob(f"{PREFIX}*"):
        if other not in (checkpoint, best):
            stage.remove(other)


def newest(scratch: Path) -> Path | None:
    """Return the newest complete checkpoint, or None; log each one that is skipped."""
    found = sorted(scratch.glob(f"{PREFIX}*"), key=lambda path: int(path.name.removeprefix(PREFIX)), reverse=True)
    return next((checkpoint for checkpoint in found if is_whole(checkpoint)), None)


def is_whole(checkpoint: Path) -> bool:
    """Return True if a checkpoint is sealed and its files, and those of the best checkpoint, have their hashes."""
    try:
        sealed = json.loads((checkpoint / SEAL).read_text(encoding="utf-8"))
        damaged = [name for name, digest in sealed["sha256"].items() if sha256(checkpoint / name) != digest]
        best = sealed["best"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        damaged, best = [SEAL], None
    if damaged:
        stage.log(f"train: {checkpoint.name} is incomplete or damaged ({damaged[0]}): skipped")
    return not damaged and (best in (None, checkpoint.name) or is_whole(checkpoint.parent / best))


def _files(checkpoint: Path) -> list[Path]:
    return sorted(file for file in checkpoint.rglob("*") if file.is_file() and file.name != SEAL)


class CheckpointTimer:
    """Decides when a checkpoint is due: so many updates or minutes after the last, at a point of the loss curve.

    every: such as "500 updates" or "10 minutes"; None: never, beside those at the end of each epoch.
    """

    def __init__(self, every: str | None, log_steps: int) -> None:
        number, unit = every.split() if every else ("0", "never")
        self.number, self.unit, self.log_steps = int(number), unit, log_steps
        self.reset(0)

    def reset(self, update: int) -> None:
        """Start counting again, from a checkpoint after this update."""
        self.update, self.time = update, time.monotonic()

    def is_due(self, update: int, accelerator: Accelerator) -> bool:
        """Return True if a checkpoint is due after this update; all processes get the same answer."""
        # Between two points of the curve, the losses since the last point would be lost.
        if self.unit == "never" or update % self.log_steps:
            return False
        if self.unit == "updates":
            return update - self.update >= self.number
        minutes = torch.tensor((time.monotonic() - self.time) / 60, device=accelerator.device)
        return bool(broadcast(minutes) >= self.number)  # the main process's, because clocks differ


def clear(scratch: Path) -> None:
    """Remove the scratch folder of a finished run, and those that unfinished runs left beside it."""
    stage.remove(scratch.parent)
