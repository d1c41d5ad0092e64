"""Pulls a teammate's results from the DVC remote, or says in one line why it cannot; it never trains.

python -m finetrail.join        # after `git pull`
"""

from pathlib import Path

from finetrail import layout, mend, remotes, stage


def main() -> None:
    """Repair damage by a kill or the disk, pull, check, and log where the results are."""
    for line in mend.mend(Path.cwd(), data=True):
        stage.log(f"join: {line}")
    remotes.join(Path.cwd())
    stage.log(f"join: nothing is left to run; the model is in {layout.EXPORTED}, the page in {layout.REPORT}")


if __name__ == "__main__":
    stage.run(main)
