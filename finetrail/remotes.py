"""Pulls the results that dvc.lock names from the DVC remote, or says in one line why it cannot."""

import logging
from collections.abc import Iterator
from pathlib import Path

from dvc.config import Config
from dvc.config_schema import RelPath
from dvc.exceptions import DvcException
from dvc.repo import Repo

from finetrail.errors import UserError

CONFIG = Path(".dvc/config")
MOST_FILES = 3  # that a message lists


def relative(root: Path) -> Iterator[str]:
    """Yield a line for each shared remote whose URL is a path relative to the project.

    `dvc exp push` (3.67) reads the configuration from a commit, and takes the root of that commit for the root of the
    file system. It writes there, and reports success.
    """
    if not (root / CONFIG).is_file():
        return
    for name, remote in Config(str(root / CONFIG.parent)).load_one("repo")["remote"].items():
        if isinstance(remote.get("url"), RelPath):
            yield (
                f"{CONFIG}: remote {name!r} is a relative path, which `dvc exp push` takes from the root of the file "
                f"system; expected an absolute path: dvc remote modify {name} url {remote['url']}"
            )


def join(root: Path) -> None:
    """Pull what dvc.lock names, and the run-cache if the remote has one; UserError if a stage is left to run.

    Files from the remote are checked against their hashes. DVC itself trusts most remotes.
    """
    # DVC warns of each missing file and of stages; our one line says what matters.
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


COMMITTED = "expected settings, code and dvc.lock as they were committed and pushed: see `git status`"


def _pull(repo: Repo) -> None:
    """Fetch missing files, check them, and check them out into the workspace."""
    name = repo.config["core"].get("remote")
    if name not in repo.config["remote"]:
        raise UserError(
            f"no default DVC remote is set{f': {name!r} does not exist' if name else ''}; expected one: run `git pull` "
            "if a teammate has added it, or dvc remote add --default NAME URL"
        )
    url, failure = repo.config["remote"][name]["url"], ""
    try:
        repo.fetch(run_cache=True, config={"remote": {name: {"verify": True}}})
    except Exception as error:  # each remote's library, such as those for S3 and SSH, raises its own exceptions
        failure = f" ({' '.join(str(error).split())})"
    if lacking := [str(out) for out in repo.index.outs if out.use_cache and out.hash_info and out.changed_cache()]:
        raise UserError(
            f"remote {name!r} ({url}): files that dvc.lock names are missing or damaged: {_listed(lacking)}"
            f"{failure}; expected a reachable remote, and `dvc push --run-cache` where the results were computed"
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
