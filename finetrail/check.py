"""Validates params.yaml, every recipe and the DVC remotes, without running anything: python -m finetrail.check."""

from pathlib import Path

from finetrail import params, remotes, stage
from finetrail.errors import UserError


def main() -> None:
    """Tell all that is wrong, in one run."""
    problems = list(remotes.relative(Path.cwd()))
    try:
        params.check()
    except UserError as error:
        problems.insert(0, str(error))
    if problems:
        raise UserError("; ".join(problems))


if __name__ == "__main__":
    stage.run(main)
