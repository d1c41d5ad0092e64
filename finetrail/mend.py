"""Repairs DVC's records after a kill or a disk error, and removes data that does not match its recorded hash.

python -m finetrail mend            # then `dvc repro`: it restores removed outputs from the run-cache, or reruns
python -m finetrail mend --records  # repairs the records without reading the data; `make run` does this first
"""

import argparse
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from voluptuous import Invalid

from finetrail import layout, stage
from finetrail.dependencies import md5, stat_of
from finetrail.errors import UserError


def mend(root: Path, data: bool) -> list[str]:
    """Return a line for each repair; UserError if another DVC command runs in the folder."""
    try:
        with Repo(str(root)) as repo, repo.lock:
            return [*records(root, Path(repo.tmp_dir)), *(damaged(repo) if data else ())]
    except DvcException as error:
        raise UserError(f"DVC: {error}") from None


def records(root: Path, tmp: Path) -> Iterator[str]:
    """Repair the files that DVC (3.67) and Git write in place, or leave when killed; yield a line for each repair.

    The caller holds DVC's lock, so that no other DVC process writes.
    """
    index_lock = root / _git(root, "rev-parse", "--git-path", "index.lock").stdout.strip()  # also of a worktree
    if index_lock.is_file() and not any(
        (process.info["name"] or "").startswith("git") for process in _working_in(root)
    ):
        index_lock.unlink()
        yield "Git's index.lock: removed: no Git process runs here"
    in_use = tmp / "rwlock"
    if in_use.exists() and not _is_held(in_use, root):
        in_use.unlink()
        yield ".dvc/tmp/rwlock: removed: it was truncated, or names processes that have ended"
    lock = root / layout.LOCK
    if lock.exists() and not is_whole(lock.read_bytes()):
        done = _restore(lock)
        yield f"{layout.LOCK}: it was truncated: {done}; `dvc repro` restores finished stages from the run-cache"


def is_whole(content: bytes) -> bool:
    """Return True if the content of dvc.lock is complete, as DVC writes it.

    DVC accepts some truncated files, and reruns the stages that are missing in them. But it would keep a number that
    lacks digits, or an output that lacks its size.
    """
    if not content.endswith(b"\n"):
        return False
    try:
        read = YAML(typ="safe").load(content.decode())
        stages = COMPILED_LOCKFILE_SCHEMA(read)["stages"].values()
    except (YAMLError, Invalid, UnicodeDecodeError, KeyError, AttributeError):
        return False
    entries = (entry for one in stages for kind in ("deps", "outs") for entry in one.get(kind, ()) if "hash" in entry)
    return all(map(_is_whole_entry, entries))


def _is_whole_entry(entry: dict[str, Any]) -> bool:
    if "files" in entry:  # a folder in a remote that has versions
        return True
    return "md5" in entry and "size" in entry and entry["md5"].endswith(".dir") == ("nfiles" in entry)


def _restore(lock: Path) -> str:
    """Restore dvc.lock from Git, or remove it if Git does not have it; return which of the two was done."""
    known = _git(lock.parent, "ls-files", "--error-unmatch", lock.name)
    if known.returncode == 1:
        lock.unlink()
        return "removed, because Git does not have it"
    failed = known.stderr.strip() if known.returncode else ""
    if failed := failed or _git(lock.parent, "checkout", "--quiet", "--", lock.name).stderr.strip():
        raise UserError(f"{layout.LOCK}: it is truncated, or has merge conflicts, and Git cannot restore it: {failed}")
    return "restored from Git"


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    except FileNotFoundError:
        raise UserError("git is not installed, or not on the PATH; expected it") from None


def _is_held(in_use: Path, root: Path) -> bool:
    """Return True if DVC's record of readers and writers names a process that runs in this folder.

    DVC checks only that the process id exists. By now another process may have it.
    """
    try:
        record = json.loads(in_use.read_bytes())
        readers = [holder for holders in record.get("read", {}).values() for holder in holders]
        numbers = {holder["pid"] for holder in [*readers, *record.get("write", {}).values()]}
    except (ValueError, TypeError, KeyError, AttributeError):
        return False
    return not numbers or any(process.pid in numbers for process in _working_in(root))


def _working_in(root: Path) -> Iterator[psutil.Process]:
    """Yield the processes whose working folder is in the project, or may be: another user's DVC or Git."""
    own = psutil.Process().username()
    for process in psutil.process_iter(["name", "cwd", "cmdline", "username"]):
        folder, words, user = (process.info[key] for key in ("cwd", "cmdline", "username"))
        if folder is not None:
            is_here = Path(folder).is_relative_to(root)
        else:  # a process of this user without a working folder is about to end
            is_other = words is not None and not any(name in word for word in words for name in ("dvc", "git"))
            is_here = user != own and not is_other
        if is_here:
            yield process


def damaged(repo: Repo) -> Iterator[str]:
    """Remove files of stages' outputs, here and in the cache, that do not match their hash; yield a line for each.

    DVC reads a file again only if its time or size has changed, and a file of the cache not even then. A damaged file
    of the cache is copied from the workspace if that is intact, because retraining would take longer. A file that no
    stage can make again (`dvc add`) is reported and left alone.
    """
    tracked = [each for each in repo.index.outs if each.use_cache and each.hash_info]
    whole: dict[str, Path] = {}
    for out, path in ((each, path) for each in tracked for path in _files(Path(each.fs_path))):
        before, digest = stat_of(path), md5(path)
        if stat_of(path) != before:  # another process is writing it
            continue
        _, noted = repo.state.get(str(path), repo.fs)
        if noted is None or noted.name != "md5" or noted.value == digest:
            whole[digest] = path
        elif out.stage.cmd is None:
            place = path.relative_to(repo.root_dir)
            yield f"{place}: damaged: kept, because no stage can make it again; restore your own copy"
        else:
            path.unlink()
            yield f"{path.relative_to(repo.root_dir)}: damaged: removed"
    outputs = [each for each in tracked if each.stage.cmd is not None]
    for path in dict.fromkeys(path for out in outputs for path in _in_cache(repo, out.hash_info.value)):
        name = path.parent.name + path.name.removesuffix(".dir")
        if path.is_file() and md5(path) != name:
            path.unlink()
            if name in whole:
                repo.cache.local.add(str(whole[name]), repo.fs, name)
            yield f"{path}: damaged in DVC's cache: {'restored from the workspace' if name in whole else 'removed'}"


def _files(output: Path) -> list[Path]:
    return [path for path in (sorted(output.rglob("*")) if output.is_dir() else [output]) if path.is_file()]


def _in_cache(repo: Repo, name: str) -> Iterator[Path]:
    """Yield the paths of an output in the cache: its own, and those of its files if it is a folder."""
    found = Path(repo.cache.local.oid_to_path(name))
    yield found
    if name.endswith(".dir") and found.is_file():
        try:
            yield from (Path(repo.cache.local.oid_to_path(file["md5"])) for file in json.loads(found.read_bytes()))
        except (ValueError, TypeError, KeyError):  # the list itself is damaged
            return


def main() -> None:
    """Repair, and log a line for each repair."""
    parser = argparse.ArgumentParser(prog="python -m finetrail mend", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", action="store_true", help="repair DVC's records only; do not read the data")
    chosen = parser.parse_args()
    mended = mend(Path.cwd(), data=not chosen.records)
    for line in mended:
        stage.log(f"mend: {line}")
    if not chosen.records:
        stage.log("mend: now run `dvc repro`" if mended else "mend: nothing is damaged")


if __name__ == "__main__":
    stage.run(main)
