"""Tells in three lines what a run gave, where to look and what to try next; `make run` ends with it."""

from finetrail import layout, stage
from finetrail.reporting import summary


def main() -> None:
    """Log the three lines."""
    stage.log(f"\nResult:  {summary.sentence(stage.read_json(layout.EVALUATION_METRICS))}")
    stage.log(f"Look at: {layout.REPORT} in a browser; the model is in {layout.EXPORTED}, with a README.md")
    stage.log("Try:     source .venv/bin/activate; dvc exp run -S lr=1e-4; dvc metrics diff; dvc plots show")


if __name__ == "__main__":
    stage.run(main)
