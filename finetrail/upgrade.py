"""Brings params.yaml, recipes and defaults of an earlier version to this one; every other byte of them stays.

python -m finetrail.upgrade                      # params.yaml, and every recipe with the defaults of its task
python -m finetrail.upgrade masked_lm/mine       # one recipe, TASK/NAME or its file, with the defaults of its task
python -m finetrail.upgrade --diff               # show what would change, and write nothing
"""

import argparse
import difflib
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node

from finetrail import layout, params, schema, stage, tasks, upgrades
from finetrail.errors import UserError
from finetrail.upgrades import Change

Pairs = dict[str, tuple[Node, Node]]


class Upgrade(NamedTuple):
    """A file, its changes, and its text before and after them."""

    path: Path
    old: str
    new: str
    changes: list[Change]


class Edit(NamedTuple):
    """A span of a text, its replacement, and the order among edits that begin at one place."""

    start: int
    end: int
    order: int
    piece: str


def main() -> None:
    """Upgrade each file that can be upgraded, and report the others."""
    options = arguments()
    problems: list[str] = []
    done: list[Upgrade] = []
    defaults: dict[Path, dict[str, Any]] = {}  # by folder: as they will be
    for path in options.files:
        try:
            done.append(planned(path, defaults.get(path.parent)))
            if path.stem == layout.DEFAULTS:
                defaults[path.parent] = YAML(typ="safe", pure=True).load(done[-1].new)
        except UserError as error:
            problems.append(str(error))
    for upgrade in done:
        if upgrade.changes and options.diff:
            with stage.printing():
                print(shown(upgrade), end="")
        elif upgrade.changes:
            write(upgrade.path, upgrade.new)
            stage.log(f"{upgrade.path}: {told(upgrade.changes)}")
    changed = sum(bool(upgrade.changes) for upgrade in done)
    verb = "would be changed" if options.diff else "changed"
    stage.log(f"{changed} {verb}, {len(done) - changed} of version {upgrades.VERSION} already")
    if problems:
        raise UserError(f"{len(problems)} left as they are: {'; '.join(problems)}")


def planned(path: Path, defaults: dict[str, Any] | None = None) -> Upgrade:
    """Return the upgrade of a file; UserError if the result would be invalid, or the file is of another kind.

    `defaults` are those of a recipe's task, if not as the file beside the recipe has them.
    """
    raw, text = params.read_yaml(path), path.read_bytes().decode()
    model = model_of(path, raw)
    if not isinstance(raw, dict):
        raise UserError(f"{path}: expected a mapping with the keys {', '.join(model.model_fields)}")
    if path.stem == layout.DEFAULTS:
        new, changes = upgraded_defaults(raw, path)
    elif path.name == layout.PARAMS.name:
        new, changes = renamed(raw, path)
        changes += upgrades.add(new, upgrades.missing(model, new))
        params.checked(model, new, path)
    else:
        defaults = defaults_beside(path) if defaults is None else defaults
        new, changes = upgraded_recipe(raw, path, defaults)
        params.checked_recipe(new, path, path.absolute().parent.name, defaults)
    if not changes:
        return Upgrade(path, text, text, [])
    edited = edit(text, changes, json_schema(path))
    if not _means(edited, new):
        raise UserError(f"{path}: anchors or merged sections stand in the way; expected {told(changes)}")
    return Upgrade(path, text, edited, changes)


def renamed(raw: dict[str, Any], path: Path) -> tuple[dict[str, Any], list[Change]]:
    """Return the content of a file with the names of this version, and the changes; UserError with the file."""
    try:
        return upgrades.renamed(raw)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def upgraded_recipe(raw: Any, path: Path, defaults: dict[str, Any]) -> tuple[dict[str, Any], list[Change]]:
    """Return the content of a recipe as this version has it, and the changes.

    A key of a section that the defaults have is added to the defaults, and not to each recipe.
    """
    new, changes = renamed(raw, path)
    shared = {section for section, keys in defaults.items() if isinstance(keys, dict)}
    own = [place for place in lacking(new, path, defaults) if not (len(place) == 2 and place[0] in shared)]
    return new, changes + upgrades.add(new, [*own, *kept(new, path, defaults)])


def kept(recipe: dict[str, Any], path: Path, defaults: dict[str, Any]) -> Iterator[upgrades.Path]:
    """Yield the places of keys whose defaults differ from what the recipe did before there were any.

    A section is of an earlier version if it lacks nothing but keys that later versions brought. A recipe that leaves
    other keys to the defaults too was written for them.
    """
    places = [place for place in lacking(recipe, path, {}) if len(place) == 2]
    for section, keys in defaults.items():
        missing = [place for place in places if place[0] == section]
        before = {place: upgrades.ADDED[key] for place in missing if (key := upgrades.dotted(place)) in upgrades.ADDED}
        if isinstance(keys, dict) and len(before) == len(missing):
            yield from (place for place in missing if place[1] in keys and before[place] != keys[place[1]])


def upgraded_defaults(raw: dict[str, Any], path: Path) -> tuple[dict[str, Any], list[Change]]:
    """Return the defaults with the keys that a recipe beside them lacks in both files, and the changes."""
    new, changes = renamed(raw, path)
    places: dict[upgrades.Path, None] = {}
    for file in sorted(path.parent.glob("*.yaml")):
        with suppress(UserError):  # which is reported for the recipe itself
            if file == path or not isinstance(own := params.read_yaml(file), dict):
                continue
            own, _ = renamed(own, file)
            for place in lacking(own, file, new):
                if len(place) >= 2 and place[0] in new and place[1] not in (own.get(place[0]) or {}):
                    places[place] = None
    return new, changes + upgrades.add(new, places)


def lacking(recipe: Any, path: Path, defaults: dict[str, Any]) -> list[upgrades.Path]:
    """Return the places of the keys that a recipe with its defaults lacks."""
    task = path.absolute().parent.name
    values = params.composed(recipe, path, defaults, layout.defaults_file(task)).values
    return upgrades.missing(params.model_of(values, task), values)


def defaults_beside(path: Path) -> dict[str, Any]:
    """Return the defaults in the folder of a recipe; none for a recipe of the time before there were any."""
    beside = path.with_name(f"{layout.DEFAULTS}.yaml")
    found = params.read_yaml(beside) if beside.is_file() else {}
    return found if isinstance(found, dict) else {}


def model_of(path: Path, raw: Any) -> type[BaseModel]:
    """Return the model of a file: of params.yaml, or of the recipes of the task whose folder it is in."""
    if path.name == layout.PARAMS.name:
        return schema.Params
    task = path.absolute().parent.name
    if task not in tasks.names():
        raise UserError(f"{path}: expected {layout.PARAMS}, or a recipe in a folder named {', '.join(tasks.names())}")
    return params.model_of(raw, task)


def _means(text: str, content: Any) -> bool:
    try:
        return bool(YAML(typ="safe", pure=True).load(text) == content)
    except YAMLError:
        return False


# --- the text -----------------------------------------------------------------------------------------------------


def edit(text: str, changes: list[Change], sections: dict[str, Any]) -> str:
    """Write changes into a YAML text, new keys in the order of `sections`, the JSON schema of the file.

    The text is edited, because a library that rewrites YAML moves comments, quotes and blanks.
    """
    root = YAML(typ="safe", pure=True).compose(text)
    edits: set[Edit] = set()  # a set, because two places may be one: an anchor and its alias
    for change in changes:
        section = _node(root, change.place)
        if section is None:  # merged from elsewhere
            continue
        if change.old is None:
            edits.add(_insertion(text, section, change, changes, sections))
        else:
            key, value = _pairs(section)[change.old]
            edits.add(Edit(key.start_mark.index, key.end_mark.index, 0, change.place[-1]))
            edits.add(Edit(value.start_mark.index, value.end_mark.index, 0, _scalar(change.value)))
    pieces, at = [], 0
    for start, end, _, piece in sorted(edits):
        pieces += [text[at:start], piece]
        at = end
    return "".join([*pieces, text[at:]])


def _insertion(text: str, section: Any, change: Change, changes: list[Change], sections: dict[str, Any]) -> Edit:
    """Return the edit that writes a new key after its predecessor in the schema, or before all others."""
    pairs = _pairs(section)
    for other in changes:  # the schema knows a renamed key by its new name
        if other.old is not None and other.place[:-1] == change.place[:-1]:
            pairs[other.place[-1]] = pairs.pop(other.old)
    siblings = _siblings(sections, change.place)
    order = siblings.index(change.place[-1])
    before = next((pairs[name] for name in reversed(siblings[:order]) if name in pairs), None)
    key = next(iter(pairs.values()))[0]
    name, value = change.place[-1], _scalar(change.value)
    if section.flow_style:
        if before is None:
            return Edit(key.start_mark.index, key.start_mark.index, order, f"{name}: {_shown(change.value)}, ")
        end = _end(before[1], before[0].end_mark.index)
        return Edit(end, end, order, f", {name}: {_shown(change.value)}")
    newline = "\r\n" if "\r\n" in text else "\n"
    column = key.start_mark.column
    line = f"{' ' * column}{name}: {value}".rstrip()
    if before is None:
        start = key.start_mark.index - column
        return Edit(start, start, order, line + newline)
    end = _line_after(text, _end(before[1], before[0].end_mark.index), column)
    return Edit(end, end, order, line + newline if text[:end].endswith("\n") else newline + line)


def _node(root: Any, place: upgrades.Path) -> Any:
    """Return the section that holds a key; None if it is merged from elsewhere (<<)."""
    for key in place[:-1]:
        found = _pairs(root).get(key)
        if found is None:
            return None
        root = found[1]
    return root


def _pairs(node: Any) -> Pairs:
    return {key.value: (key, value) for key, value in node.value}


def _end(node: Node, after: int) -> int:
    """Return the end of a value, without the comments after it; `after`: the end of its key."""
    if node.start_mark.index < after:  # an alias: its node is where the anchor is
        return after
    if not isinstance(node, CollectionNode) or node.flow_style or not node.value:
        return int(node.end_mark.index)
    if isinstance(node, MappingNode):
        key, value = node.value[-1]
        return _end(value, key.end_mark.index)
    return _end(node.value[-1], node.start_mark.index)


def _line_after(text: str, end: int, column: int) -> int:
    """Return the start of the line after a value and after comments that are indented more than its key."""
    end = len(text[:end].rstrip())
    while (end := text.find("\n", end) + 1) > 0:
        line = text[end:].partition("\n")[0]
        if not line.lstrip(" ").startswith("#") or len(line) - len(line.lstrip(" ")) <= column:
            return end
    return len(text)


def _scalar(value: Any) -> str:
    """Return a value of the table as recipes write it: null as nothing."""
    return {None: "", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else str(value)


# --- the order of keys --------------------------------------------------------------------------------------------


@cache
def recipe_schema(task: str) -> dict[str, Any]:
    """Return the JSON schema of a task's recipes, of one corpus or of several."""
    settings = tasks.module(task, "settings")
    corpus = schema.sliced(settings.Corpus) | params.mixture(settings)
    return params.recipe_model(settings, corpus).model_json_schema()


def json_schema(path: Path) -> dict[str, Any]:
    """Return the JSON schema of a file."""
    if path.name == layout.PARAMS.name:
        return schema.Params.model_json_schema()
    return recipe_schema(path.absolute().parent.name)


def objects(node: Any, root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield each form with keys that a place of a JSON schema may have."""
    if "$ref" in node:
        yield from objects(root["$defs"][node["$ref"].rpartition("/")[2]], root)
    for form in [*node.get("anyOf", []), *node.get("oneOf", [])]:
        yield from objects(form, root)
    if "properties" in node or "patternProperties" in node:
        yield node


def _siblings(root: dict[str, Any], place: upgrades.Path) -> list[str]:
    """Return the keys of the section that has a key, in the order of the schema."""
    forms = list(objects(root, root))
    for key in place[:-1]:
        inner = [node for form in forms for node in _below(form, key)]
        forms = [found for node in inner for found in objects(node, root)]
    return next(list(form["properties"]) for form in forms if place[-1] in form.get("properties", {}))


def _below(form: dict[str, Any], key: str) -> Iterator[Any]:
    """Yield what a form has below a key: one of its own, or a name that people gave, as the parts of a mixture have."""
    if key in form.get("properties", {}):
        yield form["properties"][key]
    else:
        yield from form.get("patternProperties", {}).values()


# --- the command --------------------------------------------------------------------------------------------------


def told(changes: list[Change]) -> str:
    """Return the changes of a file in words."""
    added = [f"{'.'.join(change.place)}: {_shown(change.value)}" for change in changes if change.old is None]
    renamed = [
        f"{'.'.join((*change.place[:-1], change.old))}: {_shown(change.old_value)} is now "
        f"{'.'.join(change.place)}: {_shown(change.value)}"
        for change in changes
        if change.old is not None
    ]
    return "; ".join([*([f"added {', '.join(added)}"] if added else []), *renamed])


def _shown(value: Any) -> str:
    return _scalar(value) or "null"


def shown(upgrade: Upgrade) -> str:
    """Return a unified diff of a file, as `git apply` takes it."""
    old, new = (text.splitlines(keepends=True) for text in (upgrade.old, upgrade.new))
    found = difflib.unified_diff(old, new, f"a/{upgrade.path.as_posix()}", f"b/{upgrade.path.as_posix()}")
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in found)


def write(path: Path, text: str) -> None:
    """Replace a file atomically, because nothing else may have a copy of it; a link stays a link."""
    path = path.resolve()
    beside = path.with_name(f".{path.name}.partial")
    try:
        beside.write_bytes(text.encode())
        beside.chmod(path.stat().st_mode)
        os.replace(beside, path)
    finally:
        stage.remove(beside)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m finetrail.upgrade",
        description="Bring params.yaml, recipes and defaults of an earlier version to this one.",
    )
    parser.add_argument(
        "files", nargs="*", metavar="RECIPE", help="TASK/NAME, or a file; none: params.yaml and every recipe"
    )
    parser.add_argument("--diff", action="store_true", help="show what would change, and write nothing")
    options = parser.parse_args()
    named = [file_of(name) for name in options.files] or [layout.PARAMS, *layout.recipe_files()]
    beside = {path.with_name(f"{layout.DEFAULTS}.yaml") for path in named if path.name != layout.PARAMS.name}
    defaults = sorted(path for path in beside if path.is_file())
    options.files = [*defaults, *(path for path in named if path not in beside)]
    return options


def file_of(name: str) -> Path:
    """Return the file that a user named."""
    path = Path(name)
    return path if path.suffix == ".yaml" else layout.recipe_file(*os.path.split(name))


if __name__ == "__main__":
    stage.run(main)
