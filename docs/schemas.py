"""Writes the JSON schemas by which editors check and explain params.yaml, recipes and defaults: docs/schemas.

Also docs/keys.json: each key of them, by the version of the schema that brought it. finetrail/upgrades.py has to know
what files of earlier versions get for it; tests/test_upgrades.py compares.

python docs/schemas.py         # `make docs` calls it
"""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import chdir
from copy import deepcopy
from itertools import groupby
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from finetrail import params, schema, tasks, upgrade, upgrades  # noqa: E402

FOLDER = ROOT / "docs/schemas"
KEYS = ROOT / "docs/keys.json"
HEAD = {"$schema": "https://json-schema.org/draft/2020-12/schema"}


def schemas() -> dict[str, dict[str, Any]]:
    """Return the schema of params.yaml, and for each task those of its recipes and of its defaults."""
    found = {"params": schema.Params.model_json_schema()}
    for task in tasks.names():
        found[task] = of_recipes(task)
        found[f"{task}_defaults"] = of_defaults(task)
    return {name: HEAD | one for name, one in found.items()}


def of_recipes(task: str) -> dict[str, Any]:
    """Return the schema of a task's recipes, which may leave to the defaults what these have."""
    with chdir(ROOT):
        defaults = params.read_defaults(task)
    return relaxed(upgrade.recipe_schema(task), {name: set(value or ()) for name, value in defaults.items()
                                                 if name != "numerics"})  # fmt: skip


def of_defaults(task: str) -> dict[str, Any]:
    """Return the schema of a task's defaults: any keys of the sections that they may fill."""
    whole = upgrade.recipe_schema(task)
    kept = {name: whole["properties"][name] for name in params.DEFAULTED}
    top = whole | {"title": "Defaults", "properties": kept, "required": list(kept)}
    found = relaxed(top, {name: None for name in kept if name != "numerics"})
    used = referred(found["properties"], found["$defs"])
    return found | {"$defs": {name: one for name, one in found["$defs"].items() if name in used}}


def referred(node: Any, definitions: dict[str, Any]) -> set[str]:
    """Return the names of the definitions that a part of a schema refers to, directly or not."""
    found: set[str] = set()
    left = [node]
    while left:
        for name in set(re.findall(r'"#/\$defs/(\w+)"', json.dumps(left.pop()))) - found:
            found.add(name)
            left.append(definitions[name])
    return found


def relaxed(root: dict[str, Any], optional: dict[str, set[str] | None]) -> dict[str, Any]:
    """Return a schema whose sections may be empty, or lack the keys that `optional` has for each; None: any key."""
    new = deepcopy(root)
    for name, keys in optional.items():
        section = new["properties"][name]
        if keys is None and "oneOf" in section:  # of whose forms several fit, once no key is required
            section["anyOf"] = section.pop("oneOf")
        for form in upgrade.objects(section, new):
            if keys is None:
                form.pop("required", None)
            elif "required" in form:
                form["required"] = [key for key in form["required"] if key not in keys]
        new["properties"][name] = {"anyOf": [section, {"type": "null"}]}
    new["properties"]["numerics"] = {"anyOf": [new["properties"]["numerics"], {"type": "null"}]}
    return new


def text(one: dict[str, Any]) -> str:
    """Return a schema as its file has it."""
    return json.dumps(one, indent=1, ensure_ascii=False) + "\n"


def places(root: dict[str, Any], node: dict[str, Any] | None = None, at: str = "") -> Iterator[str]:
    """Yield each key of a JSON schema as "section.key", and each section as "section.".

    The kind or format names one form of several: source(url).urls; or, where it has keys more than the first, by
    its name and those alone: model(Student).layers. Parts of a mixture are corpora.
    """
    first: set[str] = set()
    for form in upgrade.objects(root if node is None else node, root):
        keys = form.get("properties", {})
        kind = next((keys[name]["const"] for name in ("kind", "format") if "const" in keys.get(name, {})), None)
        name = kind or (form["title"] if first else None)
        section = f"{at}({name})." if name else f"{at}." if at else ""
        yield section or "."
        for key in keys if kind else [key for key in keys if key not in first]:
            yield section + key
            yield from places(root, keys[key], section + key)
        first = first if kind else first | set(keys)


def since(made: dict[str, dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Return the version that brought each key of each schema: as docs/keys.json has it, or else the one of now."""
    known = read_keys()
    return {
        name: {place: known.get(name, {}).get(place, upgrades.VERSION) for place in places(one)}
        for name, one in made.items()
        if not name.endswith("_defaults")  # whose keys are those of the recipes
    }


def read_keys() -> dict[str, dict[str, int]]:
    """Read docs/keys.json: name of the schema -> place -> version."""
    found: dict[str, dict[str, int]] = {}
    for version, groups in json.loads(KEYS.read_text(encoding="utf-8")).items():
        for names, of_group in groups.items():
            for name in names.split(", "):
                found.setdefault(name, {}).update(dict.fromkeys(of_group, int(version)))
    return found


def keys_text(found: dict[str, dict[str, int]]) -> str:
    """Return docs/keys.json: version -> names of schemas -> the places that all of these have since then."""
    names: dict[tuple[int, str], list[str]] = {}
    for name, of_name in found.items():
        for place, version in of_name.items():
            names.setdefault((version, place), []).append(name)
    rows = sorted((version, ", ".join(group), place) for (version, place), group in names.items())
    content: dict[str, dict[str, list[str]]] = {}
    for (version, group), of_group in groupby(rows, key=lambda row: row[:2]):
        content.setdefault(str(version), {})[group] = [place for _, _, place in of_group]
    return text(content)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    made = schemas()
    KEYS.write_text(keys_text(since(made)), encoding="utf-8")
    for name, one in made.items():
        (FOLDER / f"{name}.json").write_text(text(one), encoding="utf-8")
