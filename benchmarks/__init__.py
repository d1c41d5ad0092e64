"""Benchmarks of finetrail beside a peer on the same work: `python -m benchmarks.NAME` in the project's root."""

import json
import os
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
CORPORA = Path(os.environ.get("FINETRAIL_CORPORA", ROOT.parent / "shared" / "corpora"))


def machine() -> str:
    """Return the CPU, its best instructions and the number of torch's threads, to name the machine of a figure."""
    from finetrail import numerics  # imports torch, which not every benchmark does

    record = numerics.record("fast")
    return f"{record['cpu']}, {record['instructions']}, {record['threads']} threads"


def keep(name: str, result: dict[str, Any], kind: str | None = None) -> None:
    """Print a result and keep it for docs/performance.md; kind: of machine, each of which keeps a result."""
    print(json.dumps(result, indent=2))
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    if kind:
        result = (json.loads(file.read_text()) if file.exists() else {}) | {kind: result}
    file.write_text(json.dumps(result, indent=2) + "\n")
