"""Does each task train, evaluate and export on the device, with the losses and the predictions of the CPU?

The same project runs twice, in fp32 and without dropout, and the loss curves are compared. Then the device evaluates
what the CPU has trained. Where a prediction differs, each device must be as sure of its own as the other one of its:
such a near tie may fall either way. A third training, with the precision and the batches that are the default on the
device, follows the others more loosely: its differences are shares of the mean loss.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.accelerator import models, ours, projects
from benchmarks.accelerator.part import Part
from finetrail.stage import read_json

EXAMPLES, EXAMPLES_TINY = 270, 50
UPDATES = 20
MOST_DIFFERENCE = 1e-4
MOST_DIFFERENCE_BY_DEFAULT = 0.05
NEAR_TIE = 1e-2  # evaluation may multiply as TF32
EPOCHS = {"masked_lm": 2.0}  # its blocks are fewer than the examples
SURE = ("confidences", "scores")


def run(part: Part) -> None:
    with part.scratch() as work:
        folders = {task: work / task / "reference" for task in projects.SECTIONS}
        for task, folder in folders.items():
            projects.make(
                task,
                folder,
                models.TINY if part.tiny else models.SMALL,
                dropout=False,
                examples=EXAMPLES_TINY if part.tiny else EXAMPLES,
                lr=1e-4,
                precision="fp32",
                epochs=EPOCHS.get(task, 1.0),
            )
        stages = (*projects.PREPARED, "train", "evaluate")
        failed = by_task(projects.run([(folder, stages) for folder in folders.values()], "cpu", part.workers))
        jobs = on_the_device([folder for task, folder in folders.items() if task not in failed], part.device)
        errors = projects.run(jobs, part.device, part.workers) if jobs else {}
        refused = {folder: error for folder, error in errors.items() if ours.NO_GRAPHS in error}
        failed |= by_task({folder: error for folder, error in errors.items() if folder not in refused})
        for task, folder in folders.items():
            found = {"error": failed[task]} if task in failed else compared(folder, part.device)
            part.keep(tasks=part.result.get("tasks", {}) | {task: found})
            for what in wrong(found):
                part.fail(f"{task}: {what}")


def on_the_device(references: list[Path], device: str) -> list[projects.Job]:
    """Return the jobs that do the same on the device, the longest first."""
    jobs: list[projects.Job] = []
    jobs += [(projects.copy(folder, "device"), ("train", "evaluate", "export")) for folder in references]
    for execution in ours.executions(device):
        copies = [projects.copy(folder, execution, execution=execution, precision="auto") for folder in references]
        jobs += [(folder, ("train",)) for folder in copies]
    return jobs + [(projects.copy(folder, "scored"), ("evaluate",)) for folder in references]


def by_task(errors: dict[Path, str]) -> dict[str, str]:
    """Return the errors by task; of several the last."""
    return {folder.parent.name: f"{folder.name}: {error}" for folder, error in errors.items()}


def compared(reference: Path, device: str) -> dict[str, Any]:
    """Compare what the device has made with the CPU's."""
    losses = projects.losses(reference)[:UPDATES]
    trained = reference.with_name("device")
    return {
        "updates": len(losses),
        "worst_difference_of_losses": projects.worst_difference(projects.losses(trained)[:UPDATES], losses),
        "by_default": {name: by_default(reference.with_name(name), losses) for name in ours.executions(device)},
        "exported": (trained / "data/exported/onnx/model.onnx").is_file(),
    } | predictions(reference / projects.PREDICTED, reference.with_name("scored") / projects.PREDICTED)


def by_default(folder: Path, losses: list[float]) -> dict[str, Any]:
    """Compare a training with the default precision, as a share of the mean loss."""
    if json.loads((folder / "ended.json").read_text())["error"]:
        return {"not_available": "cannot be recorded"}
    record = read_json(folder / projects.RECORD)
    apart = projects.worst_share_of_mean(projects.losses(folder)[:UPDATES], losses)
    return {"worst_difference": apart, "how": projects.how(record)}


def predictions(expected: Path, found: Path) -> dict[str, Any]:
    """Count the predictions, and those that differ; say how far apart the numbers are, there and anywhere."""
    values, sure = (dict(zip(("expected", "found"), map(reader, (expected, found)), strict=True)) for reader in READERS)
    apart = [abs(one - other) for one, other in zip(sure["expected"], sure["found"], strict=True)]
    pairs = zip(values["expected"], values["found"], apart, strict=True)
    margins = [margin for one, other, margin in pairs if one != other]
    return {
        "predictions": len(apart),
        "differing_predictions": len(margins),
        "widest_margin_of_those": max(margins, default=0.0),
        "worst_difference_of_confidences": max(apart),
    }


def answers(path: Path) -> list[Any]:
    """Return all predictions, one after the other."""
    return list(flat(pq.read_table(path)["predictions"].to_pylist()))


def confidences(path: Path) -> list[float]:
    """Return how sure the model is of each prediction, or by what number it ranks."""
    table = pq.read_table(path)
    [name] = [name for name in SURE if name in table.column_names]
    return list(flat(table[name].to_pylist()))


READERS = (answers, confidences)


def flat(values: list[Any]) -> Iterator[Any]:
    """Yield the elements of lists, and of lists inside them."""
    for value in values:
        if isinstance(value, list):
            yield from flat(value)
        else:
            yield value


def wrong(found: dict[str, Any]) -> list[str]:
    """Return what is not as it should be."""
    if "error" in found:
        return [found["error"]]
    checks = [
        ("losses", found["worst_difference_of_losses"], MOST_DIFFERENCE),
        ("a prediction, by a margin that", found["widest_margin_of_those"], NEAR_TIE),
    ]
    trained = [values for values in found["by_default"].values() if "how" in values]
    checks += [(f"losses in {one['how']}", one["worst_difference"], MOST_DIFFERENCE_BY_DEFAULT) for one in trained]
    far = [f"{what} differs by {value:.1e}" for what, value, most in checks if not value <= most]
    return far + ([] if found["exported"] else ["nothing was exported"])


def rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    return [(task, row(found)) for task, found in result["tasks"].items()]


def row(found: dict[str, Any]) -> str:
    if "error" in found:
        return "failed"
    trained = [values for values in found["by_default"].values() if "how" in values]
    parts = [f"losses differ by {found['worst_difference_of_losses']:.0e} in fp32"]
    parts += [f"by {one['worst_difference']:.0e} in {one['how']}" for one in trained]
    return ", ".join([*parts, f"{found['differing_predictions']} of {found['predictions']:,} predictions differ"])
