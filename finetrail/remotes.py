"""Turns a clone and its DVC remote into the results of its dvc.lock, or into one line that says why it cannot."""

import logging
from collections.abc import Iterator
from pathlib import Path

from dvc.config import Config
from dvc.config_schema import RelPath
from dvc.exceptions import DvcException
from dvc.repo import Repo

from finetrail.errors import UserError

CONFIG = Path(".dvc/config")
MOST_FILES = 3  # of a line that people read


def relative(root: Path) -> Iterator[str]:
    """Yield a line for each remote that all clones share and that is a path relative to the project.

    `dvc exp push` (3.67) reads the configuration out of a commit, whose root it takes for that of the file system. It
    writes there, and reports success.
    """
    if not (root / CONFIG).is_file():
        return
    for name, remote in Config(str(root / CONFIG.parent)).load_one("repo")["remote"].items():
        if isinstance(remote.get("url"), RelPath):
            yield (
                f"{CONFIG}: remote {name!r} is a relative path, which `dvc exp push` takes from the root of the file "
                f"system; expected an absolute one: dvc remote modify {name} url {remote['url']}"
            )


def join(root: Path) -> None:
    """Pull what dvc.lock names, and the run-cache where the remote has one; UserError if then anything is left to run.

    What comes from the remote is held against its hash: DVC trusts most remotes without looking.
    """
    # DVC warns of each missing file, and of stages; what matters is in our one line.
    for library in ("dvc", "dvc_data", "dvc_objects"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    try:
        with Repo(str(root)) as repo:
            _pull(repo)
            again = repo.status()
    except DvcException as error:
        raise UserError(f"DVC: {error}") from None
    if again:
        raise UserError(f"`dvc repro` would run {', '.join(again)} again: {_first_change(again)}; {COMMITTED}")


COMMITTED = "expected settings, code and dvc.lock as somebody committed and pushed them: look at `git status`"


def _pull(repo: Repo) -> None:
    """Fetch what is missing, check it, and put it into the workspace."""
    name = repo.config["core"].get("remote")
    if name not in repo.config["remote"]:
        raise UserError(
            f"no default DVC remote is set{f', {name!r} is not there' if name else ''}; expected one: `git pull`, if "
            "somebody has added it, or dvc remote add --default NAME URL"
        )
    url, failure = repo.config["remote"][name]["url"], ""
    try:
        repo.fetch(run_cache=True, config={"remote": {name: {"verify": True}}})
    except Exception as error:  # of a remote's own library, such as one for S3 or SSH, each with exceptions of its own
        failure = f" ({' '.join(str(error).split())})"
    if lacking := [str(out) for out in repo.index.outs if out.use_cache and out.hash_info and out.changed_cache()]:
        raise UserError(
            f"remote {name!r} ({url}) does not give what dvc.lock names, or gives it damaged: {_listed(lacking)}"
            f"{failure}; expected a remote that can be reached, and `dvc push --run-cache` where the results were made"
        )
    repo.checkout()


def _listed(names: list[str]) -> str:
    more = len(names) - MOST_FILES
    return ", ".join(names[:MOST_FILES]) + (f" and {more} more" if more > 0 else "")


def _first_change(status: dict[str, list[object]]) -> str:
    """Return what DVC says of the first stage that would run, such as: changed deps params.yaml lr modified."""
    kind = next(iter(status.values()))[0]
    words = []
    while isinstance(kind, dict):
        key, kind = next(iter(kind.items()))
        words.append(str(key))
    return " ".join([*words, str(kind)])
