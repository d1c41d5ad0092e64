"""Combinations of settings, drawn from the schema: one of each task here; the benchmark runs as many as one likes."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field, create_model

from benchmarks.combinations import bases, menu, running, starts, worker
from benchmarks.combinations.draw import Drawer, has, is_there, settled
from benchmarks.combinations.menu import MORE, Vocabulary
from finetrail import schema, tasks

STARTS = starts.starts()
ROOT = Path(__file__).parent.parent


def test_a_new_key_is_tried_without_an_edit() -> None:
    inner = create_model("Inner", __base__=schema.Settings, size=(int, Field(ge=2, le=4)), name=(str, ...))
    section = create_model(
        "Section",
        __base__=schema.Settings,
        choice=(Literal["a", "b"], ...),
        share=(float, Field(gt=0, lt=1)),
        number=(int | None, Field(ge=3)),
        text=(str | None, ...),
        inner=(inner | None, ...),
    )
    shipped = {("text",): ["one", None, "two"], ("inner", "name"): ["x"]}
    found = menu.menu(section, Vocabulary({("text",): ["given"]}, {("inner", "name"): ["x"]}))
    assert found[("choice",)] == ["a", "b"]
    assert found[("share",)] == [1e-4, 0.3, 0.9]
    assert found[("number",)] == [3, 4, 7, 19, 43, None]
    assert found[("text",)] == ["given"]
    assert found[("inner",)] == [{"size": 2, "name": "x"}, None]
    assert (found[("inner", "size")], found[("inner", "name")]) == ([2, 3], ["x"])
    assert menu.menu(section, Vocabulary({}, shipped))[("text",)] == ["one", "two", None]


def test_a_section_that_may_have_more_keys_gets_all_of_them() -> None:
    class Plain(schema.Settings):
        first: bool

    class Larger(Plain):
        second: bool
        third: int | None = Field(ge=0)

    model = create_model("Recipe", __base__=schema.Settings, section=(schema.either(Plain, Larger), ...))
    found = menu.menu(model, Vocabulary({}, {}))
    assert found[("section", MORE)] == [{"second": False, "third": None}]
    assert found[("section", "second")] == [False, True]


@pytest.mark.parametrize("name", STARTS)
def test_every_key_of_a_recipe_is_tried(name: str) -> None:
    drawer = Drawer(STARTS[name], seed=0)
    assert drawer.accepts(drawer.plain)
    lacking = [path for path in leaves(drawer.plain, ()) if not any(path[: len(key)] == key for key in drawer.menu)]
    assert all("source" in path for path in lacking)  # which names what is outside


def leaves(value: Any, path: menu.Path) -> Iterator[menu.Path]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    else:
        yield path


def test_a_number_draws_one_combination_which_the_check_accepts() -> None:
    drawer, again = (Drawer(STARTS["masked_lm"], seed=0) for _ in range(2))
    first, second = ([one.draw() for _ in range(2)] for one in (drawer, again))
    assert first == second
    assert len({json.dumps(one) for one in [drawer.plain, *first]}) == 3
    assert all(drawer.accepts(one) for one in first)
    assert drawer.tried == {pair for one in first for pair in drawer.pairs(one)}
    assert drawer.said["refused"] > 0


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the corpora of each task and of two base models."""
    folder = tmp_path_factory.mktemp("combinations")
    bases.write(folder / "bases", ("bert", "gpt2"))
    for name in tasks.names():
        STARTS[name].write(folder / "corpora" / name)
    return folder


@pytest.mark.usefixtures("restored_torch")
@pytest.mark.parametrize(
    "name",
    [name if name == "text_classification" else pytest.param(name, marks=pytest.mark.slow) for name in tasks.names()],
)
def test_a_combination_runs_or_is_refused_before_training(
    name: str, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = STARTS[name]
    # What takes a process of its own, or long to start; the benchmark has it.
    quick: menu.Menu = {
        ("numerics",): ["fast"],
        ("model", "source"): [start.recipe["model"]["source"]],
        ("model", "teacher"): [None],
        ("train", "execution"): ["auto", "eager"],
    }
    drawer = Drawer(start._replace(given=start.given | quick), seed=1)
    combination = drawer.draw()
    running.lay_out(name, combination, work / "project", work)
    monkeypatch.chdir(work / "project")
    ended = worker.run(
        work / "project", ["download_corpus", "download_model", "tokenize", "teach", "train", "evaluate"]
    )
    assert running.judged(ended, work / "project") in ("ran", "refused"), (changed(drawer, combination), ended)


@pytest.mark.slow  # all stages of two combinations take a minute
def test_the_benchmark_runs_combinations_through_all_stages(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "benchmarks.combinations",
        "run",
        str(tmp_path),
        "4",
        "text_classification of pairs",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    ended = [json.loads(line) for line in (tmp_path / "outcomes.jsonl").read_text().splitlines()]
    assert [one["number"] for one in ended] == [1, 2, 3, 4]
    assert {one["outcome"] for one in ended} <= {"ran", "refused"}
    assert (ended[3]["outcome"], ended[3]["at"]) == ("ran", "report")


@pytest.mark.parametrize(
    ("ended", "left", "outcome"),
    [
        ({"outcome": "ran", "at": "report", "said": ""}, [], "ran"),
        ({"outcome": "ran", "at": "report", "said": ""}, ["data/.corpus.partial/x"], "left something half-written"),
        ({"outcome": "refused", "at": "check", "said": "error: no"}, [], "refused"),
        ({"outcome": "refused", "at": "check", "said": "error: no\nno"}, [], "refused in more than a line"),
        ({"outcome": "refused", "at": "tokenize", "said": "error: no"}, ["data/corpus/x"], "refused"),
        ({"outcome": "refused", "at": "tokenize", "said": "error: no"},
         ["data/tokenized/x"], "left something half-written"),
        ({"outcome": "refused", "at": "train", "said": "error: no"}, ["data/tokenized/x"], "refused"),
        ({"outcome": "refused", "at": "train", "said": "error: no"}, [".scratch/train/a/loss.tsv"], "refused late"),
        ({"outcome": "refused", "at": "train", "said": "error: train: loss is nan at update 3; expected"},
         [".scratch/train/a/loss.tsv"], "diverged"),
        ({"outcome": "refused", "at": "evaluate", "said": "error: no"}, [], "refused late"),
        ({"outcome": "traceback", "at": "train", "said": "KeyError"}, [], "traceback"),
    ],
)  # fmt: skip
def test_how_a_combination_ended(tmp_path: Path, ended: running.Ended, left: list[str], outcome: str) -> None:
    for name in left:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("step\tloss\n1\t0.5\n")
    assert running.judged(ended, tmp_path) == outcome


def changed(drawer: Drawer, combination: starts.Recipe) -> dict[str, Any]:
    found, plain = settled(combination, drawer.menu), drawer.plain
    return {
        ".".join(path): value
        for path, value in found.items()
        if not (is_there(plain, path) and has(plain, path, value))
    }
