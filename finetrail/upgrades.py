"""What each version of the schema brought, and what files of an earlier version get so that they keep their meaning.

A file has no version number: the keys that it lacks, and the earlier names that it has, show its version. Therefore no
name may return with another meaning. docs/keys.json has the version of each key, and a test compares them.
"""

from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError

from finetrail.errors import UserError

Path = tuple[str, ...]  # of keys; one of a corpus is that of each part of a mixture too
SCHEMA_VERSION = "schema_version"  # the key of finetrail.json and record.json that says which version wrote them
HINT = "`python -m finetrail upgrade` adds what a file of an earlier version lacks"


@dataclass(frozen=True)
class Renamed:
    """A key that was renamed, or whose values were; of the same key, values that are not in `values` stay."""

    key: str
    to: str
    values: Mapping[Any, Any]


@dataclass(frozen=True)
class Version:
    """One step of the schema. `added`: required keys of sections that were there before -> what keeps the behaviour."""

    number: int
    brought: str
    added: Mapping[str, Any] = field(default_factory=dict)
    renamed: tuple[Renamed, ...] = ()


VERSIONS = (
    Version(
        2,
        "six tasks",
        {"corpus.splits.stratify": None, "train.layer_decay": 1.0, "train.unfreeze_layers": None},
    ),
    Version(
        3,
        "two engines, resumption, adapters, weighted losses, groups in splits",
        {
            "corpus.splits.group": None,
            "tokenize.engine": "local",
            "tokenize.num_proc": 1,
            "train.engine": "trainer",
            "train.checkpoint_every": None,
            "train.gradient_checkpointing": False,
            "train.lora": None,
            "train.label_smoothing": 0.0,
            "train.class_weights": None,
        },
        (Renamed("tokenize.remainder", "tokenize.remainder", {"keep": "pad"}),),
    ),
    Version(4, "portable numerics", {"numerics": "fast", "threads": None}),
    Version(
        5,
        "CUDA graphs",
        {"train.execution": "eager"},
        (Renamed("train.torch_compile", "train.execution", {False: "eager", True: "compile"}),),
    ),
    Version(
        6,
        "annotation tools, students, mixtures, conversations, mined negatives, kept adapters",
        {
            "corpus.bad_conversations": None,
            "tokenize.chat": None,
            "tokenize.dimensions": None,
            "tokenize.negatives": None,
            "train.micro_batch": None,
            "train.lora.keep": False,
        },
    ),
    Version(7, "adapters of quantized weights", {"train.lora.quantize": None}),
    Version(
        8,
        "slices, rerankers, trackers",
        {
            "corpus.rankings": None,
            "tokenize.negatives.ranker": "bm25",
            "evaluate.candidates": None,
            "trackers": None,
        },
    ),
    Version(
        9,
        "limits of what the Hub and DVC give",
        {
            "corpus.source.max_mib": None,
            "corpus.rankings.source.max_mib": None,
            "model.source.max_mib": None,
            "model.teacher.source.max_mib": None,
        },
    ),
    Version(10, "a switch for speedups", {"train.speedups": True}),
)
VERSION = VERSIONS[-1].number
OF_SOME_TASKS = ("train.label_smoothing", "train.class_weights", "train.micro_batch")
ADDED = {key: value for version in VERSIONS for key, value in version.added.items()}
# Of the train section, without keys inside its keys and those of some tasks.
TRAINING = {
    key.removeprefix("train."): value
    for key, value in ADDED.items()
    if key.count(".") == 1 and key.startswith("train.") and key not in OF_SOME_TASKS
}
RENAMED = [renamed for version in VERSIONS for renamed in version.renamed]
# task -> what the target of a run or an exported folder of an earlier version lacks.
TARGETS: Mapping[str, Mapping[str, Any]] = {"retrieval": {"dimensions": None}, "text_generation": {"chat": False}}
# The metrics of runs that do not record which of theirs are lower the better; no later one is added.
LOWER_IS_BETTER = ("bits_per_byte", "ece", "loss", "mae", "perplexity", "repetition_4", "rmse")


@dataclass(frozen=True)
class Change:
    """The change at one place: a key that the file lacks, or another name and value for `old`, a key that it has."""

    place: Path
    value: Any
    old: str | None = None
    old_value: Any = None


def upgraded(raw: dict[str, Any], model: type[BaseModel]) -> tuple[dict[str, Any], list[Change]]:
    """Return the content of a file as this version has it, as far as the table tells, and what was changed in it.

    UserError for a value of an earlier name that has no counterpart.
    """
    new, changes = renamed(raw)
    return new, changes + add(new, missing(model, new))


def renamed(raw: dict[str, Any]) -> tuple[dict[str, Any], list[Change]]:
    """Return the content of a file with the names of this version, and the changes; UserError as in upgraded()."""
    new = deepcopy(raw)
    return new, list(_rename(new))


def add(content: dict[str, Any], places: Iterable[Path]) -> list[Change]:
    """Add those of the missing keys that a later version brought and whose section is there; return the changes."""
    changes = []
    for place in places:
        section = _section(content, place)
        if (key := dotted(place)) in ADDED and isinstance(section, dict):
            section[place[-1]] = ADDED[key]
            changes.append(Change(place, ADDED[key]))
    return changes


def target(task: str, found: Any) -> Any:
    """Return the target of an earlier run or export as this version has it."""
    return {**TARGETS.get(task, {}), **found} if isinstance(found, dict) else found


def record(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a record.json, or of the metrics of evaluation, with what earlier versions do not write.

    These are the directions of its metrics, and settings of training that later versions brought. ValueError for what
    is neither of these files.
    """
    splits = [found.get(split, {}) for split in ("validation", "test")] if isinstance(found, Mapping) else [None]
    if not all(isinstance(split, Mapping) for split in splits):
        raise ValueError("expected an object whose splits are objects")
    names = {name for split in splits for name in split}
    new = {"lower_is_better": [name for name in LOWER_IS_BETTER if name in names], **found}
    if isinstance(training := new.get("train"), Mapping):
        new["train"] = {key: value for key, value in TRAINING.items() if key not in training} | dict(training)
    return new


def knows(places: Iterable[Path]) -> bool:
    """Return True if a later version brought any of the keys that a file lacks."""
    return any(dotted(place) in ADDED for place in places)


def missing(model: type[BaseModel], raw: Any) -> list[Path]:
    """Return the places of the keys that a model requires and a file lacks, in the order of the schema."""
    try:
        model.model_validate(raw)
    except ValidationError as error:
        return missing_of(error, raw)
    return []


def missing_of(error: ValidationError, raw: Any) -> list[Path]:
    """Return the places of the keys that an error says are missing."""
    return [
        located(problem, raw)
        for problem in error.errors(include_url=False, include_context=False)
        if problem["type"] == "missing"
    ]


def located(problem: Any, raw: Any) -> Path:
    """Return the keys that lead to where a problem of pydantic's is, as the file has them."""
    keys: list[str] = []
    for depth, step in enumerate(problem["loc"], start=1):
        lacking = problem["type"] == "missing" and depth == len(problem["loc"])
        # pydantic puts the tag or the type of a union's member into the location: it is no key of the file.
        if isinstance(raw, dict) and (lacking or (step in raw and step not in (raw.get("kind"), raw.get("format")))):
            keys.append(str(step))
            raw = raw.get(step)
        elif isinstance(raw, list) and isinstance(step, int):
            keys.append(str(step))
            raw = raw[step]
    return tuple(keys)


def dotted(place: Path) -> str:
    """Return a place as the table has it: a part of a mixture is a corpus like any other."""
    return ".".join(place[:1] + place[3:] if place[:2] == ("corpus", "parts") else place)


def _rename(new: dict[str, Any]) -> Iterator[Change]:
    for renamed in RENAMED:
        *section, old = renamed.key.split(".")
        name = renamed.to.rpartition(".")[2]
        inside = _section(new, (*section, old))
        if not isinstance(inside, dict) or old not in inside:
            continue
        if old != name and name in inside:
            raise UserError(f"{renamed.key} is what {renamed.to} was called before; expected the second alone")
        value = inside[old]
        known = [to for given, to in renamed.values.items() if type(given) is type(value) and given == value]
        if not known and old != name:
            values = ", ".join(str(one).lower() for one in renamed.values)
            raise UserError(
                f"{renamed.key} is {value!r:.60}; expected one of {values}, which {renamed.to} has words for"
            )
        if known:
            # At its place, so that the order of the keys stays.
            items = [(name, known[0]) if key == old else (key, kept) for key, kept in inside.items()]
            inside.clear()
            inside.update(items)
            yield Change((*section, name), known[0], old, value)


def _section(content: Any, place: Path) -> Any:
    """Return the section that holds a key; None if there is no such section."""
    for key in place[:-1]:
        content = content.get(key) if isinstance(content, dict) else None
    return content
