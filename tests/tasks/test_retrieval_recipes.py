"""Every shipped recipe does what it says: on toy files of the same shape, and on real corpora where there are some."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import real
from recipe_projects import edit
from transformers import BertConfig, BertModel, BertTokenizer

from finetrail import layout, params, stage
from finetrail.corpus.duplicates import digest
from stages import download_corpus, download_model, evaluate, tokenize, train

ROOT = Path(__file__).parents[2]
NAMES = [path.stem for path in layout.recipe_files(ROOT, "retrieval")]
KOREAN = "question1\tquestion2\tis_duplicate\n배고파\t배가 고파\t0\n잠이 와\t졸려\t0\n심심해\t배고프다\t1\n"
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}

Enter = Callable[[str, dict[str, Any]], Path]


@pytest.fixture
def enter(make_project: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Enter:
    """Return the function that makes the project of a recipe, with some of its values replaced, the current folder."""

    def go(recipe: str, changes: dict[str, Any]) -> Path:
        folder = make_project(tmp_path)
        edit(folder / "params.yaml", {"task": "retrieval", "recipe": recipe})
        edit(folder / "recipes/retrieval" / f"{recipe}.yaml", changes)
        monkeypatch.chdir(folder)
        return folder

    return go


def table(name: str) -> list[dict[str, Any]]:
    return pq.read_table(layout.table_file(layout.CORPUS, name)).to_pylist()


def sizes() -> list[int]:
    return [len(table(name)) for name in (*layout.SPLITS, "documents")]


def counts(of: str) -> dict[str, int]:
    return stage.read_json(layout.CORPUS_CHECKS)["splits"][of]


def test_every_shipped_recipe_is_run_here() -> None:
    tests = Path(__file__).read_text(encoding="utf-8")
    assert NAMES and [name for name in NAMES if f'"{name}"' not in tests] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_fits_its_schema(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    params.load_recipe("retrieval", name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"train.best_metric": "ndcg@10"},
            "train.best_metric: 'ndcg@10' is not a metric of retrieval; .* loss, mrr@10",
        ),
        ({"tokenize.dimensions": [64, 32]}, r"dimensions is \[64, 32\]; expected each once, the smallest first"),
        ({"tokenize.dimensions": [32, 32]}, "expected each once, the smallest first"),
        (
            {"tokenize.negatives": {"ranker": "bm25", "terms": None, "per_pair": 1, "depth": 5, "below": 0.9}},
            "terms is None with ranker bm25; expected words or bigrams",
        ),
        (
            {"tokenize.negatives": {"ranker": "bm25", "terms": "words"}},
            "tokenize.negatives.per_pair: required key is missing",
        ),
        (
            {"tokenize.negatives": {"ranker": "given", "terms": None, "per_pair": 1, "depth": 5, "below": 0.9}},
            "corpus.rankings and tokenize.negatives with ranker: given go together; expected corpus.rankings too",
        ),
        ({"train.micro_batch": 0}, "train.micro_batch: .* greater than or equal to 1"),
        ({"train.batch_size": 1}, "train.batch_size: 1 leaves a query without other documents"),
    ],
)
def test_sections_that_contradict_each_other_are_refused(enter: Enter, changes: dict[str, Any], message: str) -> None:
    enter("bbc-headlines", changes)

    with pytest.raises(Exception, match=message):
        params.load_recipe("retrieval", "bbc-headlines")


def test_bbc_headlines_find_their_articles(enter: Enter) -> None:
    enter("bbc-headlines", {})

    download_corpus.main()

    assert sizes() == [1558, 222, 445, 2092]  # 133 of the 2,225 articles occur twice
    assert counts("documents") == {"documents": 2092, "duplicates": 0, "empty_examples": 0}
    texts = {document["id"]: document["text"] for document in table("documents")}
    for row in table("test"):
        assert row["query"] and row["query"] not in texts
        assert [texts[document["id"]] for document in row["relevant"]] == [row["relevant"][0]["text"]]


def test_short_vectors_are_all_that_sets_a_recipe_apart() -> None:
    short, plain = (
        params.read_recipe(ROOT / f"recipes/retrieval/{name}.yaml").values
        for name in ("bbc-headlines-short", "bbc-headlines")
    )

    assert short["tokenize"].pop("dimensions") == [32, 64, 128] and plain["tokenize"].pop("dimensions") is None
    assert short == plain


def test_negatives_of_an_earlier_run_are_all_that_differs() -> None:
    mined, plain = (
        params.read_recipe(ROOT / f"recipes/retrieval/{name}.yaml").values
        for name in ("bbc-headlines-mined", "bbc-headlines")
    )

    source = {"kind": "dvc", "repo": None, "rev": "first-stage", "path": "data/candidates/train.parquet"}
    assert mined["corpus"].pop("rankings")["source"] == source | {"sha256": None, "max_mib": 10_000}
    assert plain["corpus"].pop("rankings") is None and plain["evaluate"]["candidates"] == 10
    assert mined["tokenize"].pop("negatives")["ranker"] == "given" and plain["tokenize"].pop("negatives") is None
    assert mined == plain


def test_negatives_come_from_an_earlier_runs_candidates(enter: Enter, tmp_path: Path, tiny_wordpiece: Path) -> None:
    news, found = tmp_path / "news/all", tmp_path / "train.parquet"
    news.mkdir(parents=True)
    for number in range(20):
        (news / f"{number:02}.txt").write_text(f"headline {number}\nthe article {number}", encoding="utf-8")
    names = [f"{digest(f'the article {number}'):016x}" for number in range(20)]
    rows = [
        {"query": str(query), "document": names[place], "score": 1.0 if place == query else 0.97 - place / 100}
        for query in range(20)
        for place in range(20)
    ]
    pq.write_table(pa.table({"candidate": rows}), found)
    sources = [{"kind": "file", "path": str(path), "sha256": None} for path in (news.parent, found)]
    folder = enter("bbc-headlines-mined", {"corpus.source": sources[0], "corpus.rankings.source": sources[1]})
    shutil.copytree(tiny_wordpiece, folder / layout.BASE_TOKENIZER)

    download_corpus.main()
    tokenize.main()

    origin = stage.read_json(layout.CORPUS_PROVENANCE)["beside"]["rankings"]
    assert origin["kind"] == "file" and len(origin["sha256"]) == 64
    counts = stage.read_json(layout.TOKENIZED_COUNTS)["splits"]["train"]
    assert counts["examples"] == counts["mined_negatives"] == 14  # one of each
    assert counts["likely_positives_left_out"] > 0  # the first documents score above 0.95


def test_pairs_of_ones_own_may_have_hard_negatives(enter: Enter) -> None:
    folder = enter("bring-your-own-pairs", {}) / "corpora/mine"
    folder.mkdir(parents=True)
    rows = ({"question": f"q{n}", "answer": f"a{n}", "wrong_answers": [f"a{n + 1}", "none"]} for n in range(20))
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")

    download_corpus.main()

    assert sizes() == [16, 2, 2, 22]
    assert counts("train")["hard_negatives"] == 32


def test_a_collection_in_beirs_layout_keeps_its_grades(enter: Enter) -> None:
    folder = enter("cranfield-files", {"corpus.splits.validation": 0.5}) / "corpora/cranfield"
    (folder / "qrels").mkdir(parents=True)
    for split, queries in (("train", (1, 2)), ("test", (3,))):
        judged = "".join(f"{query}\t{grade}\t{grade}\n" for query in queries for grade in (1, 2, 3))
        (folder / f"qrels/{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    lines = {"corpus": [{"_id": str(n), "title": "t", "text": "x"} for n in range(5)]}
    lines["queries"] = [{"_id": str(n), "text": f"query {n}"} for n in range(5)]
    for name, rows in lines.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))

    download_corpus.main()

    assert sizes() == [1, 1, 1, 5]
    assert [document["relevance"] for document in table("test")[0]["relevant"]] == [1, 2, 3]


def test_cranfield_is_complete(enter: Enter) -> None:
    enter("cranfield-files", {"corpus.source.path": str(real("cranfield"))})

    download_corpus.main()

    assert sizes() == [120, 30, 75, 1400]
    assert sum(counts(split)["relevant_documents"] for split in layout.SPLITS) == 1612
    assert counts("documents")["empty_examples"] == 2


def use_korean_base(folder: Path, vocabulary: Path) -> Path:
    """Write a random BERT with the vocabulary of KoELECTRA."""
    tokenizer = BertTokenizer(vocab=str(vocabulary), do_lower_case=False, model_max_length=512)
    tokenizer.save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(BertConfig(vocab_size=len(tokenizer), **SIZES)).save_pretrained(folder)
    return folder


def korean(url: str, base: Path, **changes: Any) -> dict[str, Any]:
    source = {"kind": "file", "path": str(base), "sha256": None}
    urls = [f"{url}/{name}.tsv" for name in ("train", "dev", "test")]
    return {"corpus.source.urls": urls, "model.source": source, "train.precision": "fp32"} | changes


def test_korean_questions_that_are_the_same_are_pairs(enter: Enter, web: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = web
    for name in ("train", "dev", "test"):
        (folder / f"{name}.tsv").write_text(KOREAN, encoding="utf-8")
    enter("ko-question-pair", korean(url, tmp_path, **{"corpus.source.sha256": None}))

    download_corpus.main()

    assert sizes() == [2, 2, 2, 3]
    assert [row["query"] for row in table("train")] == ["배고파", "잠이 와"]
    assert counts("train")["other_labels"] == 1
    assert "배고프다" in {document["text"] for document in table("documents")}


@pytest.mark.usefixtures("restored_torch")
def test_the_korean_pairs_are_learned_from(enter: Enter, web: tuple[Path, str], tmp_path: Path) -> None:
    given, vocabulary = real("ko_question_pair"), real("tokenizers/koelectra_v1")
    folder, url = web
    for name in ("train", "dev", "test"):
        shutil.copy(given / f"{name}.tsv", folder)
    base = use_korean_base(tmp_path / "base", vocabulary / "vocab.txt")
    enter("ko-question-pair", korean(url, base, **{"train.epochs": 1.0, "train.lr": 3e-3, "evaluate.batch_size": 512}))

    for step in (download_corpus, download_model, tokenize, train, evaluate):
        step.main()

    assert sizes()[:3] == [4169, 432, 508]
    assert counts("train")["other_labels"] == 1967
    tokens = stage.read_json(layout.TOKENIZED_COUNTS)["splits"]["documents"]
    assert tokens["tokens_truncated"] == 0 and tokens["tokens"] > 5 * tokens["examples"]
    metrics = stage.read_json(layout.EVALUATION_METRICS)
    baselines = {name: scores["ndcg@10"] for name, scores in metrics["baselines"]["test"].items()}
    assert set(baselines) == {"bm25", "before_training"}
    assert metrics["test"]["ndcg@10"] > 0.2 and baselines["bm25"] > 0.5
