"""Runs stages one after the other in the folders that stdin names, as JSON; leaves ended.json in each."""

import gc
import json
import os
import sys
import time
import traceback
import warnings
from importlib import import_module
from pathlib import Path


def main() -> None:
    warnings.simplefilter("ignore")
    for folder, stages in json.load(sys.stdin):
        started, error = time.perf_counter(), None
        os.chdir(folder)
        try:
            for stage in stages:
                run(stage)
        except (Exception, SystemExit) as raised:
            traceback.print_exc()
            error = f"{type(raised).__name__}: {str(raised)[:300]}"
        ended = {"error": error, "seconds": round(time.perf_counter() - started, 2)}
        Path("ended.json").write_text(json.dumps(ended))


def run(stage: str) -> None:
    """Run a stage as a process of its own would: with no setting of torch and no memory of the one before."""
    main = import_module(f"stages.{stage}").main
    if torch := sys.modules.get("torch"):
        torch.use_deterministic_algorithms(False)
        torch.backends.cuda.matmul.fp32_precision = "ieee"  # which evaluation makes TF32
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    main()


if __name__ == "__main__":
    main()
