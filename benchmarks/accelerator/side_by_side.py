"""Measures cases in one process, side by side: `python -m benchmarks.accelerator.side_by_side`, its orders on stdin.

Each thing that is begun or found is a line of JSON in a file, so that whoever ends the process has all before.
"""

import gc
import json
import os
import sys
import time
import traceback
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from transformers import logging
from transformers.utils.import_utils import enable_tf32

from benchmarks.accelerator import features, ours, plain
from benchmarks.accelerator.cases import LORA, OWN, SIDES, Case, Side, Work, work
from benchmarks.accelerator.watch import LENGTH, LENGTH_TINY, Watch

EPOCHS = 10.0  # so many updates that they would be worth recording; the first of them are measured
PROFILED = ("plain", "plain_best", "ours")
BROKEN = 3


def main() -> None:
    """Measure the cases until the deadline; end with code BROKEN where the device takes no more work."""
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    orders = json.load(sys.stdin)
    device, tiny, folder = orders["device"], orders["tiny"], Path(orders["folder"])
    with Path(orders["results"]).open("a") as results:
        for values, side in orders["cases"]:
            if time.time() > orders["deadline"]:
                break
            case = Case(*values)
            write_line(results, case=case.name, side=side)
            write_line(results, case=case.name, side=side, found=measured(case, side, device, tiny, folder))
            if device == "cuda" and not works():
                sys.exit(BROKEN)


def write_line(results: Any, **line: Any) -> None:
    results.write(json.dumps(line) + "\n")
    results.flush()


def works() -> bool:
    """Return True if the device still computes: after an error in a kernel, the process cannot use it."""
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True


def measured(case: Case, side_name: str, device: str, tiny: bool, folder: Path) -> dict[str, Any]:
    """Return the figures of one side, or the reason why it has none."""
    side = SIDES[side_name]
    missing = None if side.plain else ours.lacks(side.execution, device)
    if missing:
        return {"not_available": missing}
    try:
        watch = Watch(device, LENGTH_TINY if tiny else LENGTH, side_name in PROFILED)
        os.chdir(features.of_case(case, device, tiny, folder, watch.length.most_updates))
        needs = work(case, tiny)
        watch.started = time.perf_counter()
        return train(case, side, device, needs, watch)
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {str(error)[:300]}"}
    finally:
        clean(compiled=side.compiles or side.execution == "compile")


def clean(compiled: bool) -> None:
    """Leave the device for the next side as this one found it."""
    torch.use_deterministic_algorithms(False)
    if torch.cuda.is_available():
        enable_tf32(False)
    if compiled:  # else it would import the compiler
        torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def values(case: Case, side: Side) -> dict[str, Any]:
    """Return the section train of the case's recipe."""
    own = OWN.get(case.task, {}) | {"lora": LORA if case.lora else None}
    return ours.settings(side.execution, epochs=EPOCHS, batch_size=case.batch_size, log_steps=10) | own


def train(case: Case, side: Side, device: str, needs: Work, watch: Watch) -> dict[str, Any]:
    """Train one side until the watch has seen enough, and return its figures."""
    ways: dict[str, str] = {}
    if side.plain:
        trainer = plain.train(case.task, values(case, side), device, side.best, side.compiles, watch)
        sizes = torch.stack(trainer.seen).tolist()
        loss = float(torch.stack(trainer.losses[-10:]).mean())
    else:
        seen: list[float] = []

        def updated(logger: Any) -> None:
            if watch.updated():
                seen.append(logger.loss)
                raise ours.Enough

        with ours.variant(side.padding, side.deterministic, updated) as ways, suppress(ours.Enough):
            ours.train(case.task, values(case, side), device, Path("scratch"))
        arrays = ours.lengths_of_updates(case.task, case.batch_size)
        sizes = [(int(lengths.sum()), int((lengths**2).sum())) for lengths in arrays]
        [loss] = seen

    def passed(first: int, end: int) -> dict[str, float]:
        tokens, squares = (sum(column) for column in zip(*sizes[first:end], strict=True))
        return {"useful_tokens": tokens, "operations": needs.operations(tokens, squares)}

    return watch.figures(passed) | ways | {"loss": round(loss, 4)}


if __name__ == "__main__":
    main()
