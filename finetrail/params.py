"""Turns params.yaml, the recipe and dvc.yaml into the validated settings that one stage may read."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError, create_model
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from finetrail import environment, layout, schema, stage, tasks
from finetrail.errors import UserError

# Nullable keys of params.yaml, and the place in the recipe that each replaces.
OVERRIDES = {
    "lr": ("train", "lr"),
    "epochs": ("train", "epochs"),
    "batch_size": ("train", "batch_size"),
    "limit": ("tokenize", "limit"),
}


class Declared:
    """What dvc.yaml declares for one stage, as attributes; `task` and `recipe` are in the file names of every stage."""

    def __init__(self, name: str, values: dict[str, Any]) -> None:
        self._name = name
        self.__dict__.update(values)

    def __getattr__(self, key: str) -> Any:
        raise AttributeError(f"stage {self._name!r} reads {key!r}, which dvc.yaml does not declare for it")


def load(stage_name: str) -> Declared:
    """Validate params.yaml and the whole recipe, and return the part that dvc.yaml declares for one stage.

    `stage_name` is as DVC prints it: "train", "download@corpus". Overrides of params.yaml are in place.
    Raises UserError with the file, the key and what was expected.
    """
    params = load_params()
    recipe = load_recipe(params.task, params.recipe)
    values: dict[str, Any] = {"task": params.task, "recipe": params.recipe}
    for key in declared_keys(stage_name):
        values[key] = getattr(recipe if key in type(recipe).model_fields else params, key)
    for key, (section, field) in OVERRIDES.items():
        if values.get(key) is not None and section in values:
            values[section] = values[section].model_copy(update={field: values[key]})
    return Declared(stage_name, values)


def validate() -> None:
    """Validate params.yaml and the recipe that it names, with the overrides of params.yaml, for this machine."""
    params = load_params()
    recipe = load_recipe(params.task, params.recipe)
    for key, (section, field) in OVERRIDES.items():
        if (value := getattr(params, key)) is not None:
            changed = getattr(recipe, section).model_copy(update={field: value})
            recipe = recipe.model_copy(update={section: changed})
    _check(recipe, params.task, layout.PARAMS)
    environment.check(recipe.numerics, layout.recipe_file(params.task, params.recipe))


def load_params() -> schema.Params:
    """Read and validate params.yaml."""
    return _validate(schema.Params, layout.PARAMS)


def load_recipe(task: str, recipe: str) -> Any:
    """Read and validate one recipe against the schema of its task; sections are attributes."""
    settings = tasks.module(task, "settings")
    path = layout.recipe_file(task, recipe)
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in path.parent.glob("*.yaml"))) or "none"
        raise UserError(f"params.yaml: recipe: {path} is missing; expected one of those there: {there}")
    model = create_model(
        "Recipe",
        __base__=schema.Recipe,
        corpus=(_corpus(settings, path), ...),
        model=(schema.Model, ...),
        tokenize=(settings.Tokenize, ...),
        train=(settings.Train, ...),
        evaluate=(settings.Evaluate, ...),
        export=(schema.Export, ...),
    )
    validated = _validate(model, path)
    _check(validated, task, path)
    return validated


def _corpus(settings: Any, path: Path) -> Any:
    """Return the model of a recipe's corpus section: a task's corpus, or a mixture of several where it has parts."""
    raw = read_yaml(path)
    section = raw.get("corpus") if isinstance(raw, dict) else None
    if not isinstance(section, dict) or "parts" not in section:
        return settings.Corpus
    if hasattr(settings, "Mixture"):
        return settings.Mixture
    parts = schema.Mixture.model_fields["parts"]
    return create_model("Mixture", __base__=schema.Mixture, parts=(dict[schema.Name, settings.Corpus], parts))


def declared_keys(stage_name: str) -> list[str]:
    """Return the keys of params.yaml and of the recipe that dvc.yaml declares for a stage."""
    return [key for keys in _declared_params(stage_name).values() for key in keys]


def declared_settings(stage_name: str) -> dict[str, Any]:
    """Return the values that dvc.yaml declares for a stage, as they are in the YAML files: "FILE: KEY" -> value."""
    found: dict[str, Any] = {}
    for path, keys in _declared_params(stage_name).items():
        values = _mapping(path)
        found |= {f"{path}: {key}": values.get(key) for key in keys}
    return found


def declared_files(stage_name: str) -> list[Path]:
    """Return the files and folders that dvc.yaml declares as a stage's deps."""
    definition, names = _definition(stage_name)
    return [Path(_filled(dep, names)) for dep in definition.get("deps", [])]


def _declared_params(stage_name: str) -> dict[Path, list[str]]:
    """Return the keys that dvc.yaml declares for a stage, by the file that holds them."""
    definition, names = _definition(stage_name)
    keys: dict[Path, list[str]] = {}
    for entry in definition.get("params", []):
        for path, of_path in {str(layout.PARAMS): [entry]}.items() if isinstance(entry, str) else entry.items():
            keys.setdefault(Path(_filled(path, names)), []).extend(_filled(key, names) for key in of_path)
    return keys


def _definition(stage_name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a stage as dvc.yaml has it, and what its ${NAME} stand for: task, recipe, and those of foreach."""
    name, _, key = stage_name.partition("@")
    stages, params = _mapping(layout.GRAPH).get("stages", {}), load_params()
    if name not in stages:
        raise UserError(f"{layout.GRAPH}: no stage {name!r}")
    definition = stages[name]
    names = {"task": params.task, "recipe": params.recipe, "key": key}
    names |= {f"item.{field}": value for field, value in definition.get("foreach", {}).get(key, {}).items()}
    return definition.get("do", definition), names


def _filled(text: str, names: dict[str, str]) -> str:
    # Twice: an item of foreach may hold ${task}.
    for _ in range(2):
        for name, value in names.items():
            text = text.replace("${" + name + "}", value)
    return text


def _mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file that must be a mapping."""
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a mapping")
    return content


def read_yaml(path: Path) -> Any:
    """Read YAML 1.2 as DVC does (PyYAML would read 3e-5 as a string); UserError with file and line if it is not."""
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; expected it in the project's root, where DVC runs") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8") from None
    except YAMLError as error:
        mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise UserError(f"{path}{line}: not valid YAML: {problem}") from None


def _check(recipe: Any, task: str, path: Path) -> None:
    for part, corpus in schema.parts_of(recipe.corpus).items():
        where = path if part is None else f"{path}: corpus.parts.{part}"
        try:
            tasks.module(task, "settings").check(recipe.model_copy(update={"corpus": corpus}))
        except ValueError as error:
            raise UserError(f"{where}: {error}") from None


def _validate(model: type[BaseModel], path: Path) -> Any:
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise UserError(f"{path}: expected a mapping with the keys {', '.join(model.model_fields)}")
    try:
        validated, problems = model.model_validate(raw), []
    except ValidationError as error:
        validated, problems = None, [_describe(problem, raw) for problem in error.errors(include_url=False)]
    if problems := problems + list(_not_kept(raw, "")):
        raise UserError(f"{path}: {'; '.join(problems)}")
    return validated


def _not_kept(value: Any, key: str) -> Iterator[str]:
    """Yield a line for each text that `dvc exp run -S` (3.67) would change or stop at when it writes the file anew.

    It reads the file with OmegaConf, which resolves ${...}, and takes ??? for a value that is missing; there is no way
    to write either so that it stays.
    """
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _not_kept(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _not_kept(inner, f"{key}.{index}")
    elif isinstance(value, str) and ("${" in value or value == "???"):
        sign = "${" if "${" in value else "???"
        yield f"{key}: `dvc exp run -S` would resolve {sign} in it, or stop there; expected a text without it"


def _describe(problem: Any, raw: Any) -> str:
    """Return 'key.path: what is wrong (got VALUE)', in the words of the YAML file."""
    keys: list[str] = []
    for depth, step in enumerate(problem["loc"], start=1):
        last = depth == len(problem["loc"])
        # pydantic puts the tag or the type of a union's member into the location: it is no key of the file.
        if isinstance(raw, dict) and (last or (step in raw and step not in (raw.get("kind"), raw.get("format")))):
            keys.append(str(step))
            raw = raw.get(step)
        elif isinstance(raw, list) and isinstance(step, int):
            keys.append(str(step))
            raw = raw[step]
    key = ".".join(keys)
    if problem["type"] == "missing":
        return f"{key}: required key is missing (write it without a value for null)"
    if problem["type"] == "extra_forbidden":
        return f"{key}: unknown key"
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if problem["type"] == "value_error":
        return f"{key}: {message}" if key else message
    got = "" if isinstance(problem["input"], dict) else f", got {problem['input']!r}"
    return f"{key}: {message}{got}"


def check() -> None:
    """Validate params.yaml and every recipe; log a line for each that is wrong, or how many recipes there are."""
    recipes = sorted(layout.RECIPES.glob("*/*.yaml"))
    validations: list[Callable[[], Any]] = [validate]
    validations += [partial(load_recipe, path.parent.name, path.stem) for path in recipes]
    mistakes = []
    for validation in validations:
        try:
            validation()
        except UserError as error:
            mistakes.append(str(error))
    *others, last = dict.fromkeys(mistakes) or [None]
    for mistake in others:
        stage.log(f"error: {mistake}")
    if last:
        raise UserError(last)
    params = load_params()
    stage.log(f"params.yaml and {len(recipes)} recipes are valid; it runs {params.task}/{params.recipe}")


if __name__ == "__main__":
    stage.run(check)
