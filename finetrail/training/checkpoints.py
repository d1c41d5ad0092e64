"""Turns a folder of scratch into checkpoints that can be trusted: whole ones, of this very run, the newest first."""

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
    """Return the name of a run's scratch: a hash of everything that determines it, so that no other run meets it.

    settings are JSON; the files among paths, and in folders among them, count with their names and bytes.
    """
    whole = json.dumps([settings, hashes(paths)], sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


def folder(scratch: Path, update: int) -> Path:
    """Return the checkpoint's folder, as the Trainer names it."""
    return scratch / f"{PREFIX}{update}"


def seal(checkpoint: Path, scratch: Path, best: Path | None) -> None:
    """Declare a checkpoint complete, with the hash of each file, and remove all older ones but the best."""
    sealed = {file.relative_to(checkpoint).as_posix(): sha256(file) for file in _files(checkpoint)}
    with stage.output(checkpoint / SEAL) as path:
        stage.write_json(path, {"best": best.name if best else None, "sha256": sealed})
    for other in scratch.glob(f"{PREFIX}*"):
        if other not in (checkpoint, best):
            stage.remove(other)


def newest(scratch: Path) -> Path | None:
    """Return the newest complete checkpoint; tell of each that is damaged."""
    found = sorted(scratch.glob(f"{PREFIX}*"), key=lambda path: int(path.name.removeprefix(PREFIX)), reverse=True)
    return next((checkpoint for checkpoint in found if is_whole(checkpoint)), None)


def is_whole(checkpoint: Path) -> bool:
    """Tell whether a checkpoint was finished, and its files and the best one's, which a run ends with, are as then."""
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
    """Tells when a checkpoint is due: so many updates or minutes after the last one, at a point of the loss curve."""

    def __init__(self, every: str | None, log_steps: int) -> None:
        number, unit = every.split() if every else ("0", "never")
        self.number, self.unit, self.log_steps = int(number), unit, log_steps
        self.reset(0)

    def reset(self, update: int) -> None:
        """Begin to count anew."""
        self.update, self.time = update, time.monotonic()

    def is_due(self, update: int, accelerator: Accelerator) -> bool:
        """Tell whether one is due after this update, the same in all processes."""
        # Between two points of the curve the losses since the last one would be lost.
        if self.unit == "never" or update % self.log_steps:
            return False
        if self.unit == "updates":
            return update - self.update >= self.number
        minutes = torch.tensor((time.monotonic() - self.time) / 60, device=accelerator.device)
        return bool(broadcast(minutes) >= self.number)  # of the main process: clocks differ


def clear(scratch: Path) -> None:
    """Remove the scratch of a run that is done, and what runs that nobody finished have left beside it."""
    stage.remove(scratch.parent)
