"""The JSON schemas that editors read: current, found, and of one mind with the loader."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from finetrail import layout, params, tasks

ROOT = Path(__file__).parent.parent
DEFAULTS = {f"{task}_defaults": ROOT / "recipes" / task / "defaults.yaml" for task in tasks.names()}
NAMES = ["params", *tasks.names(), *DEFAULTS]


def script() -> Any:
    spec = importlib.util.spec_from_file_location("schemas", ROOT / "docs/schemas.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def held(name: str) -> dict[str, Any]:
    return dict(json.loads((ROOT / f"docs/schemas/{name}.json").read_text(encoding="utf-8")))


def test_the_schemas_are_current() -> None:
    made = script()
    for name, one in made.schemas().items():
        file = ROOT / f"docs/schemas/{name}.json"
        assert file.read_text(encoding="utf-8") == made.text(one), "run `make docs`"
    assert {file.stem for file in (ROOT / "docs/schemas").iterdir()} == set(NAMES)


def test_vs_code_finds_the_schema_of_each_file() -> None:
    found = json.loads((ROOT / ".vscode/settings.json").read_text())["yaml.schemas"]
    files = {"params": "/params.yaml"} | {task: f"/recipes/{task}/*.yaml" for task in tasks.names()}
    assert found == {f"docs/schemas/{name}.json": file for name, file in files.items()}
    for name, file in DEFAULTS.items():  # which those patterns match too; the language server prefers such a line
        first = file.read_text().partition("\n")[0]
        assert first == f"# yaml-language-server: $schema=../../docs/schemas/{name}.json"


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_file_is_valid_and_a_mistake_is_not(name: str) -> None:
    validator = Draft202012Validator(held(name))
    paths = {"params": [ROOT / "params.yaml"]} | {of: [file] for of, file in DEFAULTS.items()}
    for path in paths.get(name) or layout.recipe_files(ROOT, name):
        content = params.read_yaml(path)
        assert [f"{path}: {error.message}" for error in validator.iter_errors(content)] == []
        assert not validator.is_valid(content | {"unknown": 1})
        key = next(iter(content))
        assert not validator.is_valid({name: value for name, value in content.items() if name != key})
        if name != "params":
            assert not validator.is_valid(content | {"train": content["train"] | {"lr": "fast"}})
        if name in tasks.names():
            without_lr = {key: value for key, value in content["train"].items() if key != "lr"}
            assert not validator.is_valid(content | {"train": without_lr})


def test_keys_have_their_description() -> None:
    sections = held("token_classification")["$defs"]
    assert sections["Bootstrap"]["properties"]["confidence"]["description"]
    for name, section in sections.items():
        for key, value in section.get("properties", {}).items():
            named = {"description", "$ref", "const", "anyOf", "oneOf"} & value.keys()
            assert named, f"{name}.{key} tells nothing"
