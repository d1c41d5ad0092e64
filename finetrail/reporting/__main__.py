"""Logs four lines: the result of a run, its difference from Git, where to look, and what to try next.

`make run` ends with it.
"""

import json
import subprocess
from typing import Any

from finetrail import layout, stage, upgrades
from finetrail.reporting import summary
from finetrail.reporting.committed import difference


def main() -> None:
    """Log the lines."""
    stage.log(f"\nResult:  {summary.sentence(upgrades.record(stage.read_json(layout.EVALUATION_METRICS)))}")
    committed = read_committed()
    compared = difference(committed, stage.read_json(layout.RECORD)) if committed else None
    if compared:
        stage.log(f"In Git:  {compared}")
    stage.log(f"Look at: {layout.REPORT} in a browser; the model is in {layout.EXPORTED}, with a README.md")
    stage.log("Try:     source .venv/bin/activate; dvc exp run -S lr=1e-4; dvc metrics diff; dvc plots show")


def read_committed() -> dict[str, Any] | None:
    """Return record.json of the last commit; None if there is none."""
    show = ["git", "show", f"HEAD:./{layout.RECORD.as_posix()}"]
    done = subprocess.run(show, capture_output=True, check=False)
    try:
        return json.loads(done.stdout) if done.returncode == 0 else None
    except ValueError:  # such as a committed merge conflict
        return None


if __name__ == "__main__":
    stage.run(main)
