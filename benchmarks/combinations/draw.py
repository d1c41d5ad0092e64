"""Draws combinations of settings from the menus of a start, those that the check of recipes accepts."""

import copy
import json
import random
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import combinations
from typing import Any

from pydantic import ValidationError
from yaml import safe_load

from benchmarks import ROOT
from benchmarks.combinations import menu
from benchmarks.combinations.menu import MORE, Menu, Path, Vocabulary
from benchmarks.combinations.starts import Recipe, Start, put
from finetrail import params, schema, tasks

# Keys of params.yaml outside the sections.
PARAMS = "params"
# How many second changes are tried where a first one contradicts other settings.
SECOND_CHANGES = 60
# What share of the keys a combination changes, drawn for each.
CHANGED = (0.1, 0.3, 0.7)


class Drawer:
    """The combinations of one start, one after the other; each tries pairs of values that none has tried before."""

    def __init__(self, start: Start, seed: int) -> None:
        self.start, self.random, self.tried = start, random.Random(seed), set[tuple[str, str]]()
        self.said: Counter[str] = Counter()  # what the check made of candidates: accepted, refused
        settings = tasks.module(start.task, "settings")
        is_mixture = "parts" in start.recipe["corpus"]
        self.model = params.recipe_model(
            settings, params.mixture(settings) if is_mixture else schema.sliced(settings.Corpus)
        )
        given = start.given | GIVEN
        words = Vocabulary(given, menu.shipped(start.task))
        self.menu: Menu = menu.menu(self.model, words) | menu.menu(schema.Params, words, (PARAMS,))
        if is_mixture:
            for part in start.recipe["corpus"]["parts"]:
                path = ("corpus", "parts", part)
                self.menu |= menu._of(schema.sliced(settings.Corpus), [], path, words)
        self.plain = copy.deepcopy(start.recipe) | {PARAMS: plain_params(start.task)}

    def draw(self) -> Recipe:
        """Return the next combination, with params.yaml under `params`."""
        combination, share = copy.deepcopy(self.plain), self.random.choice(CHANGED)
        paths = list(self.menu)
        self.random.shuffle(paths)
        paths.sort(key=len)  # a section before its keys
        for path in paths:
            if is_there(combination, path) and self.random.random() < share:
                combination = self._changed(combination, path)
        self.tried |= self.pairs(combination)
        return combination

    def _changed(self, combination: Recipe, path: Path) -> Recipe:
        values = [value for value in self.menu[path] if not has(combination, path, value)]
        self.random.shuffle(values)
        now = settled(combination, self.menu)
        values.sort(key=lambda value: sum(pair(one, (path, value)) in self.tried for one in now.items()))
        for value in values[:2]:
            attempt = changed(combination, path, value)
            if self.accepts(attempt):
                return attempt
            for second in self._second_changes(attempt, path):
                if self.accepts(second):
                    return second
        return combination

    def _second_changes(self, attempt: Recipe, first: Path) -> Iterator[Recipe]:
        others = [
            (path, value)
            for path, values in self.menu.items()
            if path != first and is_there(attempt, path)
            for value in values
            if not has(attempt, path, value)
        ]
        near = [change for change in others if change[0][: len(first)] == first]
        self.random.shuffle(others)
        for path, value in (near + others)[:SECOND_CHANGES]:
            yield changed(attempt, path, value)

    def accepts(self, combination: Recipe) -> bool:
        """Return True if the check accepts a combination; anything but an answer is raised."""
        problems = problems_of(self.model, combination, self.start.task)
        self.said["refused" if problems else "accepted"] += 1
        return not problems

    def pairs(self, combination: Recipe) -> set[tuple[str, str]]:
        """Return the pairs of (key, value) of a combination."""
        return {pair(*two) for two in combinations(settled(combination, self.menu).items(), 2)}

    def all_pairs(self) -> int:
        """Return how many pairs of values of two keys there are, also those that contradict each other."""
        sizes = [len(values) for values in self.menu.values()]
        return (sum(sizes) ** 2 - sum(size**2 for size in sizes)) // 2


def problems_of(model: Any, combination: Recipe, task: str) -> list[str]:
    """Return what `make check` would say of a recipe and params.yaml."""
    given = {name: value for name, value in combination.items() if name != PARAMS}
    try:
        settings = schema.Params.model_validate(combination[PARAMS])
        recipe = model.model_validate(given)
    except ValidationError as error:
        return [problem["msg"] for problem in error.errors(include_url=False)]
    overridden = params.overridden(recipe, settings)
    return [*params.contradictions(recipe, task), *params.contradictions(overridden, task)]


# Keys of params.yaml that have no bounds or are not settings of a run.
GIVEN: Menu = {
    (PARAMS, "task"): [],
    (PARAMS, "recipe"): [],
    (PARAMS, "launcher"): [],
    (PARAMS, "trackers"): [None, ["tensorboard"]],
    (PARAMS, "threads"): [None, 1, 2],
}


@cache
def _params() -> str:
    return json.dumps(safe_load((ROOT / "params.yaml").read_text()))


def plain_params(task: str) -> Recipe:
    """Return params.yaml for a recipe named small, without overrides."""
    empty = dict.fromkeys(("trackers", "threads", *params.OVERRIDES))
    return dict(json.loads(_params())) | empty | {"task": task, "recipe": "small", "launcher": "python"}


def is_there(combination: Recipe, path: Path) -> bool:
    """Return True if a combination has the section of a key and the key, which for a section is `MORE`."""
    section: Any = combination
    for name in path[:-1]:
        if not isinstance(section, dict) or name not in section:
            return False
        section = section[name]
    return isinstance(section, dict) and (path[-1] == MORE or path[-1] in section)


def has(combination: Recipe, path: Path, value: Any) -> bool:
    """Return True if a key has this value."""
    section: Any = combination
    for name in path[:-1]:
        section = section[name]
    if path[-1] == MORE:
        return value.keys() <= section.keys()
    found = section[path[-1]]
    return type(found) is type(value) and bool(found == value)


def changed(combination: Recipe, path: Path, value: Any) -> Recipe:
    """Return a combination with another value of a key; of MORE, with the keys that it may have."""
    made = copy.deepcopy(combination)
    if path[-1] == MORE:
        section: Any = made
        for name in path[:-1]:
            section = section[name]
        section.update(copy.deepcopy(value))
    else:
        put(made, path, copy.deepcopy(value))
    return made


def settled(combination: Recipe, all_values: Menu) -> dict[Path, Any]:
    """Return the value of each key of the menu that a combination has."""
    found = {}
    for path in all_values:
        if path[-1] != MORE and is_there(combination, path):
            section: Any = combination
            for name in path:
                section = section[name]
            found[path] = section
    return found


def pair(one: tuple[Path, Any], other: tuple[Path, Any]) -> tuple[str, str]:
    """Return two settings as a pair without an order."""
    first, second = sorted(f"{'.'.join(path)}={json.dumps(value, sort_keys=True)}" for path, value in (one, other))
    return first, second
