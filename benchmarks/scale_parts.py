"""Time and memory of what evaluation does with a million examples: `python -m benchmarks.scale_parts`.

Each is a process of its own: intervals of up to 10^6 texts with 20 and 1,000 labels, and the exact
search of 1,000 queries in up to 10^6 documents of 384 numbers.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks import keep, machine
from benchmarks.scale import environment, status
from finetrail.evaluation import bootstrap
from finetrail.schema import Bootstrap
from finetrail.tasks.retrieval import scoring as retrieval
from finetrail.tasks.text_classification import scoring as texts
from finetrail.tasks.text_classification.settings import Evaluate

SAMPLES = 1000
WIDTH, QUERIES = 384, 1_000
SETTINGS = Evaluate(
    batch_size=64, bootstrap=Bootstrap(samples=SAMPLES, confidence=0.95, seed=0), worst_errors=100, pool="mean",
    positive_label=None, threshold=None,
)  # fmt: skip


def intervals(examples: int, labels: int) -> None:
    """Compute all intervals of so many texts with so many labels."""
    draw = np.random.default_rng(0)
    names = pa.array([f"L{label}" for label in range(labels)])
    references = draw.integers(labels, size=examples)
    found = np.where(draw.random(examples) < 0.8, references, draw.integers(labels, size=examples))
    table = pa.table({
        "references": names.take(pa.array(references)), "predictions": names.take(pa.array(found)),
        "confidences": draw.random(examples).astype(np.float32),
    })  # fmt: skip
    target = {"problem": "single_label", "label_names": names.to_pylist()}
    bootstrap.intervals(examples, texts.statistics(table, target, SETTINGS), SETTINGS.bootstrap)


def search(documents: int) -> None:
    """Search for the 100 best of so many documents for each query."""
    draw = np.random.default_rng(0)
    collection, queries = (draw.standard_normal((n, WIDTH), dtype=np.float32) for n in (documents, QUERIES))
    retrieval.exact(queries, collection, 100)


PARTS: dict[str, Callable[[], None]] = {
    f"intervals of {examples:,} texts, {labels:,} labels": lambda n=examples, m=labels: intervals(n, m)
    for examples, labels in ((100_000, 20), (1_000_000, 20), (1_000_000, 1_000))
} | {f"exact search in {n:,} documents": lambda n=n: search(n) for n in (100_000, 1_000_000)}


def measured(name: str) -> dict[str, Any]:
    """Run a part in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.scale_parts", name]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=environment()).stdout)


if __name__ == "__main__":
    if sys.argv[1:]:
        import os

        PARTS[sys.argv[1]]()
        used = os.times()
        peak = status(os.getpid(), "VmHWM")["VmHWM"] / 1024
        print(json.dumps({"cpu_seconds": round(used.user + used.system, 1), "peak_mib": round(peak)}))
    else:
        keep("scale_parts", {"machine": machine()} | {name: measured(name) for name in PARTS})
