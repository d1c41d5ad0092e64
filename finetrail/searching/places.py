"""Gives each trial a clone of the project while it runs, so that neither the workspace nor another trial changes."""

import fcntl
import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dvc.repo import Repo
from ruamel.yaml import YAML

from finetrail import layout, stage
from finetrail.errors import UserError

COMMIT, CHANGES = "commit", "changes.patch"
# Refs to which a revision in a source of kind dvc may refer, without DVC's own refs of running experiments.
REFS = (
    "+refs/heads/*:refs/heads/*",
    "+refs/tags/*:refs/tags/*",
    "+refs/exps/*:refs/exps/*",
    *(f"^refs/exps/{name}" for name in ("exec/*", "stash", "celery/*")),
)
# Disables background maintenance, which would keep files of a removed clone open.
QUIETLY = ("-c", "gc.auto=0", "-c", "maintenance.auto=false")
# Git does not track this folder, and recipes refer to its files by relative paths.
LINKED = "corpora"


@dataclass(frozen=True)
class Place:
    """A folder for one trial at a time, with a lock and a clone."""

    folder: Path
    lock: int  # file descriptor; the lock lasts as long as a process has it open

    @property
    def number(self) -> int:
        """Return the slot's number."""
        return int(self.folder.name)

    @property
    def project(self) -> Path:
        """Return the clone."""
        return self.folder / "project"


def note(root: Path, folder: Path) -> None:
    """Record the commit that all trials start from, and the changes to its files; the workspace is not changed."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CHANGES).write_bytes(_changes(root))
    (folder / COMMIT).write_text(_commit(root), encoding="utf-8")


def changed_since(root: Path, folder: Path) -> bool:
    """Return True if the project's files have changed since the search started."""
    return (_commit(root), _changes(root)) != ((folder / COMMIT).read_text(), (folder / CHANGES).read_bytes())


def check_tracked(root: Path, file: Path) -> None:
    """Raise UserError if Git does not track a file that each trial needs."""
    if not git(root, "ls-files", "--", file.as_posix()):
        raise UserError(f"{file}: not tracked by Git, but trials run in clones; expected: git add {file}")


@contextmanager
def taken(folder: Path, first: list[int]) -> Iterator[Place]:
    """Lock a slot that no process holds; the slots in `first` are tried before others."""
    for number in itertools.chain(first, itertools.count()):
        (folder / str(number)).mkdir(parents=True, exist_ok=True)
        opened = os.open(folder / str(number) / "lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(opened)
            continue
        try:
            yield Place(folder / str(number), opened)
        finally:
            os.close(opened)
        return


def prepare(root: Path, folder: Path, place: Place) -> None:
    """Reset a slot's clone to the state that all trials start from; files that Git ignores stay: data, checkpoints."""
    try:
        _reset(root, folder, place.project)
    except (subprocess.CalledProcessError, OSError):  # there is no clone yet, or a kill left it incomplete
        stage.remove(place.project)
        git(root, "clone", "--quiet", "--no-checkout", "--local", str(root), str(place.project))
        _reset(root, folder, place.project)
        _share(root, place.project)
    _leave_out_missing(place.project)


def forget(place: Place) -> None:
    """Remove the checkpoints and curves of a trial that is not resumed."""
    stage.remove(place.project / layout.SCRATCH / "train")


def bring(root: Path, folder: Path, place: Place, name: str) -> str:
    """Fetch an experiment from the clone into the project; return its name, or the commit that it is equal to.

    DVC creates no experiment for a run that changes nothing.
    """
    commit = (folder / COMMIT).read_text()
    ref = f"refs/exps/{commit[:2]}/{commit[2:]}/{name}"
    if not git(place.project, "--git-dir=.git", "for-each-ref", ref):
        return commit
    git(root, *QUIETLY, "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", str(place.project), f"+{ref}:{ref}")
    return name


def was_left(root: Path, folder: Path, place: Place, name: str) -> bool:
    """Fetch the experiment of a trial that finished after its search was killed; return True if there is one."""
    try:
        return bring(root, folder, place, name) == name
    except (subprocess.CalledProcessError, OSError):  # no clone, or a damaged one
        return False


def git(folder: Path, *arguments: str) -> str:
    """Return what Git prints."""
    done = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True, encoding="utf-8")
    return done.stdout


def _reset(root: Path, folder: Path, clone: Path) -> None:
    commit, changes = (folder / COMMIT).read_text(), (folder / CHANGES).absolute()
    for left in (".git/index.lock", ".git/HEAD.lock"):  # no other process works here
        stage.remove(clone / left)
    stage.remove(clone / ".dvc/tmp")
    # Explicit, because in a damaged clone Git would use the user's own repository above it.
    here = ("--git-dir=.git", "--work-tree=.")
    git(clone, *here, "checkout", "--quiet", "--force", "--detach", commit)
    git(clone, *here, *QUIETLY, "fetch", "--quiet", "--prune", "--no-tags", str(root), *REFS)
    git(clone, *here, "clean", "--quiet", "--force", "-d")
    if changes.stat().st_size:
        git(clone, *here, "apply", "--index", "--whitespace=nowarn", str(changes))


def _share(root: Path, clone: Path) -> None:
    """Give a clone the project's cache, the settings that Git does not track, and the files that recipes name."""
    with Repo(str(root)) as theirs, Repo(str(clone)) as own, own.config.edit("local") as local:
        local.update(theirs.config.load_one("local"))
        local["cache"]["dir"] = theirs.cache.local_cache_dir
    if (root / LINKED).exists():
        (clone / LINKED).symlink_to((root / LINKED).resolve())
        with (clone / ".git/info/exclude").open("a") as exclude:
            exclude.write(f"/{LINKED}\n")


def _leave_out_missing(clone: Path) -> None:
    """Remove from dvc.lock the stages whose outputs are not in the cache.

    DVC (3.67) reads these at the end of `exp run`, and fails if all stages were restored from the run-cache.
    """
    lock, yaml = clone / "dvc.lock", YAML()
    stages = yaml.load(lock).get("stages", {}) if lock.exists() else {}
    with Repo(str(clone)) as repo:
        path = repo.cache.local.oid_to_path
        has = {
            name: all(Path(path(out["md5"])).exists() for out in one.get("outs", ()) if "md5" in out)
            for name, one in stages.items()
        }
    if not all(has.values()):
        kept = {name: one for name, one in stages.items() if has[name]}
        yaml.dump({"schema": "2.0", "stages": kept}, lock)


def _commit(root: Path) -> str:
    try:
        return git(root, "rev-parse", "--verify", "--quiet", "HEAD").strip()
    except subprocess.CalledProcessError:
        raise UserError("there is no Git commit; expected one, because experiments are based on it") from None


def _changes(root: Path) -> bytes:
    return subprocess.run(["git", "diff", "--binary", "HEAD"], cwd=root, check=True, capture_output=True).stdout
