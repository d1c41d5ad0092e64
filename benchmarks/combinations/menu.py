"""The schema of a recipe -> the values that are tried for each of its keys: a new key is there without an edit here."""

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from benchmarks import ROOT
from finetrail import layout, schema

Path = tuple[str, ...]
Menu = dict[Path, list[Any]]

# Sources name what is outside; the sections of a mixture's parts are menus of their own.
NOT_WALKED = ("source", "parts")


class Vocabulary(NamedTuple):
    """Values of texts, lists and mappings, which a schema leaves open."""

    given: Menu  # those that go with a corpus: in place of all others of a key
    shipped: Menu  # those of the shipped recipes


# Ends the path of a section that may have more keys, all of them or none; its value are those keys with theirs.
MORE = "+"
NUMBERS = (1, 4, 16, 40)
SHARES = (0.0, 0.3, 0.9, 1.0, 2.5)
TEXTS = {schema.INTERVAL: ["1 updates", "3 updates", "1 minutes"]}


def menu(model: type[BaseModel], vocabulary: Vocabulary, path: Path = ()) -> Menu:
    """Return the values of each key of a section, also of those in sections that are there for some values only."""
    found: Menu = {}
    for name, field in model.model_fields.items():
        if name in NOT_WALKED and _general((*path, name)) not in vocabulary.given:
            continue
        for key, values in _of(field.annotation, field.metadata, (*path, name), vocabulary).items():
            known = found.setdefault(key, [])
            known += [value for value in values if value not in known]
    return found


def shipped(task: str) -> Menu:
    """Return every value of every key in the recipes and defaults of a task, without the names of a mixture's parts."""
    found: Menu = {}
    for file in [ROOT / layout.defaults_file(task), *layout.recipe_files(ROOT, task)]:
        for path, value in _flat(yaml.safe_load(file.read_text(encoding="utf-8")), ()):
            values = found.setdefault(path, [])
            if value not in values:
                values.append(value)
    return found


def _flat(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if path:
        yield path, value
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(inner, ("corpus",) if path == ("corpus", "parts") else (*path, str(name)))


def _of(annotation: Any, metadata: list[Any], path: Path, vocabulary: Vocabulary) -> Menu:
    """Return the values of one key, and those of the keys inside them."""
    members = list(_members(annotation, metadata))
    sections = [kind for kind, _ in members if _is_section(kind)]
    if _general(path) in vocabulary.given:
        return {path: vocabulary.given[_general(path)]}
    if len(sections) == 2 and issubclass(sections[1], sections[0]):
        plain, larger = sections
        more = least(larger, path, vocabulary, without=plain)
        return {(*path, MORE): [] if more is None else [more]} | menu(larger, vocabulary, path)
    found: Menu = {path: [value for kind, limits in members for value in _values(kind, limits, path, vocabulary)]}
    if len(members) == 1 and sections:
        found = {}  # always there: its keys are what is tried
    for section in sections:
        for key, values in menu(section, vocabulary, path).items():
            found.setdefault(key, []).extend(value for value in values if value not in found[key])
    return found


def _members(annotation: Any, metadata: list[Any]) -> Iterator[tuple[Any, list[Any]]]:
    """Yield the members of a union, or the one type, each with its constraints."""
    if get_origin(annotation) is Annotated:
        kind, *more = get_args(annotation)
        for one in more:
            metadata = metadata + (one.metadata if isinstance(one, FieldInfo) else [one])
        yield from _members(kind, metadata)
    elif get_origin(annotation) in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _members(member, metadata)
    else:
        yield annotation, metadata


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _values(kind: Any, metadata: list[Any], path: Path, vocabulary: Vocabulary) -> list[Any]:
    """Return the values of one type; of a section the one with the first value of each key."""
    if _is_section(kind):
        made = least(kind, path, vocabulary)
        return [] if made is None else [made]
    if kind in (None, type(None)):
        return [None]
    if kind is bool:
        return [False, True]
    if kind in (int, float):
        return _numbers(kind, metadata)
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    if get_origin(kind) is list and (inner := [*_members(get_args(kind)[0], [])])[0][0] is not str:
        ones = [value for of, limits in inner for value in _values(of, limits, path, vocabulary)]
        return [ones[:1], ones[1:2], ones[:2]]
    patterns = [pattern for one in metadata if (pattern := getattr(one, "pattern", None))]
    known = [
        value for value in vocabulary.shipped.get(_general(path), []) if isinstance(value, get_origin(kind) or kind)
    ]
    return known + [text for pattern in patterns for text in TEXTS.get(pattern, []) if kind is str]


def _general(path: Path) -> Path:
    """Return the path of a key of a mixture's part as it is in a corpus."""
    return ("corpus", *path[3:]) if path[:2] == ("corpus", "parts") else path


def least(
    section: type[BaseModel], path: Path, vocabulary: Vocabulary, without: type[BaseModel] = BaseModel
) -> dict[str, Any] | None:
    """Return a section with null or the first value of each of its keys; None if one has no value.

    without: a section whose keys are left out.
    """
    made: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        if name in without.model_fields:
            continue
        key = (*path, name)
        values = vocabulary.given.get(_general(key), []) or [
            value
            for kind, limits in _members(field.annotation, field.metadata)
            for value in _values(kind, limits, key, vocabulary)
        ]
        if not values:
            return None
        made[name] = None if None in values else values[0]
    return made


def _numbers(kind: type, metadata: list[Any]) -> list[Any]:
    """Return small numbers within the bounds: the bounds themselves, or what is near them, among them."""
    bounds = {name: getattr(one, name) for one in metadata for name in ("ge", "gt", "le", "lt") if hasattr(one, name)}
    low = bounds.get("ge", bounds.get("gt", 0))
    numbers = [low, *(low + number for number in NUMBERS)] if kind is int else [*SHARES, low + 1e-4]
    return sorted({kind(number) for number in numbers if _is_within(number, bounds)})


def _is_within(number: float, bounds: dict[str, float]) -> bool:
    return bounds.get("ge", number) <= number <= bounds.get("le", number) and bounds.get(
        "gt", number - 1
    ) < number < bounds.get("lt", number + 1)
