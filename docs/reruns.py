"""Turns dvc.yaml into a table: for each source file, which stages run again when it changes.

tests/test_graph.py reads the graph by the same functions. docs/tables.py writes the table into docs/reruns.md.
"""

import ast
from functools import cache
from pathlib import Path
from typing import Any

from finetrail import params

ROOT = Path(__file__).parent.parent
TASK = "${task}"
DEPENDS, FOLLOWS = "●", "○"


@cache
def stages() -> dict[str, dict[str, Any]]:
    """Return the stages as DVC sees them: foreach unrolled, ${key} and ${item.X} filled in, ${task} left."""
    found: dict[str, dict[str, Any]] = {}
    for name, definition in params.read_yaml(ROOT / "dvc.yaml")["stages"].items():
        if "do" not in definition:
            found[name] = definition
            continue
        for key, item in definition["foreach"].items():
            filled = definition["do"] | {"deps": list(definition["do"]["deps"])}
            for field in ("cmd", "deps", "outs"):
                filled[field] = fill(filled[field], {"key": key} | {f"item.{k}": v for k, v in item.items()})
            found[f"{name}@{key}"] = filled
    return found


def fill(value: Any, names: dict[str, str]) -> Any:
    """Replace ${NAME} in a text, or in each text of a list."""
    if isinstance(value, list):
        return [fill(item, names) for item in value]
    for name, text in names.items():
        value = value.replace("${" + name + "}", text)
    return value


def dependents(file: str) -> set[str]:
    """Return the stages with a dep that is this file or a folder above it; ${task} is replaced by the task's folder."""
    places = {file, *(parent.as_posix() for parent in Path(file).parents)}
    return {name for name, stage in stages().items() if places & set(stage["deps"])}


def followers(names: set[str]) -> set[str]:
    """Return the stages that read, directly or not, what these stages write, without these stages."""
    found, waiting = set(names), list(names)
    while waiting:
        outs = {Path(out) for out in map(_path, stages()[waiting.pop()]["outs"])}
        for name, stage in stages().items():
            deps = map(Path, stage["deps"])
            if name not in found and any(outs & {dep, *dep.parents} for dep in deps):
                found.add(name)
                waiting.append(name)
    return found - names


def files() -> list[str]:
    """Return the source files, sorted; a part of the tasks once, and no file that holds only a docstring."""
    found = set()
    for path in (*ROOT.glob("stages/*.py"), *ROOT.glob("finetrail/**/*.py")):
        parts = list(path.relative_to(ROOT).parts)
        if parts[:2] == ["finetrail", "tasks"] and len(parts) == 4:
            parts[2] = TASK
        if is_code(path):
            found.add("/".join(parts))
    return sorted(found)


@cache
def is_code(path: Path) -> bool:
    """Return True if a file holds more than a docstring."""
    body = ast.parse(path.read_text()).body
    return not all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)


def table() -> str:
    """Return a row for each source file, or for a folder whose files have the same row, and a column for each stage."""
    rows = [f"| changed file | {' | '.join(stages())} |", f"| --- |{' --- |' * len(stages())}"]
    for place, direct in _grouped(files()).items():
        later = followers(set(direct))
        cells = (DEPENDS if name in direct else FOLLOWS if name in later else "" for name in stages())
        rows.append(f"| {place.replace(TASK, 'TASK')} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _grouped(names: list[str]) -> dict[str, frozenset[str]]:
    """Return the stages that depend on each file, with folders in place of files that all have the same stages."""
    found = {name: frozenset(dependents(name)) for name in names}
    folders = sorted({parent.as_posix() for name in names for parent in Path(name).parents} - {"."}, key=len)
    grouped = dict(found)
    for folder in folders:
        inside = [name for name in grouped if name.startswith(f"{folder}/")]
        if len(inside) > 1 and len({grouped[name] for name in inside}) == 1:
            grouped[f"{folder}/"] = grouped[inside[0]]
            for name in inside:
                del grouped[name]
    return dict(sorted(grouped.items()))


def _path(out: Any) -> str:
    return out if isinstance(out, str) else next(iter(out))
