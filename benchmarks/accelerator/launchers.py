"""Do DDP and FSDP2, each with one process, give the losses of a process that no launcher started?"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.accelerator import models, projects
from benchmarks.accelerator.part import Part

TASK = "text_classification"
EXAMPLES, EXAMPLES_TINY = 270, 50
MOST_DIFFERENCE = 1e-4
STAGE = ("-m", "stages.train")
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-endpoint")
ACCELERATE = ("-m", "accelerate.commands.accelerate_cli", "launch", "--num_machines", "1", "--num_processes", "1")
FSDP = ("--use_fsdp", "--fsdp_version", "2", "--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP")
ALONE = "one process"
LAUNCHERS = {
    ALONE: STAGE,
    "DDP": (*TORCHRUN, "127.0.0.1:0", *STAGE),
    "FSDP2": (*ACCELERATE, "--mixed_precision", "no", "--dynamo_backend", "no", *FSDP, *STAGE),
}


def run(part: Part) -> None:
    with part.scratch() as work:
        sizes, examples = (models.TINY, EXAMPLES_TINY) if part.tiny else (models.SMALL, EXAMPLES)
        project = projects.make(TASK, work / "project", sizes, False, examples, precision="fp32", lr=1e-4)
        if error := projects.run([(project, projects.PREPARED)], "cpu", 1).get(project):
            raise RuntimeError(error)
        # Accelerate (1.15) starts FSDP on accelerators only.
        chosen = [name for name in LAUNCHERS if part.device == "cuda" or name != "FSDP2"]
        folders = {name: projects.copy(project, name.replace(" ", "-")) for name in chosen}
        seconds = part.seconds_left
        with ThreadPoolExecutor() as pool:
            errors = pool.map(lambda name: trained(folders[name], LAUNCHERS[name], part.device, seconds), chosen)
            failed = {name: error for name, error in zip(chosen, errors, strict=True) if error}
        part.keep(launchers={name: {"not_available": "needs a GPU"} for name in LAUNCHERS if name not in chosen})
        for name in chosen:
            keep(part, name, folders, failed)


def trained(folder: Path, program: tuple[str, ...], device: str, seconds: float) -> str | None:
    """Train in a folder; return the last line of what was printed where that failed."""
    command = [sys.executable, *program]
    environment = projects.environment(folder, device, len(LAUNCHERS)) | {"OMP_NUM_THREADS": threads()}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return "took too long"
    print(done.stderr, file=sys.stderr)
    lines = [line for line in done.stderr.splitlines() if "Error" in line or "error:" in line]
    return (lines or [f"ended with code {done.returncode}"])[-1][:200] if done.returncode else None


def threads() -> str:
    return str(max(1, (os.cpu_count() or 1) // len(LAUNCHERS)))


def keep(part: Part, name: str, folders: dict[str, Path], failed: dict[str, str]) -> None:
    """Keep how far a launcher's losses are from those of one process."""
    error = failed.get(name) or failed.get(ALONE)
    if error:
        found: dict[str, Any] = {"error": error}
    else:
        losses = [projects.losses(folders[which]) for which in (name, ALONE)]
        found = {"updates": len(losses[0]), "worst_difference": projects.worst_difference(*losses)}
    part.keep(launchers=part.result["launchers"] | {name: found})
    if error or found["worst_difference"] > MOST_DIFFERENCE:
        part.fail(f"{name}: {error or found}")


def rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name, row(found)) for name, found in result["launchers"].items() if name != ALONE]


def row(found: dict[str, Any]) -> str:
    if "worst_difference" in found:
        return f"losses of {found['updates']} updates differ by {found['worst_difference']:.0e}"
    return "not available: " + found["not_available"] if "not_available" in found else "failed"
