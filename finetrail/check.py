"""Validates params.yaml, all recipes, dvc.lock and DVC remotes, and runs nothing: python -m finetrail.check."""

from pathlib import Path

from finetrail import layout, mend, params, remotes, stage
from finetrail.errors import UserError


def main() -> None:
    """Report everything that is wrong, in one run."""
    problems = list(remotes.relative(Path.cwd()))
    if layout.LOCK.exists() and not mend.is_whole(layout.LOCK.read_bytes()):
        problems.append(f"{layout.LOCK} is cut off, or has both sides of a merge; expected `python -m finetrail mend`")
    try:
        params.check()
    except UserError as error:
        problems.insert(0, str(error))
    if problems:
        raise UserError("; ".join(problems))


if __name__ == "__main__":
    stage.run(main)
