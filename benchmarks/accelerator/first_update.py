"""Trains with a plain Trainer in the working folder up to the first update, and writes when that was made.

python -m benchmarks.accelerator.first_update DEVICE TASK BATCH_SIZE
"""

import sys
import time
from pathlib import Path

from benchmarks.accelerator import ours, plain
from benchmarks.accelerator.cases import OWN


class First:
    """Ends a training after its first update."""

    def updated(self) -> bool:
        Path("first_update").write_text(f"update\n{time.time()}\n")
        return True


def main(device: str, task: str, batch_size: str) -> None:
    values = ours.settings(batch_size=int(batch_size)) | OWN.get(task, {})
    plain.train(task, values, device, best=False, compiles=False, watch=First())


if __name__ == "__main__":
    main(*sys.argv[1:])
