"""Every shipped recipe does what it says: against a stand-in Hub with the real layout, toy files, and real corpora."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from conftest import real, whole
from datasets import Features, List, Value
from hub_server import StandInHub, write_parquet
from recipe_projects import download_all, edit
from ruamel.yaml import YAML
from transformers import BertConfig, BertForPreTraining

from finetrail import inference, layout, params, stage
from finetrail.evaluation import splits
from stages import download_corpus, download_model, evaluate, export, tokenize, train

ROOT = Path(__file__).parents[2]
TASK = "question_answering"
RECIPES = Path("recipes") / TASK
NAMES = [path.stem for path in layout.recipe_files(ROOT, RECIPES.name)]
SPLITS = ("train", "validation", "test")
Examples = list[dict[str, Any]]

# --- corpora --------------------------------------------------------------------------------------------------------

ENGLISH = ("Anna lives in New York {n} .", "where does Anna live {n} ?", "New York")
KOREAN = ("민수는 서울 {n} 에 갔다 .", "민수는 어디 에 갔나 {n} ?", "서울")


def examples(count: int, first: int, language: tuple[str, str, str], unanswerable: int = 0) -> Examples:
    """Return questions as the Hub has them, two an article; every so many of them has no answer (0: all have)."""
    context, question, answer = language
    found = []
    for number in range(first, first + count):
        text = context.format(n=number)
        answers = {"text": [answer], "answer_start": [text.index(answer)]}
        if unanswerable and number % unanswerable == 0:
            answers = {"text": [], "answer_start": []}
        row = {
            "id": f"q{number}",
            "title": f"Anna {number // 2}",
            "context": text,
            "question": question.format(n=number),
        }
        found.append(row | {"answers": answers})
    return found


def write_dataset(folder: Path, config: str, path: str, parts: dict[str, Examples], card: bool) -> None:
    """Write a dataset with one configuration: with a card that names its files, or as on refs/convert/parquet."""
    answers = {"text": List(Value("string")), "answer_start": List(Value("int32"))}
    names = ("id", "title", "context", "question")
    features = Features(dict.fromkeys(names, Value("string")) | {"answers": answers})
    for split, rows in parts.items():
        write_parquet(folder / path.format(split=split), rows, features)
    if card:
        files = "".join(f"  - split: {split}\n    path: {config}/{split}-*\n" for split in parts)
        text = f"---\nlicense: cc-by-sa-4.0\nconfigs:\n- config_name: {config}\n  data_files:\n{files}---\n"
        (folder / "README.md").write_text(text, encoding="utf-8")


def write_datasets(root: Path) -> None:
    shards = "{config}/{{split}}-00000-of-00001.parquet"
    for repo, config, every in (("squad", "plain_text", 0), ("squad_v2", "squad_v2", 3)):
        parts = {"train": examples(40, 0, ENGLISH, every), "validation": examples(6, 40, ENGLISH, every)}
        write_dataset(root / "rajpurkar" / repo, config, shards.format(config=config), parts, card=True)
    parts = {"train": examples(40, 0, KOREAN), "validation": examples(6, 40, KOREAN)}
    write_dataset(root / "KorQuAD/squad_kor_v1", "squad_kor_v1", "squad_kor_v1/{split}/0000.parquet", parts, card=False)


def squad_json(rows: Examples, version: str = "1.1") -> str:
    """Return SQuAD's JSON, one article a question."""
    data = []
    for row in rows:
        pairs = zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True)
        answers = [{"text": text, "answer_start": start} for text, start in pairs]
        question = {"id": row["id"], "question": row["question"], "answers": answers}
        if version == "v2.0":
            question["is_impossible"] = not answers
        data.append({"title": row["title"], "paragraphs": [{"context": row["context"], "qas": [question]}]})
    return json.dumps({"version": version, "data": data}, ensure_ascii=False)


def write_files(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


# --- projects -------------------------------------------------------------------------------------------------------

BASES = {"google-bert/bert-base-uncased": ENGLISH, "klue/bert-base": KOREAN}


def write_models(root: Path) -> None:
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16, "hidden_size": 8}
    for repo, language in BASES.items():
        folder = root / repo
        folder.mkdir(parents=True)
        characters = sorted(set("".join(language).lower() + "0123456789") - {" "})
        pieces = [*characters, *(f"##{character}" for character in characters)]
        vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces]
        (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
        config = {"do_lower_case": language is ENGLISH, "model_max_length": 512, "tokenizer_class": "BertTokenizer"}
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        BertForPreTraining(BertConfig(vocab_size=len(vocabulary), **sizes)).save_pretrained(folder)


def project(make: Callable[[Path], Path], parent: Path, recipe: str, changes: dict[str, Any] | None = None) -> Path:
    """Make a project that runs a shipped recipe, with some of its values replaced."""
    parent.mkdir(exist_ok=True)
    folder = make(parent)
    edit(folder / "params.yaml", {"task": TASK, "recipe": recipe})
    edit(folder / RECIPES / f"{recipe}.yaml", changes or {})
    return folder


@pytest.fixture(scope="module")
def from_hub(
    make_project: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Path]]:
    """The project of each recipe whose corpus is on the Hub, with corpus and base model from there."""
    root, work = tmp_path_factory.mktemp("hub"), tmp_path_factory.mktemp("projects")
    write_datasets(root / "datasets")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        write_models(root / "models")
    projects = {name: project(make_project, work / name, name) for name in ("squad", "squad2", "korquad")}
    with StandInHub(root, refs=("refs/convert/parquet",)) as hub:
        download_all([(folder, what) for folder in projects.values() for what in ("corpus", "model")], hub)
    yield projects


Enter = Callable[..., Path]


@pytest.fixture
def enter(make_project: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Enter:
    """Return the function that makes a project of a shipped recipe the current folder."""

    def make(recipe: str, changes: dict[str, Any] | None = None) -> Path:
        folder = project(make_project, tmp_path, recipe, changes)
        monkeypatch.chdir(folder)
        return folder

    return make


def rows(split: str) -> Examples:
    return pq.read_table(layout.table_file(layout.CORPUS, split)).to_pylist()


def sizes() -> list[int]:
    return [len(rows(split)) for split in SPLITS]


def load_recipe(name: str) -> Any:
    return YAML(typ="safe").load(whole(ROOT / RECIPES / f"{name}.yaml"))


# --- tests ----------------------------------------------------------------------------------------------------------


def test_every_shipped_recipe_is_run_here() -> None:
    tests = Path(__file__).read_text(encoding="utf-8")
    assert NAMES and [name for name in NAMES if f'"{name}"' not in tests] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_fits_its_schema(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    params.load_recipe(TASK, name)


@pytest.mark.parametrize(
    ("name", "unanswerable", "without"), [("squad", False, 0), ("squad2", True, 2), ("korquad", False, 0)]
)
def test_corpora_and_models_of_the_hub_become_features(
    name: str, unanswerable: bool, without: int, from_hub: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(from_hub[name])

    tokenize.main()

    recipe = load_recipe(name)
    assert sizes() == [38, 2, 6]
    checks = stage.read_json(layout.CORPUS_CHECKS)
    assert checks["splits"]["test"]["unanswerable"] == without
    assert len({row["title"] for row in rows("validation")}) == 1  # an article, whole
    provenance = stage.read_json(layout.CORPUS_PROVENANCE)
    assert (provenance["name"], provenance["license"]) == (recipe["corpus"]["name"], recipe["corpus"]["license"])
    assert stage.read_json(layout.TARGET) == {"unanswerable": unanswerable}
    counts = stage.read_json(layout.TOKENIZED_COUNTS)["splits"]["test"]
    assert (counts["examples"], counts["answers_in_no_window"], counts["answers_within_tokens"]) == (6, 0, 0)
    encoded = splits.load("test")
    assert "token_type_ids" in encoded.features.column_names
    assert (encoded.features["start_positions"].to_numpy() == 0).sum() == without


def test_the_squad_recipes_differ_only_in_unanswerable_questions() -> None:
    one, two = load_recipe("squad"), load_recipe("squad2")

    assert (two["evaluate"].pop("null_threshold"), two["evaluate"].pop("script")) == ("auto", "squad2")
    assert (one["evaluate"].pop("null_threshold"), one["evaluate"].pop("script")) == (None, "squad")
    assert two["corpus"].pop("name") == two["corpus"]["source"].pop("repo") == "rajpurkar/squad_v2"
    assert one["corpus"].pop("name") == one["corpus"]["source"].pop("repo") == "rajpurkar/squad"
    assert one == two


def test_the_recipes_of_korquad_differ_in_where_it_comes_from() -> None:
    hub, files = load_recipe("korquad"), load_recipe("korquad-files")

    assert hub["evaluate"]["script"] == "korquad" and hub["corpus"]["language"] == "ko"
    for section in ("model", "tokenize", "train", "evaluate", "export"):
        assert hub[section] == files[section]


@pytest.mark.parametrize(
    ("name", "folder", "language", "files"),
    [
        ("squad-files", "corpora/squad", ENGLISH, ("train-v1.1.json", "dev-v1.1.json")),
        ("korquad-files", "corpora/korquad", KOREAN, ("KorQuAD_v1.0_train.json", "KorQuAD_v1.0_dev.json")),
    ],
)
def test_the_corporas_own_files_are_read(name: str, folder: str, language: Any, files: Any, enter: Enter) -> None:
    train, dev = (squad_json(examples(count, first, language)) for count, first in ((40, 0), (6, 40)))
    write_files(enter(name) / folder, dict(zip(files, (train, dev), strict=True)))

    download_corpus.main()

    validation = round(40 * load_recipe(name)["corpus"]["splits"]["validation"])
    assert sizes() == [40 - validation, validation, 6]
    first = rows("test")[0]
    answer = first["answers"][0]
    assert first["context"][answer["start"] :].startswith(answer["text"]) and answer["text"] == language[2]
    assert stage.read_json(layout.CORPUS_CHECKS)["leakage"] == {
        "train/validation": 0,
        "train/test": 0,
        "validation/test": 0,
    }


def test_the_squad_part_is_whole_and_splits_share_no_context(enter: Enter, capsys: pytest.CaptureFixture[str]) -> None:
    enter("squad-files", {"corpus.source.path": f"{real('squad_v1.1_part')}/*.json"})

    download_corpus.main()

    assert sizes() == [3545, 394, 627]
    checks = stage.read_json(layout.CORPUS_CHECKS)
    assert set(checks["leakage"].values()) == {0}
    told = capsys.readouterr().err
    assert "test 627 questions about 132 contexts" in told
    assert "that also occur in" not in told


def test_small_recipes_share_the_embedded_base_model() -> None:
    embedded = YAML(typ="safe").load(ROOT / "recipes/token_classification/wnut16.yaml")["model"]
    assert load_recipe("squad-files")["model"] == load_recipe("bring-your-own-squad")["model"] == embedded


@pytest.mark.usefixtures("restored_torch")
def test_a_corpus_of_ones_own_is_repaired_trained_and_evaluated(enter: Enter, tiny_checkpoint: Path) -> None:
    given = examples(40, 0, ENGLISH, unanswerable=4)
    given[1]["answers"]["answer_start"] = [3]  # as a tool gives it that cut the context
    changes = {"model.source": {"kind": "file", "path": str(tiny_checkpoint), "sha256": None}}
    changes |= {"tokenize.max_length": 40, "tokenize.stride": 4, "tokenize.max_question_length": 24}
    changes |= {"train.lr": 3e-3, "train.epochs": 2.0, "train.precision": "fp32", "export.int8": False}
    folder = enter("bring-your-own-squad", changes)
    test = squad_json(examples(8, 40, ENGLISH, unanswerable=4), "v2.0")
    write_files(folder / "corpora/mine", {"train.json": squad_json(given, "v2.0"), "test.json": test})

    for step in (download_corpus, download_model, tokenize, train, evaluate):
        step.main()

    checks = stage.read_json(layout.CORPUS_CHECKS)["splits"]
    assert sum(checks[split]["answers_repaired"] for split in SPLITS) == 1
    assert (sizes(), checks["test"]["unanswerable"]) == ([36, 4, 8], 2)
    metrics = stage.read_json(layout.EVALUATION_METRICS)
    assert metrics["headline"] == "f1"
    export.main()
    exported = stage.read_json(layout.EXPORTED / layout.EXPORT_SETTINGS.name)
    assert exported["evaluate"]["null_threshold"] == metrics["settled"]["null_threshold"]
    assert isinstance(metrics["settled"]["null_threshold"], float)
    stored = pq.read_table(layout.PREDICTIONS, filters=[("split", "=", "test")]).to_pylist()
    answers = inference.load(layout.EXPORTED)([{key: row[key] for key in ("question", "context")} for row in stored])
    assert [answer["answer"] for answer in answers] == [row["predictions"] for row in stored]
    names = ("f1", "exact_match", "has_answer_f1", "has_answer_exact_match", "no_answer_accuracy")
    assert set(metrics["test"]) == {f"{name}{end}" for name in names for end in ("", "_low", "_high")}
    assert set(metrics["baselines"]["test"]) == {"first_sentence", "sentence_most_like_question", "no_answer"}
    assert metrics["baselines"]["test"]["no_answer"]["f1"] == 0.25
    assert stage.read_json(layout.TRAINING_RECORD)["best_metric"] == "span_accuracy"
    tables = {path.stem for path in layout.EVALUATION.glob("*.csv")}
    assert tables - {"slices"} == {"per_question_word", "per_answer_length", "null_thresholds"}
    predictions = pq.read_table(layout.PREDICTIONS).to_pylist()
    for row in predictions:
        assert row["predictions"] == row["context"][row["starts"] or 0 :][: len(row["predictions"])]
        assert (row["starts"] is None) == (row["predictions"] == "")
