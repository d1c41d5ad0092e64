"""Fetches and verifies the recipe's base model: data/model, with safetensors weights, tokenizer and provenance.

For a student, it keeps the layers that the recipe names, and adds the teacher.
"""

from pathlib import Path
from typing import Any

from finetrail import layout, schema, tasks
from finetrail.model.base import copy_verified, limits, probe
from finetrail.model.base.layers import keep_layers
from finetrail.params import load
from finetrail.progress import working
from finetrail.sources import Fetched, describe, fetch, pin_hint
from finetrail.stage import log, outputs, run, write_json


def main() -> None:
    """Fetch the base model, and its teacher if it has one; verify and write them with their provenance."""
    declared = load("download@model")
    model, auto_class = declared.model, tasks.module(declared.task, "settings").AUTO_CLASS
    student = model if isinstance(model, schema.Student) else None
    teacher = student.teacher if student else None
    fetched = fetch(model.source, "model", layout.SCRATCH)
    of_teacher = fetch(teacher.source, "model", layout.SCRATCH) if teacher else None
    with outputs(layout.MODEL) as [folder]:
        provenance = copied(fetched, model, folder)
        if student and student.layers is not None:
            keep_layers(folder / layout.WEIGHTS.name, student.layers)
            provenance["layers"] = student.layers
        probed(folder, fetched, auto_class)
        if teacher and of_teacher:
            provenance["teacher"] = copied(of_teacher, teacher, folder / layout.TEACHER.name)
            probed(folder / layout.TEACHER.name, of_teacher, auto_class)
        write_json(folder / layout.MODEL_PROVENANCE.name, provenance)
    log_model(fetched, provenance)
    if of_teacher:
        log_model(of_teacher, provenance["teacher"], "teacher ")


def copied(fetched: Fetched, model: schema.Model | schema.Teacher, folder: Path) -> dict[str, Any]:
    """Copy a model's verified files, and return its provenance."""
    copy_verified(fetched, folder)
    provenance = {"name": model.name, **fetched.provenance}
    return provenance | {"license": model.license or provenance["license"]}


def probed(folder: Path, fetched: Fetched, auto_class: str) -> None:
    """Build the model in a process with limits; UserError if its configuration makes none, or exceeds the limits."""
    where = describe(fetched.provenance)
    with working("build the model"):
        too_much = f"{where}: its model takes too much to build"
        limits.call(probe.build, folder / layout.WEIGHTS.name, auto_class, where, what=too_much)


def log_model(fetched: Fetched, provenance: dict[str, Any], what: str = "") -> None:
    """Log what was downloaded, and what to pin if its source may change."""
    if hint := pin_hint(fetched):
        log(f"download@model: {what}{hint}")
    size = (
        "new: train draws its weights" if fetched.provenance["kind"] == "new" else f"{provenance['bytes'] / 1e6:.0f} MB"
    )
    kept = f", layers {', '.join(map(str, provenance['layers']))}" if "layers" in provenance else ""
    log(f"download@model: {what}{provenance['name']}{kept}, {size}, sha256 {provenance['sha256'][:8]}…")


if __name__ == "__main__":
    run(main)
