"""Measures our way beside a peer's on the same work in one run: `python -m benchmarks.NAME` in the project's root."""

import json
import os
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
CORPORA = Path(os.environ.get("FINETRAIL_CORPORA", ROOT.parent / "shared" / "corpora"))


def keep(name: str, result: dict[str, Any]) -> None:
    """Print a result and keep it for docs/performance.md."""
    text = json.dumps(result, indent=2)
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(text + "\n")
