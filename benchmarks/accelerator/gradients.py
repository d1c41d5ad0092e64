"""Trains twice in one process and tells which gradients differ first.

python -m benchmarks.accelerator.gradients FOLDER

The folder is a project with features. The last line is JSON: the update, from 1, and the parameters, those nearest to
the loss first; or that none differed.
"""

import json
import os
import shutil
import sys
import warnings
from contextlib import suppress
from typing import Any
from unittest.mock import patch

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from benchmarks.accelerator import ours
from finetrail import layout
from stages import train as train_stage

UPDATES = 10
SHOWN = 5

# For each update, parameter -> a sum of its gradient's bits, which does not depend on the order of summing.
Sums = list[dict[str, int]]


def main(folder: str) -> None:
    warnings.simplefilter("ignore")
    os.chdir(folder)
    print(json.dumps(first_difference(sums(), sums())))


def sums() -> Sums:
    """Train a few updates, and return the sums of the gradients that the optimizer gets."""
    shutil.rmtree(layout.SCRATCH, ignore_errors=True)
    models: list[Any] = []
    found: Sums = []
    build = train_stage.build_model

    def kept(*arguments: Any) -> Any:
        models[:] = [build(*arguments)]
        return models[0]

    def about_to_step(*arguments: Any) -> None:
        named = models[0].named_parameters()
        found.append({name: bits(parameter.grad) for name, parameter in named if parameter.grad is not None})
        if len(found) == UPDATES:
            raise ours.Enough

    hook = register_optimizer_step_pre_hook(about_to_step)
    try:
        with patch.object(train_stage, "build_model", kept), suppress(ours.Enough):
            train_stage.main()
    finally:
        hook.remove()
    return found


def bits(gradient: torch.Tensor) -> int:
    return int(gradient.detach().float().contiguous().view(torch.int32).sum(dtype=torch.int64))


def first_difference(one: Sums, other: Sums) -> dict[str, Any]:
    """Return the first update with gradients that differ, and the last of their parameters."""
    if not one:
        return {"update": None, "parameters": [], "note": "the optimizer's steps were not seen"}
    for update, (sums_of_one, sums_of_other) in enumerate(zip(one, other, strict=True), start=1):
        differing = [name for name in sums_of_one if sums_of_one[name] != sums_of_other[name]]
        if differing:
            return {"update": update, "of": len(sums_of_one), "parameters": differing[::-1][:SHOWN]}
    return {"update": None, "parameters": []}


if __name__ == "__main__":
    main(*sys.argv[1:])
