"""Every case of the catalogue: one line and exit code 1, or the result that it names; nothing half-written."""

import copy
import importlib
import pkgutil
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import catalogue
import pytest
import toys
from catalogue.case import Case, changed
from conftest import toy_recipe

from finetrail import stage
from finetrail.sources import url
from stages import download_corpus, download_model, tokenize, train

MODULES = [importlib.import_module(f"catalogue.{found.name}") for found in pkgutil.iter_modules(catalogue.__path__)]
CASES = [case for module in MODULES for case in getattr(module, "CASES", [])]
NUMBER = 515
LONGEST = 2000  # characters of a line that somebody still reads
# What the stages before have written when one ends in an error.
WRITTEN: dict[str, set[str]] = {
    "download@corpus": set(),
    "download@model": {"corpus"},
    "tokenize": {"corpus", "model"},
}
STAGES = {"download@corpus": download_corpus, "download@model": download_model, "tokenize": tokenize}


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    parent = tmp_path_factory.mktemp("catalogue")
    request.getfixturevalue("make_project")(parent)
    shutil.copy(parent / "project/params.yaml", parent / "params.yaml")
    yield parent


def write(case: Case, folder: Path, checkpoint: Path, sentences: list[str]) -> None:
    corpus = folder / "corpus"
    shutil.rmtree(corpus, ignore_errors=True)
    corpus.mkdir()
    recipe = toys.write(case.task, toy_recipe(folder / "unused", checkpoint), sentences, corpus)
    recipe = copy.deepcopy(recipe)
    recipe["corpus"]["source"]["path"] = str(corpus / "toy.jsonl" if case.model else corpus)
    changed(recipe, case.changes)
    shutil.copy(folder / "params.yaml", folder / "project/params.yaml")
    toys.save(folder / "project", case.task, recipe)
    if case.model is not None:
        shutil.copytree(checkpoint, corpus / "model")
        case.model(corpus / "model")
    for name, content in case.files.items():
        path = corpus / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if callable(content):
            content(path)
        else:
            path.write_bytes(content)


def run(case: Case) -> None:
    for name, module in STAGES.items():
        stage.run(module.main)
        if name == case.through:
            return


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(
    case: Case,
    folder: Path,
    tiny_checkpoint: Path,
    toy_sentences: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    write(case, folder, tiny_checkpoint, [" ".join(tokens) for tokens, _ in toy_sentences])
    monkeypatch.chdir(folder / "project")
    monkeypatch.setattr(url, "BACKOFF", 0.0)
    shutil.rmtree("data", ignore_errors=True)
    if not case.ends_well:
        with pytest.raises(SystemExit) as ended:
            run(case)
        said = str(ended.value.code)
        assert said.startswith("error: ") and said.isprintable() and len(said) < LONGEST
        assert case.says in said.replace(str(folder), "FOLDER")
        left = [path for path in Path("data").rglob("*") if path.is_file() or path.name.startswith(".")]
        assert all(path.parts[1] in WRITTEN[case.through] for path in left)
    else:
        run(case)
        assert case.says in capfd.readouterr().err


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("damaged", "module"),
    [
        ("data/corpus/train.parquet", tokenize),
        ("data/tokenized/train.arrow", train),
        ("data/tokenized/target.json", train),
        ("data/model/weights/model.safetensors", train),
    ],
)
def test_a_truncated_file_of_an_earlier_stage_is_named(
    damaged: str,
    module: Any,
    folder: Path,
    tiny_checkpoint: Path,
    toy_sentences: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = Case("whole", {}, {}, "", "token_classification")
    write(case, folder, tiny_checkpoint, [" ".join(tokens) for tokens, _ in toy_sentences])
    monkeypatch.chdir(folder / "project")
    shutil.rmtree("data", ignore_errors=True)
    for earlier in (download_corpus, download_model, tokenize):
        earlier.main()
    half(Path(damaged))
    with pytest.raises(SystemExit) as ended:
        stage.run(module.main)
    assert str(ended.value).startswith(f"error: {damaged} is damaged (") and str(ended.value).isprintable()
    assert not Path("data/trained").exists() and not list(Path("data").glob(".*"))


def test_the_catalogue_has_its_documented_number_of_unique_cases() -> None:
    assert len(CASES) == len({case.name for case in CASES}) == NUMBER
    assert all(case.says for case in CASES)
