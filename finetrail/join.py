"""Gets a teammate's results from the DVC remote, and says in one line why it cannot: it never trains.

python -m finetrail.join        # after `git pull`
"""

from pathlib import Path

from finetrail import layout, remotes, stage


def main() -> None:
    """Pull, check, and say where the results are."""
    remotes.join(Path.cwd())
    stage.log(f"join: nothing is left to run; the model is in {layout.EXPORTED}, the page in {layout.REPORT}")


if __name__ == "__main__":
    stage.run(main)
