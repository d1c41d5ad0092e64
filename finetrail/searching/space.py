"""Turns a space file into the settings that a search may try; all are checked before the first trial."""

import contextlib
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from ruamel.yaml import YAML

from finetrail import layout, params, schema, tasks
from finetrail.errors import UserError
from finetrail.schema import Settings

# Keys that a search may vary: they change how a model is trained, and not what it is scored on.
OF_PARAMS = ("seed", "lr", "epochs", "batch_size")
OF_RECIPE = ("model", "tokenize", "train")
# Scores of trials with different values of these are not comparable.
KEPT = ("tokenize.limit", "train.best_metric")
# Stricter than Git's rules for an experiment's name, to which a number is added.
SEARCH_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"

Scalar = str | int | float | bool | None


class Range(Settings):
    """All numbers from low to high, both included."""

    log: bool = Field(description="whether each order of magnitude is as likely as the next")

    @model_validator(mode="after")
    def _ordered(self) -> "Range":
        low, high = self.ends
        if low >= high:
            raise ValueError(f"low is {low:g} and high {high:g}; expected low below high")
        if self.log and low <= 0:
            raise ValueError(f"low is {low:g}; expected it above 0, or log false")
        return self

    @property
    def ends(self) -> list[Any]:
        """The values that are checked against the schema."""
        return [getattr(self, name) for name in ("low", "high")]

    def holds(self, value: Scalar) -> bool:
        """Return True if the space contains a value."""
        low, high = self.ends
        return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


class FloatRange(Range):
    """Any number in a range."""

    kind: Literal["float"]
    low: float = Field(description="the lowest value")
    high: float = Field(description="the highest value")

    def draw(self, trial: Any, name: str) -> Scalar:
        """Suggest a value with Optuna."""
        return float(trial.suggest_float(name, self.low, self.high, log=self.log))


class IntRange(Range):
    """Integers in a range."""

    kind: Literal["int"]
    low: int = Field(description="the lowest value")
    high: int = Field(description="the highest value")

    def holds(self, value: Scalar) -> bool:
        """Return True if the space contains a value."""
        return isinstance(value, int) and super().holds(value)

    def draw(self, trial: Any, name: str) -> Scalar:
        """Suggest a value with Optuna."""
        return int(trial.suggest_int(name, self.low, self.high, log=self.log))


class Choice(Settings):
    """One of several values, without an order."""

    kind: Literal["choice"]
    values: list[Scalar] = Field(min_length=1, description="strings, numbers, booleans or null")

    @model_validator(mode="after")
    def _differ(self) -> "Choice":
        if len(self.values) != len({(type(value), value) for value in self.values}):
            raise ValueError("values contains a value twice; expected each once")
        return self

    @property
    def ends(self) -> list[Any]:
        """The values that are checked against the schema."""
        return self.values

    def holds(self, value: Scalar) -> bool:
        """Return True if the space contains a value."""
        return any(type(value) is type(one) and value == one for one in self.values)

    def draw(self, trial: Any, name: str) -> Scalar:
        """Suggest a value with Optuna."""
        chosen: Scalar = trial.suggest_categorical(name, self.values)
        return chosen


KINDS = (FloatRange, IntRange, Choice)


class MedianPruning(Settings):
    """Prune a trial whose best score so far is below the median of the other trials at the same epoch."""

    kind: Literal["median"]
    startup_trials: int = Field(ge=0, description="number of finished trials before any trial may be pruned")
    warmup_epochs: int = Field(ge=0, description="epochs before a trial may be pruned")


class HyperbandPruning(Settings):
    """Give few epochs to many trials and many to the best of them (Li et al. 2018)."""

    kind: Literal["hyperband"]
    min_epochs: int = Field(ge=1, description="epochs before a trial may be pruned")
    max_epochs: int = Field(ge=1, description="epochs of a trial that is not pruned")
    reduction_factor: int = Field(
        ge=2, description="factor by which each round reduces the number of trials and increases their epochs"
    )


class Space(Settings):
    """searches/NAME.yaml: the values that a search tries. Its experiments are named NAME-0000, NAME-0001 and so on."""

    task: schema.Name = Field(description="as in params.yaml")
    recipe: schema.Name = Field(description="as in params.yaml; it gives the settings of the first trial, and of all "
                                            "fields not named here")  # fmt: skip
    trials: int = Field(ge=2, description="total number of trials, including the default and pruned ones")
    seed: int = Field(ge=0, description="random seed of the search; separate from seed in params.yaml")
    objective: str | None = Field(
        description="validation metric to improve, from the training curve; null: the recipe's train.best_metric"
    )
    pruning: Annotated[MedianPruning | HyperbandPruning, Field(discriminator="kind")] | None = Field(
        description="when trials are pruned, by their validation curve; null: never"
    )
    always: dict[str, Scalar] | None = Field(
        description="field -> value in all trials, including the first, such as a limit; null: none"
    )
    fields: dict[str, Annotated[FloatRange | IntRange | Choice, Field(discriminator="kind")]] = Field(
        min_length=1,
        description="field -> its possible values; the field is a key of params.yaml (lr, epochs, batch_size, seed), "
        "or the path of a recipe's key, such as train.warmup",
    )

    @property
    def files(self) -> tuple[Path, Path]:
        """The files that differ between trials."""
        return layout.PARAMS, layout.recipe_file(self.task, self.recipe)

    def contents(self, read: Callable[[Path], Any]) -> dict[Path, Any]:
        """Return the content of the files, the recipe with the defaults of its task; `read` parses one file."""
        in_params, in_recipe = self.files
        defaults = layout.defaults_file(self.task)
        recipe = params.composed(read(in_recipe), in_recipe, read(defaults), defaults)
        return {in_params: read(in_params), in_recipe: recipe.values}

    def location(self, field: str) -> tuple[Path, tuple[str, ...]]:
        """Return the file of a field, and its keys in it."""
        in_params, in_recipe = self.files
        return (in_params, (field,)) if field in schema.Params.model_fields else (in_recipe, tuple(field.split(".")))

    def changes(self, settings: dict[str, Scalar]) -> dict[str, Scalar]:
        """Return the values that differ from params.yaml and recipe in a trial with these settings, by field."""
        return {"task": self.task, "recipe": self.recipe} | (self.always or {}) | settings


def load(path: Path) -> Space:
    """Read and validate a space file; UserError with all its problems."""
    space: Space = params.validated(Space, path, _problems)
    return space


def check(space: Space, path: Path) -> dict[str, Scalar]:
    """Ask the schema about each value that the project would be given; return the recipe's own values by field.

    UserError with the field. A contradiction between the values of two fields is found only when a trial has both.
    """
    params.load_recipe(space.task, space.recipe)
    with _copied(space) as validate:
        validate(f"{path}: always", {})
        own = {field: _own(space, field, path) for field in space.fields}
        if space.objective:
            validate(f"{path}: objective", {"train.best_metric": space.objective})
        for field, values in space.fields.items():
            for value in values.ends:
                validate(f"{path}: fields.{field}: {value!r}", {field: value})
    return own


def metric(space: Space) -> str:
    """Return the validation metric to improve."""
    own = params.load_recipe(space.task, space.recipe).train.best_metric
    return space.objective or str((space.always or {}).get("train.best_metric", own))


def lower_is_better(space: Space, metric: str) -> bool:
    """Return True if a lower value of a validation metric is better."""
    return metric in tasks.module(space.task, "validation").LOWER_IS_BETTER


def effective(space: Space, field: str, contents: dict[Path, Any]) -> Any:
    """Return the value of a field in the contents of the space's files; of an empty override, the recipe's value."""
    file, keys = space.location(field)
    value = contents[file]
    for key in keys:
        value = value[key]
    if value is None and field in params.OVERRIDES:
        return effective(space, ".".join(params.OVERRIDES[field]), contents)
    return value


def overrides(space: Space, settings: dict[str, Scalar]) -> list[str]:
    """Return the arguments of `dvc exp run -S`: FILE:KEY=VALUE in Hydra's grammar, without FILE for params.yaml."""
    found = []
    for field, value in space.changes(settings).items():
        path, keys = space.location(field)
        # ++ because a recipe may leave a key to its task's defaults: Hydra adds the key then.
        of_file = "" if path == layout.PARAMS else f"{path.as_posix()}:++"
        found.append(f"{of_file}{'.'.join(keys)}={_hydra(value)}")
    return found


def _hydra(value: Scalar) -> str:
    """Write a value in Hydra's grammar, in which a string without quotes may be read as a number."""
    if isinstance(value, str):
        # A backslash is an escape only before a quote.
        escaped = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + found[2].replace("'", "\\'"), value)
        return f"'{escaped}'"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)


def _problems(space: Any) -> Iterator[str]:
    always = getattr(space, "always", None) or {}
    fields = getattr(space, "fields", {})
    for field in dict.fromkeys((*always, *fields)):
        section, _, key = field.partition(".")
        if field in ("task", "recipe") or not (section in OF_RECIPE if key else field in schema.Params.model_fields):
            yield (
                f"{field}: expected a key of params.yaml such as lr, or the path of one in a recipe's "
                f"{', '.join(OF_RECIPE)}, such as train.warmup"
            )
    for field in fields:
        if field in KEPT or (field in schema.Params.model_fields and field not in OF_PARAMS):
            yield f"fields.{field}: trials with different values are not comparable; expected it under always"
        if field in always:
            yield f"{field}: it is both in always and in fields; expected it in one of them"
    for shorter, place in params.OVERRIDES.items():
        if {shorter, ".".join(place)} <= {*always, *fields}:
            yield f"{shorter} replaces {'.'.join(place)}; expected one of the two"


def _own(space: Space, field: str, path: Path) -> Scalar:
    """Return the value that a field has without a search; UserError if it cannot be set."""
    file, keys = space.location(field)
    contents = space.contents(params.read_yaml)
    section = contents[file]
    for depth, key in enumerate(keys, start=1):
        if not isinstance(section, dict) or key not in section:
            there = f"one of {', '.join(section)}" if isinstance(section, dict) else "a key that has a section there"
            raise UserError(f"{path}: fields.{field}: there is no {'.'.join(keys[:depth])} in {file}; expected {there}")
        section = section[key]
    for shorter, place in params.OVERRIDES.items():
        if keys == place and contents[layout.PARAMS][shorter] is not None:
            raise UserError(f"{path}: fields.{field}: {layout.PARAMS} has {shorter}, which replaces it; expected none")
    value = effective(space, field, contents)
    if isinstance(value, dict | list):
        raise UserError(f"{path}: fields.{field}: it has several values in {file}; expected a key with one")
    own: Scalar = value
    return own


@contextmanager
def _copied(space: Space) -> Iterator[Callable[[str, dict[str, Scalar]], None]]:
    """Work in a copy of params.yaml and the recipe; give the function that validates them with changed settings."""
    _, recipe = space.files
    defaults = layout.defaults_file(space.task)
    originals = {file: file.read_text(encoding="utf-8") for file in (*space.files, defaults)}
    yaml = YAML(typ="safe", pure=True)

    def validate(what: str, settings: dict[str, Scalar]) -> None:
        contents = {file: yaml.load(text) for file, text in originals.items()}
        for field, value in space.changes(settings).items():
            file, keys = space.location(field)
            section = contents[file]
            if file == recipe:
                section[keys[0]] = section[keys[0]] or {}  # empty if all its values are defaults
            for key in keys[:-1]:
                section = section.get(key) if isinstance(section, dict) else None
            if not isinstance(section, dict):
                raise UserError(f"{what}: {field}: there is no section {'.'.join(keys[:-1])} in {file}; expected one")
            section[keys[-1]] = value
        for file, content in contents.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            yaml.dump(content, file)
        try:
            params.validate()
        except UserError as error:
            raise UserError(f"{what}: {error}") from None

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        yield validate
