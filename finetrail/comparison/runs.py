"""Finds finished runs by name: a recipe, a commit, a branch, an experiment, or the workspace."""

import io
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc_data.index import DataIndexDirError
from ruamel.yaml import YAML

from finetrail import layout, params, upgrades
from finetrail.errors import UserError
from finetrail.reporting.records import parsed
from finetrail.reporting.summary import Series
from finetrail.upgrades import SCHEMA_VERSION

LOCK = "dvc.lock"
WORKSPACE = "workspace"
EXPERIMENTS = "refs/exps"
# Refs of queued and running experiments, which are not finished.
UNFINISHED = ("refs/exps/exec", "refs/exps/stash", "refs/exps/celery")

# Content of a record.json.
Record = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A finished run: its record.json, and the Git commit that has it (None: the workspace)."""

    name: str
    revision: str | None
    record: Record


@dataclass(frozen=True)
class System:
    """What is compared: one run, or runs that differ in their seed alone."""

    name: str
    runs: list[Run]


class Unavailable(UserError):
    """A file of a run is neither in the cache nor in a remote."""


def system(root: Path, name: str) -> System:
    """Find what a user named: TASK/RECIPE for its experiments, or revisions separated by commas; UserError if none."""
    if _commit(root, name) is None and layout.recipe_file(*_parts(name)).is_file():
        return System(name, by_seed(name, of_recipe(experiments(root), name, _settings(name))))
    return System(name, by_seed(name, [_run(root, one.strip()) for one in name.split(",")]))


def by_seed(name: str, runs: list[Run]) -> list[Run]:
    """Return one run of each seed: of equal runs, such as an experiment and its commit, the first.

    UserError if two runs of one seed differ: only the user knows which of them to compare.
    """
    found: dict[int, Run] = {}
    for run in runs:
        first = found.setdefault(run.record["seed"], run)
        if first.record != run.record:
            raise UserError(
                f"{name}: {first.name} and {run.name} both have the seed {run.record['seed']}, and their "
                f"{layout.RECORD} differ; expected one run of a seed: name the runs, with commas between them"
            )
    return list(found.values())


def experiments(root: Path) -> list[Run]:
    """Return the run of the last commit and that of every DVC experiment of a repository."""
    refs = _git(root, "for-each-ref", "--format=%(refname)", EXPERIMENTS).split()
    found = []
    for ref in ["HEAD", *(ref for ref in refs if not ref.startswith(UNFINISHED))]:
        if record := _committed(root, ref):  # an experiment may have ended before its report
            found.append(Run(ref.rpartition("/")[2], _commit(root, ref), record))
    return found


def of_recipe(runs: list[Run], name: str, settings: dict[str, dict[str, Any]]) -> list[Run]:
    """Return the runs of TASK/RECIPE with these settings, as far as records have them; UserError if there is none."""
    task, recipe = _parts(name)
    chosen = [run for run in runs if (run.record["task"], run.record["recipe"]) == (task, recipe)]
    alike = [run for run in chosen if _has(run.record, settings)]
    if not alike:
        there = ", ".join(sorted({f"{run.record['task']}/{run.record['recipe']}" for run in runs})) or "none"
        raise UserError(
            f"{name}: {len(chosen)} experiments, none with the recipe's settings of {' and '.join(settings)}; "
            f"expected runs of it, such as dvc exp run -S seed=1; those there are of {there}"
        )
    return alike


class Files:
    """The files of one run: those in Git, those in the workspace, and those in DVC's cache or a remote."""

    def __init__(self, run: Run, system: DVCFileSystem) -> None:
        self.run, self.system = run, system

    def bytes(self, path: Path) -> bytes:
        """Return a file's content, from the remote where the cache lacks it; Unavailable if it cannot be had."""
        try:
            return bytes(self.system.read_bytes(path.as_posix()))
        except (OSError, DvcException, DataIndexDirError) as error:
            reason = " ".join(str(getattr(error, "strerror", None) or error).split())
            raise Unavailable(
                f"{self.run.name}: {path}: {reason}; expected it in the cache or in a remote: "
                "`dvc push` where it was computed, or run it again"
            ) from None

    def table(self, path: Path) -> pa.Table:
        """Return the table of a Parquet file."""
        return pq.read_table(io.BytesIO(self.bytes(path)))

    def json(self, path: Path) -> Any:
        """Return the value of a JSON file."""
        return json.loads(self.bytes(path))

    def yaml(self, path: Path) -> Any:
        """Return the content of a YAML file; {} for defaults that an earlier run lacks, for its recipe is complete."""
        if path.stem == layout.DEFAULTS and path not in self.below(path.parent):
            return {}
        return YAML(typ="safe", pure=True).load(self.bytes(path))

    def below(self, folder: Path) -> list[Path]:
        """Return the files of a folder, sorted."""
        try:
            return sorted(Path(path).relative_to("/") for path in self.system.find(f"/{folder.as_posix()}"))
        except (OSError, DvcException, DataIndexDirError) as error:
            raise Unavailable(f"{self.run.name}: {folder}: {error}; expected it in the cache or in a remote") from None


def curves(root: Path, run: Run) -> dict[str, Series]:
    """Return the curves of a run's training: SPLIT/METRIC -> (update, value) in order; Unavailable if not to be had."""
    found = {}
    with opened(root, run) as files:
        for path in files.below(layout.CURVES):
            rows = parsed(io.StringIO(files.bytes(path).decode()), "\t")
            found[path.relative_to(layout.CURVES).with_suffix("").as_posix()] = [
                (row["step"], row[path.stem]) for row in rows
            ]
    return found


@contextmanager
def opened(root: Path, run: Run) -> Iterator[Files]:
    """Yield the files of a run; they come from today's remotes, which an old commit's configuration may lack."""
    with Repo(str(root)) as repo:
        config = {name: dict(repo.config[name]) for name in ("core", "remote")}
    system = DVCFileSystem(repo=str(root), rev=run.revision, config=config)
    try:
        yield Files(run, system)
    finally:
        system.close()


def _run(root: Path, name: str) -> Run:
    if name == WORKSPACE:
        if not (root / layout.RECORD).is_file():
            raise UserError(f"{WORKSPACE}: {layout.RECORD} is missing; expected a finished run: `dvc repro`")
        lock = root / LOCK
        if not _is_finished(lock.read_text(encoding="utf-8") if lock.is_file() else None):
            raise UserError(f"{WORKSPACE}: {layout.RECORD} is of an earlier run; expected a finished one: `dvc repro`")
        return Run(name, None, _record((root / layout.RECORD).read_text(encoding="utf-8")))
    commit = _commit(root, name)
    if commit is None:
        raise UserError(
            f"{name}: no such revision; expected a commit, branch, tag or experiment (`dvc exp list`), "
            f"TASK/RECIPE, or {WORKSPACE}"
        )
    record = _committed(root, commit)
    if record is None:
        raise UserError(f"{name}: {layout.RECORD} is missing in it; expected a revision whose run is finished")
    if not _is_finished(_shown(root, commit, LOCK)):
        raise UserError(f"{name}: {layout.RECORD} in it is of an earlier run; expected a run that is finished")
    return Run(name, commit, record)


def _shown(root: Path, commit: str, name: str) -> str | None:
    """Return a file of a commit; None if it has none."""
    try:
        return _git(root, "show", f"{commit}:./{name}")
    except subprocess.CalledProcessError:
        return None


def _is_finished(lock: str | None) -> bool:
    """Return True if, by dvc.lock, the report is of the last evaluation, not of the run before an experiment.

    Also True without a lock.
    """
    if lock is None:
        return True
    stages = YAML(typ="safe", pure=True).load(lock)["stages"]
    evaluated, reported = (
        [one["md5"] for one in stages.get(name, {}).get(kind, []) if one["path"] == layout.EVALUATION.as_posix()]
        for name, kind in (("evaluate", "outs"), ("report", "deps"))
    )
    return bool(evaluated == reported)


def _commit(root: Path, name: str) -> str | None:
    """Return the commit of a revision or of an experiment's name; None if there is none."""
    names = _git(root, "for-each-ref", "--format=%(refname)", EXPERIMENTS).split()
    of_name = [ref for ref in names if ref.endswith(f"/{name}") and not ref.startswith(UNFINISHED)]
    for candidate in [name, *of_name]:
        try:
            return _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{candidate}^{{commit}}").strip()
        except subprocess.CalledProcessError:
            continue
    return None


def _committed(root: Path, revision: str) -> Record | None:
    """Return record.json of a commit; None where it has none, or one that is no JSON.

    Commits of early versions have the same in metrics.json.
    """
    for path in (layout.RECORD, layout.METRICS):
        try:
            record = _record(_git(root, "show", f"{revision}:./{path.as_posix()}"))
        except (subprocess.CalledProcessError, ValueError):
            continue
        return record if "task" in record else None
    return None


def _record(text: str) -> Record:
    """Return the content of a record.json, but for the version that wrote it: runs are alike whichever did."""
    return {key: value for key, value in upgrades.record(json.loads(text)).items() if key != SCHEMA_VERSION}


def _parts(name: str) -> tuple[str, str]:
    task, _, recipe = name.partition("/")
    return task, recipe


def _has(record: Record, settings: dict[str, dict[str, Any]]) -> bool:
    recorded = {section: record.get(section, {}) for section in settings}
    return all(
        recorded[of].get(key, value) == value for of, values in settings.items() for key, value in values.items()
    )


def _settings(name: str) -> dict[str, dict[str, Any]]:
    loaded = params.load_recipe(*_parts(name))
    settings = {section: getattr(loaded, section).model_dump(mode="json") for section in ("tokenize", "train")}
    for key in ("precision", "execution"):  # records have the effective values
        del settings["train"][key]
    return settings


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=root, check=True, capture_output=True, text=True, encoding="utf-8"
    ).stdout
