"""Turns params.yaml, the recipe and dvc.yaml into the validated settings that one stage may read."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, TypeAdapter, ValidationError, create_model
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from finetrail import environment, layout, schema, stage, tasks, upgrades
from finetrail.errors import UserError

if TYPE_CHECKING:
    from finetrail.tasks.contract import Settings

SHOWN = 200  # characters of a value in a message

# Nullable keys of params.yaml, and the place in the recipe that each replaces.
OVERRIDES = {
    "lr": ("train", "lr"),
    "epochs": ("train", "epochs"),
    "batch_size": ("train", "batch_size"),
    "limit": ("tokenize", "limit"),
}

# The package that each tracker needs. The package mlflow (3.17) includes its server, and refuses the project's pyarrow.
TRACKER_PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow-skinny alembic sqlalchemy"}


class StageParams:
    """The settings that dvc.yaml declares for one stage, as attributes; all stages' file names have task and recipe."""

    def __init__(self, name: str, values: dict[str, Any]) -> None:
        self._name = name
        self.__dict__.update(values)

    def __getattr__(self, key: str) -> Any:
        raise AttributeError(f"stage {self._name!r} reads {key!r}, which dvc.yaml does not declare for it")


def load(stage_name: str) -> StageParams:
    """Validate params.yaml and the whole recipe, and return the part that dvc.yaml declares for one stage.

    `stage_name` is the name that DVC prints: "train", "download@corpus". Defaults and overrides are applied.
    Raises UserError with the file, the key and what was expected.
    """
    params = load_params()
    keys = declared_keys(stage_name)
    recipe = overridden(load_recipe(params.task, params.recipe), params, keys)
    values = {key: getattr(recipe if key in type(recipe).model_fields else params, key) for key in keys}
    return StageParams(stage_name, {"task": params.task, "recipe": params.recipe} | values)


def overridden(recipe: Any, params: schema.Params, keys: Iterable[str] = tuple(OVERRIDES)) -> Any:
    """Return a recipe with those overrides of params.yaml that are set and are among `keys`."""
    for key in OVERRIDES.keys() & set(keys):
        if (value := getattr(params, key)) is not None:
            section, field = OVERRIDES[key]
            changed = getattr(recipe, section).model_copy(update={field: value})
            recipe = recipe.model_copy(update={section: changed})
    return recipe


def validate() -> None:
    """Validate params.yaml and the recipe that it names, with the overrides of params.yaml, for this machine."""
    params = load_params()
    recipe = overridden(load_recipe(params.task, params.recipe), params)
    if problems := list(contradictions(recipe, params.task)):
        raise UserError(f"{layout.PARAMS}: {'; '.join(problems)}")
    for name in params.trackers or []:
        if find_spec(name) is None:
            install = f"pip install {TRACKER_PACKAGES[name]}"
            raise UserError(f"{layout.PARAMS}: trackers: {name} is not installed; expected `{install}`, or none")
    path, settings = layout.recipe_file(params.task, params.recipe), tasks.module(params.task, "settings")
    if lacking := list(settings.lacking(recipe)) if settings.lacking else []:
        raise UserError(f"{path}: {'; '.join(lacking)}")
    environment.check(recipe.numerics, path)


def validate_with(target: object) -> None:
    """Raise UserError if a setting of a later stage does not fit the target that the corpus determines.

    Train calls it, because the later stage would report this only after training. No output depends on it.
    """
    params = load_params()
    settings = tasks.module(params.task, "settings")
    recipe = load_recipe(params.task, params.recipe)
    if problems := list(settings.misfits(recipe, target)) if settings.misfits else []:
        raise UserError(f"{layout.recipe_file(params.task, params.recipe)}: {'; '.join(problems)}")


def load_params() -> schema.Params:
    """Read and validate params.yaml."""
    return validated(schema.Params, layout.PARAMS)


def load_recipe(task: str, recipe: str) -> Any:
    """Read a recipe and the defaults of its task, and validate both; sections are attributes.

    UserError with all that is wrong with them.
    """
    tasks.module(task, "settings")
    path = layout.recipe_file(task, recipe)
    if not path.is_file() or recipe == layout.DEFAULTS:
        there = ", ".join(file.stem for file in layout.recipe_files(task=task)) or "none"
        problem = f"holds the task's defaults and is no recipe: {path}" if path.is_file() else f"{path} is missing"
        raise UserError(f"params.yaml: recipe: {problem}; expected one of those there: {there}")
    return checked_recipe(read_yaml(path), path, task)


def checked_recipe(raw: Any, path: Path, task: str, defaults: dict[str, Any] | None = None) -> Any:
    """Validate the content of a recipe's file, as load_recipe() does; `defaults`: if not those of the task's file."""
    found = composed(raw, path, read_defaults(task) if defaults is None else defaults, layout.defaults_file(task))
    return checked_content(model_of(found.values, task), found, partial(contradictions, task=task))


# --- a recipe and its defaults ------------------------------------------------------------------------------------

# The sections that a task's defaults may fill, and must have, as each recipe must: DVC tracks a section in both files.
DEFAULTED = ("tokenize", "numerics", "train", "evaluate", "export")


class Content(NamedTuple):
    """The values of a file, or of a recipe with its task's defaults, and where each value is written."""

    values: Any
    path: Path
    defaults: Path | None = None
    elsewhere: Mapping[upgrades.Path, Path] = MappingProxyType({})  # (section, key) of a value -> its file, if not path

    def file(self, place: upgrades.Path) -> Path:
        """Return the file that has the value at a place, or would have it."""
        return self.elsewhere.get(place[:1]) or self.elsewhere.get(place[:2]) or self.path


def composed(raw: Any, path: Path, defaults: dict[str, Any], defaults_path: Path) -> Content:
    """Return a recipe's content, completed by the defaults.

    A key in a section of the recipe replaces the whole value of the defaults, even if the value is a section, such
    as evaluate.bootstrap. An empty section takes everything from the defaults.
    """
    if not isinstance(raw, dict):
        return Content(raw, path)
    values: dict[str, Any] = dict(raw)
    taken: set[upgrades.Path] = set()
    for section in defaults.keys() & raw.keys():
        own, default = raw[section], defaults[section]
        if default is None and section != "numerics":
            default = {}
        if isinstance(default, dict) and (own is None or isinstance(own, dict)):
            values[section] = default | (own or {})
            taken |= {(section, key) for key in default.keys() - (own or {}).keys()}
        elif own is None and default is not None:
            values[section] = default
            taken.add((section,))
    return Content(values, path, defaults_path, dict.fromkeys(taken, defaults_path))


def read_defaults(task: str) -> dict[str, Any]:
    """Read the defaults of a task: a section may be empty, but must be there; UserError otherwise."""
    path = layout.defaults_file(task)
    if not path.is_file():
        raise UserError(f"{path} is missing; expected the defaults of {task}, as the project's Git history has them")
    raw = _mapping(path)
    problems = [f"{key}: unknown section; expected {', '.join(DEFAULTED)}" for key in raw if key not in DEFAULTED]
    for key in DEFAULTED:
        if key not in raw:
            problems.append(f"{key}: required key is missing (write it without a value for no defaults)")
        elif key != "numerics" and raw[key] is not None and not isinstance(raw[key], dict):
            problems.append(f"{key}: expected a section, got {_shown(raw[key])}")
    if problems:
        raise UserError(f"{path}: {'; '.join(problems)}")
    return raw


def read_recipe(path: Path) -> Content:
    """Read a recipe of the project, in the folder of its task, with its defaults; nothing is validated."""
    task = path.parent.name
    return composed(read_yaml(path), path, read_defaults(task), layout.defaults_file(task))


def model_of(raw: Any, task: str) -> type[BaseModel]:
    """Return the model of a task's recipes with such a corpus section: of one corpus, or of several."""
    settings = tasks.module(task, "settings")
    section = raw.get("corpus") if isinstance(raw, dict) else None
    is_mixture = isinstance(section, dict) and "parts" in section
    return recipe_model(settings, mixture(settings) if is_mixture else schema.sliced(settings.Corpus))


def recipe_model(settings: "Settings", corpus: Any) -> type[BaseModel]:
    """Return the model of a task's recipes, with the type of their corpus section."""
    return create_model(
        "Recipe",
        __base__=schema.Recipe,
        corpus=(corpus, ...),
        model=(schema.either(schema.Model, schema.Student), ...),
        tokenize=(settings.Tokenize, ...),
        train=(_train(settings), ...),
        evaluate=(settings.Evaluate, ...),
        export=(schema.Export, ...),
    )


def _train(settings: "Settings") -> Any:
    """Return the type of a task's section train, which may have distillation if its models can have a teacher."""
    if settings.TaughtTrain is None:
        return settings.Train
    return schema.either(settings.Train, settings.TaughtTrain)


def mixture(settings: "Settings") -> Any:
    """Return the model of a corpus section of several corpora of a task."""
    if settings.Mixture is not None:
        return settings.Mixture
    named: Any = dict.__class_getitem__((schema.Name, schema.sliced(settings.Corpus)))
    return create_model("Mixture", __base__=schema.Mixture, parts=(named, schema.Mixture.model_fields["parts"]))


def declared_keys(stage_name: str) -> list[str]:
    """Return the keys of params.yaml and of the recipe that dvc.yaml declares for a stage."""
    return list(dict.fromkeys(key for keys in _declared_params(stage_name).values() for key in keys))


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
    """Return a stage as dvc.yaml has it, and the values of its ${NAME}: task, recipe, and those of foreach."""
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


# Pattern of a message of ruamel.yaml (0.19) -> the mistake to look for, in words for the author of the file.
YAML_PROBLEMS = {
    r"character '\\t'": "a tab; expected blanks to indent with",
    r'duplicate key "(.*?)"': r"the key \1 occurs twice; expected it once",
    r"mapping values are not allowed": "a second colon, or indentation that differs from the line above; expected one "
    "key per line, and a text with a colon in quotes",
    r"could not find expected ':'": "a line without a colon; expected `key: value`, a text of several lines in quotes",
    r"expected <block end>": "indentation that differs from the line above, or text after a closing quote; expected "
    "the keys of a section aligned",
    r"expected ',' or": "a missing comma or closing bracket",
    r"unexpected end of stream|unexpected document separator": "a quote that is not closed",
    r"cannot start any token|undefined alias|alphabetic or numeric|constructor for the tag|expected ' '|expected URI": (
        "a text that begins with a sign of YAML's own, such as @ * & ! % or `; expected it in quotes"
    ),
    r"unknown escape character": "a backslash in double quotes that begins no escape; expected single quotes",
    r"control characters are not allowed|special characters are not allowed": "a control character",
}


NO_MEANING = "something that is not valid YAML at this place"


def _yaml_problem(error: YAMLError) -> str:
    said = getattr(error, "problem", None) or str(error)
    for pattern, words in YAML_PROBLEMS.items():
        if match := re.search(pattern, said):
            return match.expand(words)
    return NO_MEANING


# Limits for params.yaml and recipes, whose longest have 200 values, 8 levels deep. An alias counts as its content.
MOST_VALUES, DEEPEST, LARGEST_FILE = 100_000, 50, 1 << 20
LARGEST = 2**63
# Open at once, those in texts too.
BRACKETS, MOST_BRACKETS = {"[": 1, "{": 1, "]": -1, "}": -1}, 200


def read_yaml(path: Path) -> Any:
    """Read YAML 1.2 as DVC does (PyYAML would read 3e-5 as a string); UserError with file and line if it is not."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ValueError(f"larger than {LARGEST_FILE >> 20} MiB; expected a recipe")
        text = path.read_text(encoding="utf-8")
        if max(accumulate(BRACKETS.get(character, 0) for character in text), default=0) > MOST_BRACKETS:
            raise RecursionError  # ruamel.yaml (0.19) takes seconds to find out
        content = YAML(typ="safe", pure=True).load(text)
        _check_sizes(content)
        return content
    except FileNotFoundError:
        raise UserError(f"{path} is missing; expected it in the project's root, where DVC runs") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8") from None
    except YAMLError as error:
        mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
        line = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line}: not valid YAML: {_yaml_problem(error)}") from None
    except (LookupError, TypeError, OverflowError, AttributeError) as error:
        # ruamel.yaml (0.19) raises these for tags that do not fit their values, lists as keys, and unknown versions.
        raise UserError(f"{path}: not valid YAML: {NO_MEANING} ({error!s:.60})") from None
    except RecursionError:
        raise UserError(f"{path}: nested more than {DEEPEST} deep; expected sections of a recipe") from None
    except ValueError as error:  # an impossible date, a number of thousands of digits, or raised in this module
        said = "a number of thousands of digits" if "integer string conversion" in str(error) else str(error)
        raise UserError(f"{path}: not a recipe's YAML: {said}") from None


def _check_sizes(content: Any) -> None:
    """Raise ValueError for content that takes hours to validate or megabytes to report: an alias can hold itself."""
    left = [(content, 0)]
    for _ in range(MOST_VALUES):
        if not left:
            return
        value, depth = left.pop()
        if depth > DEEPEST:
            raise RecursionError
        if isinstance(value, int) and abs(value) >= LARGEST:
            raise ValueError("a whole number of 2^63 or more; expected a smaller one, or a text in quotes")
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | set) else ()
        left.extend((one, depth + 1) for one in inner)
    if left:
        raise ValueError(f"more than {MOST_VALUES:,} values, with those that aliases stand for; expected a recipe")


class _InvalidSection(AttributeError):
    """A check reads a section that is invalid by itself, which is reported already."""


class _ValidSections:
    """The sections of a recipe that are valid by themselves, as attributes."""

    def __init__(self, sections: dict[str, Any]) -> None:
        self.__dict__.update(sections)

    @classmethod
    def of(cls, model: type[BaseModel], raw: dict[str, Any]) -> "_ValidSections":
        sections = {}
        for name, field in model.model_fields.items():
            section: TypeAdapter[Any] = TypeAdapter(field.annotation or Any)
            with suppress(ValidationError):
                sections[name] = section.validate_python(raw.get(name))
        return cls(sections)

    def model_copy(self, *, update: dict[str, Any]) -> "_ValidSections":
        return _ValidSections(self.__dict__ | update)

    def __getattr__(self, name: str) -> Any:
        raise _InvalidSection(name)


def contradictions(recipe: Any, task: str) -> Iterator[str]:
    """Yield the contradictions between sections of a recipe, as far as the sections that a check reads are valid.

    A task checks each part of a mixture as if it were the corpus; a problem of all parts is yielded once.
    """
    yield from _problems(schema.check, recipe)
    check = tasks.module(task, "settings").check
    found = {part: list(_problems(check, one)) for part, one in _by_part(recipe).items()}
    common = set.intersection(*map(set, found.values()))
    yield from (problem for problem in next(iter(found.values())) if problem in common)
    for part, problems in found.items():
        yield from (f"corpus.parts.{part}: {problem}" for problem in problems if problem not in common)


def _by_part(recipe: Any) -> dict[str | None, Any]:
    """Return a recipe of each part of a mixture; of another corpus, or an invalid one, the recipe as it is."""
    try:
        parts = schema.parts_of(recipe.corpus)
    except _InvalidSection:
        return {None: recipe}
    return {part: recipe.model_copy(update={"corpus": corpus}) for part, corpus in parts.items()}


def _problems(check: Callable[[Any], Iterator[str]], recipe: Any) -> Iterator[str]:
    """Yield the problems that a check finds before it reads an invalid section; a ValueError is its last problem."""
    try:
        yield from check(recipe)
    except _InvalidSection:
        return
    except ValueError as error:
        yield str(error)


Check = Callable[[Any], Iterator[str]]


def validated(model: type[BaseModel], path: Path, check: Check = lambda _: iter(())) -> Any:
    """Read a file and validate it; UserError with all that is wrong, also with what `check` yields."""
    return checked(model, read_yaml(path), path, check)


def checked(model: type[BaseModel], raw: Any, path: Path, check: Check = lambda _: iter(())) -> Any:
    """Validate the content of a file; UserError with all that is wrong, also with what `check` yields."""
    return checked_content(model, Content(raw, path), check)


def checked_content(model: type[BaseModel], content: Content, check: Check) -> Any:
    """Validate values that may be of two files; UserError with all that is wrong, by file."""
    raw = content.values
    if not isinstance(raw, dict):
        raise UserError(f"{content.path}: expected a mapping with the keys {', '.join(model.model_fields)}")
    problems: list[tuple[Path, str]] = []
    hint = ""
    validated: Any
    try:
        validated = model.model_validate(raw)
    except ValidationError as error:
        validated = _ValidSections.of(model, raw)
        found = error.errors(include_url=False)
        problems = [(content.file(upgrades.located(one, raw)), _describe(one, content)) for one in found]
        hint = f"; {upgrades.HINT}" if upgrades.knows(upgrades.missing_of(error, raw)) else ""
    problems += [(content.path, problem) for problem in check(validated)]
    problems += [(content.file(place), f"{'.'.join(place)}: {problem}") for place, problem in _not_kept(raw, ())]
    if problems:
        by_file: dict[Path, list[str]] = {}
        for path, problem in problems:
            by_file.setdefault(path, []).append(problem)
        raise UserError("; ".join(f"{path}: {'; '.join(found)}" for path, found in by_file.items()) + hint)
    return validated


def _not_kept(value: Any, place: upgrades.Path) -> Iterator[tuple[upgrades.Path, str]]:
    """Yield the place of each text that `dvc exp run -S` (3.67) would change or reject when it rewrites the file.

    It reads the file with OmegaConf, which resolves ${...}, and takes ??? for a missing value. Neither can be escaped
    so that it survives.
    """
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _not_kept(inner, (*place, str(name)))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _not_kept(inner, (*place, str(index)))
    elif isinstance(value, str) and ("${" in value or value == "???"):
        sign = "${" if "${" in value else "???"
        yield place, f"`dvc exp run -S` would resolve {sign} in it, or stop there; expected a text without it"


def _describe(problem: Any, content: Content) -> str:
    """Return 'key.path: what is wrong (got VALUE)', in the words of the YAML file."""
    place = upgrades.located(problem, content.values)
    key = ".".join(place)
    if problem["type"] == "missing":
        return f"{key}: {_missing(place, content)}"
    if problem["type"] == "extra_forbidden":
        return f"{key}: unknown key"
    if problem["type"] == "string_pattern_mismatch":
        return f"{key}: {_shown(problem['input'])}; expected {schema.PATTERNS[problem['ctx']['pattern']]}"
    if problem["type"] == "union_tag_invalid":
        context = problem["ctx"]
        return f"{key}: {context['discriminator']} is {_shown(context['tag'])}; expected {context['expected_tags']}"
    if problem["type"] == "union_tag_not_found":
        return f"{key}: {problem['ctx']['discriminator']} is missing; expected the key that says which form it has"
    if problem["type"] == "invalid_key":
        return f"{key}{'.' if key else ''}{problem['loc'][-1]!r}: a key that is not a string; expected names as keys"
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ").removeprefix("String ")
    if problem["type"] == "value_error":
        return f"{key}: {message}" if key else message
    got = "" if isinstance(problem["input"], dict) else f", got {_shown(problem['input'])}"
    return f"{key}: {message}{got}"


def _missing(place: upgrades.Path, content: Content) -> str:
    """Return the message for a missing key; it names the defaults if they may have the key."""
    if content.defaults and place[0] in DEFAULTED and len(place) == 1:
        return "required key is missing (without a value it takes the defaults)"
    null = "write it without a value for null"
    if content.defaults and place[0] in DEFAULTED and len(place) == 2:
        return f"required key is missing ({null}); it may be here, or in {content.defaults} for all recipes of the task"
    return f"required key is missing ({null})"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def check() -> None:
    """Validate params.yaml with its recipe, and warn of each other recipe that is not valid.

    UserError if the first two are not valid. An invalid file that a run does not read, such as a draft, is no error.
    """
    broken = {}
    paths = layout.recipe_files()
    for path in paths:
        try:
            load_recipe(path.parent.name, path.stem)
        except UserError as error:
            broken[path] = str(error)
    chosen = None
    try:
        params = load_params()
        chosen = layout.recipe_file(params.task, params.recipe)
        validate()
    finally:
        reported = broken.get(chosen) if chosen else None
        for problems in dict.fromkeys(broken.values()):  # once each: all recipes of a task share a wrong default
            if problems != reported:
                stage.log(f"warning: {problems}")
    others = f"{len(paths)} recipes are" if not broken else f"{len(paths) - len(broken)} of {len(paths)} recipes are"
    stage.log(f"params.yaml and {others} valid; it runs {params.task}/{params.recipe}")
