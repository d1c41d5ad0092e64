"""Recipes and the defaults of their task: which value is in force, where each is given, and what `-S` writes."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from shutil import copy, copytree
from typing import Any

import pytest
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from finetrail import layout, params, recipe
from finetrail.errors import UserError

ROOT = Path(__file__).parent.parent
TASK = "token_classification"
MINE = layout.recipe_file(TASK, "mine")
SHARED = layout.defaults_file(TASK)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's YAML files, whose params.yaml names the recipe mine, a copy of wnut16; as working directory."""
    copy(ROOT / "dvc.yaml", tmp_path)
    copytree(ROOT / "recipes" / TASK, tmp_path / "recipes" / TASK)
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("recipe: wnut16", "recipe: mine"))
    monkeypatch.chdir(tmp_path)
    copy(layout.recipe_file(TASK, "wnut16"), MINE)
    return tmp_path


def change(path: Path, changed: Callable[[Any], object]) -> None:
    """Change the content of a YAML file."""
    content = YAML().load(path)
    changed(content)
    YAML().dump(content, path)


def test_the_recipe_wins_and_each_value_has_its_file(folder: Path) -> None:
    change(MINE, lambda own: own["train"].update(warmup=0.3))
    train = params.load("train").train
    assert (train.lr, train.warmup, train.schedule) == (3e-4, 0.3, "linear")
    assert params.load("evaluate").evaluate.worst_errors == 100  # of a section that is empty in the recipe

    content = params.read_recipe(MINE)
    places = [("train", "lr"), ("train", "warmup"), ("train", "schedule"), ("evaluate", "bootstrap", "seed")]
    assert [content.file(place) for place in places] == [MINE, MINE, SHARED, SHARED]
    settings = params.declared_settings("evaluate")
    assert settings[f"{MINE}: evaluate"] is None and settings[f"{SHARED}: evaluate"]["worst_errors"] == 100


def test_a_section_within_a_section_is_replaced_whole(folder: Path) -> None:
    given = {"samples": 200, "confidence": 0.9, "seed": 1}
    change(MINE, lambda own: own.update(evaluate={"bootstrap": given}))
    assert params.load("evaluate").evaluate.bootstrap.model_dump() == given
    change(MINE, lambda own: own["evaluate"]["bootstrap"].pop("seed"))
    with pytest.raises(UserError, match=rf"^{MINE}: evaluate.bootstrap.seed: required key is missing \(write it with"):
        params.load("evaluate")


def test_an_empty_key_of_the_recipe_is_null_and_not_the_default(folder: Path) -> None:
    change(SHARED, lambda shared: shared["train"].update(patience=2))
    assert params.load("train").train.patience == 2
    change(MINE, lambda own: own["train"].update(patience=None))
    assert params.load("train").train.patience is None


@pytest.mark.parametrize(
    ("shared", "own", "told"),
    [
        ({"train": {"warmup": 2.0}}, {}, f"{SHARED}: train.warmup: should be less than 1, got 2.0"),
        ({}, {"train": {"warmup": 2.0}}, f"{MINE}: train.warmup: should be less than 1, got 2.0"),
        ({"train": {"warmup": 2.0}}, {"train": {"warmup": 0.2}}, None),
        ({"train": {"warmpu": 0.1}}, {}, f"{SHARED}: train.warmpu: unknown key"),
        ({}, {"train": {"warmpu": 0.1}}, f"{MINE}: train.warmpu: unknown key"),
        ({"numerics": "quick"}, {"numerics": None}, f"{SHARED}: numerics: should be 'fast' or 'portable', got 'quick'"),
        ({"evaluate": {"worst_errors": "${x}"}}, {}, f"{SHARED}: evaluate.worst_errors: should be a valid integer"),
        (
            {"corpus": {}},
            {},
            f"{SHARED}: corpus: unknown section; expected tokenize, numerics, train",
        ),
        ({"train": 3}, {}, f"{SHARED}: train: expected a section, got 3"),
        ({"train": {"warmup": 2.0}}, {"train": {"lr": 0.0}}, f"{MINE}: train.lr: should be greater than 0, got 0.0"),
    ],
)
def test_a_mistake_names_the_file_that_has_it(folder: Path, shared: Any, own: Any, told: str | None) -> None:
    for path, sections in ((SHARED, shared), (MINE, own)):
        for section, values in sections.items():
            change(path, lambda content, section=section, values=values: (
                content[section].update(values) if isinstance(values, dict) and section in content
                else content.update({section: values})))  # fmt: skip
    if told is None:
        params.load_recipe(TASK, "mine")
        return
    with pytest.raises(UserError) as error:
        params.load_recipe(TASK, "mine")
    assert told in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("path", "place", "told"),
    [
        (MINE, ("train", "lr"), f"{MINE}: train.lr: required key is missing (write it without a value for null); it "
                                f"may be here, or in {SHARED} for all recipes of the task"),
        (SHARED, ("train", "warmup"), f"{MINE}: train.warmup: required key is missing (write it without a value for "),
        (SHARED, ("evaluate", "bootstrap", "seed"), f"{SHARED}: evaluate.bootstrap.seed: required key is missing"),
        (MINE, ("evaluate",), f"{MINE}: evaluate: required key is missing (without a value it takes the defaults)"),
        (SHARED, ("evaluate",), f"{SHARED}: evaluate: required key is missing (write it without a value"),
        (MINE, ("corpus", "reader"), f"{MINE}: corpus.reader: required key is missing (write it with"),
    ],
)  # fmt: skip
def test_what_is_missing_is_told_with_where_it_may_be(
    folder: Path, path: Path, place: tuple[str, ...], told: str
) -> None:
    def remove(content: Any) -> None:
        for key in place[:-1]:
            content = content[key]
        del content[place[-1]]

    change(path, remove)
    with pytest.raises(UserError) as error:
        params.load_recipe(TASK, "mine")
    assert str(error.value).startswith(told)


def test_the_defaults_must_be_there_and_are_no_recipe(folder: Path) -> None:
    with pytest.raises(UserError, match=r"^params.yaml: recipe: holds the task's defaults .*: bring-your-own-conll, "):
        params.load_recipe(TASK, "defaults")
    SHARED.unlink()
    with pytest.raises(UserError, match=rf"^{SHARED} is missing; expected the defaults of {TASK}"):
        params.load_recipe(TASK, "mine")


def test_the_command_prints_a_whole_recipe_with_origins(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    change(layout.PARAMS, lambda given: given.update(lr=1e-3))
    monkeypatch.setattr(sys, "argv", ["recipe"])
    recipe.main()
    printed = capsys.readouterr().out
    files = {line.partition(":")[0].strip(): line.rpartition("# ")[2] for line in printed.splitlines() if "# " in line}
    assert [files[key] for key in ("lr", "epochs", "warmup", "numerics", "reader", "bootstrap")] == (
        ["params.yaml", "mine.yaml", "defaults.yaml", "mine.yaml", "mine.yaml", "defaults.yaml"]
    )
    assert "# " not in printed.partition("bootstrap:")[2].splitlines()[1]

    in_force = params.load_recipe(TASK, "mine")
    MINE.write_text(printed)  # no default changes such a recipe
    change(SHARED, lambda shared: shared["train"].update(warmup=0.5))
    again = params.load_recipe(TASK, "mine")
    expected = in_force.model_dump()
    expected["train"]["lr"] = 1e-3
    assert again.model_dump() == expected
    monkeypatch.setattr(sys, "argv", ["recipe", "wnut16"])
    with pytest.raises(UserError, match="wnut16: expected TASK/NAME"):
        recipe.main()


SET = [
    (f"{MINE}:++train.warmup=0.2", "warmup"),
    (f"{MINE}:++train.lr=0.2", "lr"),
    (f"{SHARED}:train.warmup=0.2", "warmup"),
]


@pytest.mark.parametrize(("override", "key"), SET)
def test_a_field_is_set_in_either_file(folder: Path, override: str, key: str) -> None:
    path, _, setting = override.partition(":")
    apply_overrides(path, [setting])
    assert getattr(params.load("train").train, key) == 0.2


def test_an_empty_section_takes_a_field_too(folder: Path) -> None:
    apply_overrides(str(MINE), ["++evaluate.worst_errors=4", "++export.int8=false"])
    assert params.load("evaluate").evaluate.worst_errors == 4
    assert params.load("export").export.int8 is False and params.load("export").export.max_metric_drop == 0.02


@pytest.mark.slow
def test_dvc_runs_what_reads_a_changed_section(tmp_path: Path) -> None:
    files = {
        "params.yaml": "task: t\nrecipe: r\n",
        "recipes/t/defaults.yaml": "train:\n  warmup: 0.1\nevaluate:\n  n: 3\n",
        "recipes/t/r.yaml": "train:\n  lr: 3e-4\nevaluate:\n",
        "dvc.yaml": "stages:\n" + "".join(
            f"  {section}:\n    cmd: echo {section} >> ran\n    params:\n"
            f"    - recipes/${{task}}/defaults.yaml:\n      - {section}\n"
            f"    - recipes/${{task}}/${{recipe}}.yaml:\n      - {section}\n" for section in ("train", "evaluate")),
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    def run(*command: str) -> None:
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    run("git", "init", "-q")
    run("dvc", "init", "-q")
    run("dvc", "repro", "-q")
    for of in ("defaults.yaml:train.warmup=0.3", "r.yaml:++train.warmup=0.2", "r.yaml:++evaluate.n=4"):
        run("git", "add", ".")
        run("git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x")
        run("dvc", "exp", "run", "-q", "-S", f"recipes/t/{of}")
    assert (tmp_path / "ran").read_text().split() == ["train", "evaluate", "train", "train", "evaluate"]
