"""Runs the stages of combinations, one after the other, as stdin names them: a line of JSON each, and one back.

python -m benchmarks.combinations.worker fast|portable
"""

import contextlib
import gc
import json
import os
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

from finetrail import environment, params, stage

_parsed: dict[str, Any] = {}
_read_yaml = params.read_yaml


def read_yaml_once(path: Path) -> Any:
    """Read a YAML file as always, but one that is known by its text not again: the stages read the same ones often."""
    text = path.read_text(encoding="utf-8")
    if text not in _parsed:
        _parsed[text] = _read_yaml(path)
    return _parsed[text]


def main() -> None:
    """Answer each job, {"folder": ..., "stages": [...]}, or {"bases": folder}, with what came of it."""
    environment.set_environment(sys.argv[1], None)
    params.read_yaml = read_yaml_once
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    for line in sys.stdin:
        job = json.loads(line)
        if "bases" in job:
            from benchmarks.combinations import bases

            bases.write(Path(job["bases"]))
            answers.write("{}\n")
        else:
            answers.write(json.dumps(run(Path(job["folder"]), job["stages"])) + "\n")


def run(folder: Path, stages: list[str]) -> dict[str, Any]:
    """Run the check and then the stages in a folder; return how it ended, at which stage, and what was said."""
    os.chdir(folder)
    started, at, ends = time.perf_counter(), "check", []
    with (folder / "log").open("w") as log, contextlib.redirect_stderr(log), contextlib.redirect_stdout(log):
        outcome, said = "ran", ""
        try:
            stage.run(params.validate)
            for at in stages:
                one(at)
                ends.append(round(time.perf_counter() - started, 1))
        except SystemExit as ended:
            outcome, said = "refused", str(ended.code)
        except BaseException as error:
            traceback.print_exc()
            outcome, said = "traceback", last_line(error)
    seconds = round(time.perf_counter() - started, 2)
    return {"outcome": outcome, "at": at, "said": said, "seconds": seconds, "ends": ends}


def one(name: str) -> None:
    """Run a stage as a process of its own would: with no setting of torch and no memory of the one before."""
    module = import_module(f"stages.{name}")
    if (torch := sys.modules.get("torch")) and "accelerate" in sys.modules:
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(reset_partial_state=True)
        torch.use_deterministic_algorithms(False)
        torch.compiler.reset()
        gc.collect()
    stage.run(module.main)


def last_line(error: BaseException) -> str:
    """Return the error, and the line of the project that it came through last."""
    root = Path(__file__).parents[2]
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(root)]
    ours = [frame for frame in ours if "/benchmarks/" not in frame.filename and "/.venv/" not in frame.filename]
    where = f"{Path(ours[-1].filename).relative_to(root)}:{ours[-1].lineno}" if ours else "?"
    return f"{where}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"


if __name__ == "__main__":
    main()
