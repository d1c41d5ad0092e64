"""From a first stage's candidates to a cross-encoder's order, as trec_eval and sentence-transformers have it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytrec_eval
import torch
from conftest import whole
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from sentence_transformers import CrossEncoder
from toys import projects
from transformers import AutoModelForSequenceClassification

from finetrail import inference, layout, stage
from finetrail.corpus.candidates import CANDIDATE, candidate
from finetrail.errors import UserError
from finetrail.schema import Bootstrap
from finetrail.tasks.retrieval.settings import Evaluate as RetrievalEvaluate
from finetrail.tasks.text_classification import card, encoding, modeling, scoring
from finetrail.tasks.text_classification.settings import Corpus, Evaluate, Tokenize, Train
from stages import download_corpus, download_model, evaluate, export, report, tokenize, train

TARGET = {"problem": "multi_label", "label_names": ["relevant"], "candidates": True}
DOCUMENTS = [f"d{number}" for number in range(12)]


def settings(**changes: Any) -> Evaluate:
    bootstrap = Bootstrap(samples=100, confidence=0.95, seed=0)
    given: dict[str, Any] = {"batch_size": 8, "bootstrap": bootstrap, "worst_errors": 5}
    return Evaluate(**given | {"pool": "mean", "positive_label": None, "threshold": 0.5} | changes)


# --- the order, and its scores ------------------------------------------------------------------------------------


def predicted(queries: list[tuple[list[str], list[float], list[float], dict[str, int]]]) -> pa.Table:
    """Return predictions of queries: documents, the first stage's scores, the model's, and judgements."""
    rows: list[dict[str, Any]] = []
    for query, (documents, first_stage, scores, judged) in enumerate(queries):
        grades = [{"id": name, "relevance": grade} for name, grade in judged.items()]
        for document, before, after in zip(documents, first_stage, scores, strict=True):
            rows.append(
                {
                    "id": f"q{query}/{len(rows)}",
                    "text": f"query {query}",
                    "text_pair": f"text of {document}",
                    "candidate": {"query": f"q{query}", "document": document, "score": before, "judged": grades},
                    "references": ["relevant"] if document in judged else [],
                    "predictions": ["relevant"] if after >= 0.5 else [],
                    "confidences": [after] if after >= 0.5 else [],
                    "probabilities": {"relevant": after},
                }
            )
    labels = pa.list_(pa.string())
    kinds: list[tuple[str, Any]] = [(name, pa.string()) for name in ("id", "text", "text_pair")]
    kinds += [("candidate", CANDIDATE), ("references", labels), ("predictions", labels)]
    kinds += [("confidences", pa.list_(pa.float32())), ("probabilities", pa.struct([("relevant", pa.float32())]))]
    return pa.Table.from_pylist(rows, pa.schema(kinds))


@st.composite
def asked(draw: st.DrawFn) -> tuple[list[str], list[float], list[float], dict[str, int]]:
    """Draw a query: its candidates, two scores of each, all different, and judgements of these and of others."""
    documents = draw(st.lists(st.sampled_from(DOCUMENTS), min_size=1, unique=True))
    orders = [draw(st.permutations(range(len(documents)))) for _ in range(2)]
    before, after = ([(place + 1) / 16 for place in order] for order in orders)
    judged = draw(st.dictionaries(st.sampled_from([*DOCUMENTS, "x", "y"]), st.integers(1, 3), min_size=1))
    return documents, before, after, judged


def by_trec_eval(queries: list[Any], scores: int) -> dict[str, float]:
    """Return the means over queries by pytrec_eval; scores: which of a query's parts orders its documents."""
    qrels = {str(number): query[3] for number, query in enumerate(queries)}
    run = {str(n): dict(zip(query[0], query[scores], strict=True)) for n, query in enumerate(queries)}
    measures = {"ndcg_cut.10", "recall.1,10,100", "recip_rank"}
    found = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(run).values()
    names = {"ndcg@10": "ndcg_cut_10"} | {f"recall@{cut}": f"recall_{cut}" for cut in (1, 10, 100)}
    means = {ours: float(np.mean([of_one[theirs] for of_one in found])) for ours, theirs in names.items()}
    # trec_eval's recip_rank knows no cutoff; below rank 10 it is 0 here.
    return means | {"mrr@10": float(np.mean([one["recip_rank"] * (one["recip_rank"] >= 0.1) for one in found]))}


@given(st.lists(asked(), min_size=1, max_size=4))
def test_scores_before_and_after_are_those_of_trec_eval(queries: list[Any]) -> None:
    predictions = predicted(queries)
    before = predictions.select(["id", "text", "text_pair", "candidate"])

    after = scoring.score(predictions, TARGET, settings())

    assert {name: after[name] for name in by_trec_eval(queries, 2)} == pytest.approx(by_trec_eval(queries, 2))
    assert scoring.score(before, TARGET, settings()) == pytest.approx(by_trec_eval(queries, 1))
    units = scoring.units(predictions)
    twice = scoring.statistics(units, TARGET, settings())(np.full((1, len(units)), 2))
    assert {name: float(value[0]) for name, value in twice.items()} == pytest.approx(by_trec_eval(queries, 2))


def test_relevant_documents_that_are_no_candidates_count() -> None:
    found = predicted([(["a", "b"], [0.9, 0.8], [0.1, 0.7], {"b": 1, "x": 2}), (["c"], [0.5], [0.9], {"y": 1})])

    scores = scoring.score(found, TARGET, settings())

    assert scores["ndcg@10"] == pytest.approx((1 / (2 + 1 / np.log2(3)) + 0) / 2)
    assert (scores["mrr@10"], scores["recall@10"]) == (0.5, 0.25)
    assert scoring.headline(TARGET, settings()) == "ndcg@10" and scoring.beside(TARGET, settings()) == ["mrr@10"]


def test_equal_scores_keep_the_order_of_the_first_stage() -> None:
    found = predicted([(["a", "b", "c"], [0.1, 0.8, 0.5], [0.5, 0.5, 0.9], {"b": 1})])

    units = scoring.units(found)

    assert units["ranked"].to_pylist() == [["c", "b", "a"]]
    assert units["id"].to_pylist() == ["q0/0"] and units["best"].to_pylist() == ["text of c"]
    (outcome,) = scoring.outcomes(units, TARGET, settings())
    assert outcome["score"] == pytest.approx(1 / np.log2(3))
    assert (outcome["input"], outcome["reference"], outcome["prediction"]) == ("query 0", "b", "c: text of c")


def test_a_document_that_stands_there_twice_counts_once() -> None:
    found = predicted([(["a", "b", "a"], [0.9, 0.8, 0.7], [0.9, 0.8, 0.7], {"a": 1})])

    assert scoring.score(found, TARGET, settings())["ndcg@10"] == 1


def test_the_table_tells_where_the_first_relevant_document_stood() -> None:
    queries = [
        (["a", "b"], [0.9, 0.8], [0.1, 0.9], {"a": 1}),
        (["a", "b"], [0.9, 0.8], [0.1, 0.9], {"b": 1}),
        (["a"], [0.9], [0.1], {"x": 1}),
    ]

    rows = scoring.tables(predicted(queries), TARGET, settings())["by_first_stage"]

    down = pytest.approx(1 / np.log2(3))
    assert rows == [
        {"label": "first", "support": 1, "ndcg@10": down, "first_stage": 1.0},
        {"label": "2 to 3", "support": 1, "ndcg@10": 1.0, "first_stage": down},
        {"label": "nowhere", "support": 1, "ndcg@10": 0.0, "first_stage": 0.0},
    ]


def test_scores_rank_too() -> None:
    found = predicted([(["a", "b"], [0.9, 0.8], [0.2, 0.7], {"b": 2})])
    numbers = found.select(["id", "text", "text_pair", "candidate"])
    for name, values in (("references", [0.0, 2.0]), ("predictions", [-0.5, 1.5])):
        numbers = numbers.append_column(name, [values])

    target = {"problem": "regression", "label_names": [], "candidates": True}
    scores = scoring.score(numbers, target, settings(threshold=None))

    assert scores["ndcg@10"] == 1 and scores["mae"] == 0.5


# --- what is no candidate -----------------------------------------------------------------------------------------

GIVEN = {"query": "q", "document": "d", "score": 0.5, "judged": [{"id": "x", "relevance": 1}]}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("q", "expected an object with query, document, score, judged"),
        ({key: GIVEN[key] for key in ("query", "document", "score")}, "expected an object with query"),
        (GIVEN | {"document": 3}, "candidate.document is 3; expected an id, which is a string"),
        (GIVEN | {"score": "high"}, "f:1: candidate.score is 'high'; expected a finite number"),
        (GIVEN | {"judged": []}, "expected the query's relevant documents"),
        (GIVEN | {"judged": [{"id": "x", "relevance": 0}]}, "expected id and relevance, a whole number from 1"),
    ],
)
def test_what_is_no_candidate_is_refused(value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        candidate(value, "f:1")


def test_a_candidate_keeps_what_it_needs() -> None:
    assert candidate(GIVEN | {"more": 1, "score": "2"}, "f:1") == GIVEN | {"score": 2.0}


@pytest.mark.parametrize(
    ("columns", "problem"), [({"text", "labels"}, "multi_label"), ({"text", "text_pair", "label"}, "single_label")]
)
def test_candidates_are_pairs_with_one_number(columns: set[str], problem: str) -> None:
    reader = {"format": "jsonl", "columns": {name: name for name in (*columns, "candidate")}, "encoding": "utf-8"}
    splits = {"train": "a", "validation": "b", "test": "c", "seed": 0, "stratify": None, "group": None}
    described = {"name": "x", "source": {"kind": "file", "path": "x", "sha256": None}, "license": None}
    rest = {"label_separator": None, "label_map": None, "normalize": "none", "unseen_labels": "keep", "language": None}
    with pytest.raises(ValueError, match="which one number ranks; expected text_pair too, and problem regression"):
        Corpus.model_validate(described | rest | {"splits": splits, "reader": reader, "problem": problem})


def test_candidates_with_two_labels_are_refused_before_training() -> None:
    table = predicted([(["a", "b"], [0.9, 0.8], [0.2, 0.7], {"b": 2})])
    two = table.select(["id", "text", "text_pair", "candidate"]).append_column("labels", [[["good"], ["bad"]]])
    chosen = Tokenize(
        engine="local", num_proc=1, max_length=12, overflow="head", head_tokens=None, stride=None, limit=None
    )
    with pytest.raises(UserError, match="candidates have the labels bad, good; expected one, whose probability"):
        encoding.target(iter([two]), chosen)


def test_a_limit_keeps_all_candidates_of_a_query_or_none(tmp_path: Path) -> None:
    sizes = [3, 2, 4, 3]
    queries = [(DOCUMENTS[:n], [0.5] * n, [0.5] * n, {"d0": 1}) for n in sizes]
    path = tmp_path / "train.parquet"
    pq.write_table(predicted(queries), path)

    kept = tokenize.evenly_grouped(path, 6, encoding.TOGETHER)

    assert kept.tolist() == [0, 1, 2, 5, 6, 7, 8]  # the first and the third query
    assert tokenize.evenly_grouped(path, 1, encoding.TOGETHER).tolist() == [0, 1, 2]
    assert tokenize.evenly_grouped(path, 100, encoding.TOGETHER).tolist() == list(range(12))
    assert tokenize.evenly_grouped(path, 2, None).tolist() == [0, 6]


# --- both stages --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def first_stage(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A finished retrieval run: its project."""
    with projects(request, download_corpus, download_model, tokenize, train, evaluate) as enter:
        yield enter("retrieval")


@pytest.fixture(scope="module")
def reranked(first_stage: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A finished run of a reranker on the candidates of the first stage: its project."""
    with projects(request) as enter, pytest.MonkeyPatch.context() as patch:
        folder = enter("text_classification")
        patch.chdir(folder)
        file = folder / "recipes/text_classification/toy.yaml"
        yaml = YAML()
        recipe = yaml.load(file)
        corpus, columns = recipe["corpus"], ("id", "labels", "candidate")
        corpus["source"]["path"] = str(first_stage / layout.CANDIDATES)
        corpus["splits"] |= {split: f"{split}.parquet" for split in layout.SPLITS}
        named = {name: name for name in columns} | {"text": "query", "text_pair": "document"}
        corpus["reader"] = {"format": "parquet", "columns": named}
        corpus["problem"] = "multi_label"
        recipe["tokenize"] |= {"max_length": 32, "overflow": "head", "stride": None}
        recipe["train"] |= {"best_metric": "micro_f1", "epochs": 2.0}
        recipe["evaluate"] |= {"positive_label": None, "threshold": 0.5}
        recipe["export"]["int8"] = False
        yaml.dump(recipe, file)
        for one in (download_corpus, download_model, tokenize, train, evaluate, export, report):
            one.main()
        yield folder


def table(folder: Path, split: str) -> pa.Table:
    return pq.read_table(layout.table_file(folder / layout.CANDIDATES, split))


@pytest.mark.usefixtures("restored_torch")
def test_candidates_are_the_best_and_for_training_all_relevant(first_stage: Path) -> None:
    settings = YAML().load(first_stage / "recipes/retrieval/toy.yaml")["evaluate"]
    assert RetrievalEvaluate.model_fields["candidates"] and settings["candidates"] == 5
    stored = pq.read_table(first_stage / layout.PREDICTIONS, filters=[("split", "=", "test")])
    found = table(first_stage, "test").to_pylist()
    assert len({row["query"] for row in found}) == len(set(stored["query"].to_pylist())) == len(found) / 5
    of_query: dict[str, list[dict[str, Any]]] = {}
    for row in found:
        of_query.setdefault(row["query"], []).append(row)
    documents = pq.read_table(first_stage / layout.CORPUS / "documents.parquet").to_pylist()
    texts = {row["id"]: row["text"] for row in documents}
    judged: dict[str, set[str]] = {}
    for row in stored.to_pylist():
        judged.setdefault(row["query"], set()).update(one["id"] for one in row["references"])
    for row in stored.to_pylist():
        rows = of_query[row["query"]]
        assert [one["candidate"]["document"] for one in rows] == row["predictions"][:5]
        assert [one["candidate"]["score"] for one in rows] == pytest.approx(row["scores"][:5], rel=1e-5)
        assert [one["document"] for one in rows] == [texts[name] for name in row["predictions"][:5]]
        for one in rows:
            assert {judgement["id"] for judgement in one["candidate"]["judged"]} == judged[row["query"]]
            assert one["labels"] == (["relevant"] if one["candidate"]["document"] in judged[row["query"]] else [])
    to_learn: dict[str, list[dict[str, Any]]] = {}
    for row in table(first_stage, "train").to_pylist():
        to_learn.setdefault(row["candidate"]["query"], []).append(row)
    assert any(len(rows) > 5 for rows in to_learn.values())
    for rows in to_learn.values():
        names = [row["candidate"]["document"] for row in rows]
        assert {one["id"] for one in rows[0]["candidate"]["judged"]} <= set(names) and len(names) == len(set(names))
        worst = min(row["candidate"]["score"] for row in rows[:5])
        assert all(row["candidate"]["score"] <= worst + 1e-6 for row in rows[5:])


@pytest.mark.usefixtures("restored_torch")
def test_the_reranker_has_the_first_stages_score_to_beat(first_stage: Path, reranked: Path) -> None:
    first = json.loads((first_stage / layout.EVALUATION_METRICS).read_text(encoding="utf-8"))
    metrics = json.loads((reranked / layout.RECORD).read_text(encoding="utf-8"))
    assert metrics["headline"] == "ndcg@10" and metrics["export"]["onnx_fp32"]["disagreements"] == 0
    for split in ("validation", "test"):
        # Five candidates are all that the order of both runs has in common.
        qrels: dict[str, dict[str, int]] = {}
        run: dict[str, dict[str, float]] = {}
        ours: dict[str, dict[str, float]] = {}
        predictions = pq.read_table(reranked / layout.PREDICTIONS, filters=[("split", "=", split)])
        for row in predictions.to_pylist():
            given, query = row["candidate"], row["candidate"]["query"]
            qrels[query] = {judged["id"]: judged["relevance"] for judged in given["judged"]}
            run.setdefault(query, {})[given["document"]] = given["score"]
            ours.setdefault(query, {})[given["document"]] = row["probabilities"]["relevant"]
        evaluator = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10"})
        before, after = (
            np.mean([of_one["ndcg_cut_10"] for of_one in evaluator.evaluate(order).values()]) for order in (run, ours)
        )
        assert metrics["baselines"][split] == {"first_stage": pytest.approx(before, abs=1e-5)}
        assert metrics[split]["ndcg@10"] == pytest.approx(after, abs=1e-5)
        assert metrics[split]["ndcg@10_low"] <= metrics[split]["ndcg@10"] <= metrics[split]["ndcg@10_high"]
        assert before <= first[split]["ndcg@10"] + 1e-6
    assert "by first stage" in (reranked / layout.REPORT).read_text(encoding="utf-8").lower()


@pytest.mark.usefixtures("restored_torch")
def test_sentence_transformers_gives_the_same_scores(reranked: Path) -> None:
    rows = pq.read_table(reranked / layout.PREDICTIONS, filters=[("split", "=", "test")]).to_pylist()
    loaded = CrossEncoder(str(reranked / layout.EXPORTED), device="cpu")
    given = [(row["text"], row["text_pair"]) for row in rows]
    assert max(len(loaded.tokenizer(*pair)["input_ids"]) for pair in given) <= 32  # nothing was cut off in ours

    found = loaded.predict(given)

    assert found.tolist() == pytest.approx([row["probabilities"]["relevant"] for row in rows], abs=1e-5)
    asked = [{"text": row["text"], "text_pair": row["text_pair"]} for row in rows]
    answers = inference.load(reranked / layout.EXPORTED)(asked)
    ours = [answer["probabilities"]["relevant"] for answer in answers]
    assert ours == pytest.approx([row["probabilities"]["relevant"] for row in rows], abs=1e-5)
    candidates = [row for row in rows if row["candidate"]["query"] == rows[0]["candidate"]["query"]]
    order = loaded.rank(rows[0]["text"], [row["text_pair"] for row in candidates])
    best = sorted((row["probabilities"]["relevant"] for row in candidates), reverse=True)
    assert [one["score"] for one in order] == pytest.approx(best, abs=1e-5)
    assert "reranker.rank(" in card.usage("me/reranker", stage.read_json(reranked / layout.TARGET))


def test_a_reranker_that_was_trained_before_keeps_its_head(tiny_checkpoint: Path, tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(tiny_checkpoint, num_labels=1)
    assert model.config.id2label == {0: "LABEL_0"}  # as cross-encoders of the Hub have it
    model.save_pretrained(tmp_path)
    recipe = Path(__file__).parents[2] / "recipes/text_classification/bbc-headlines-reranker.yaml"
    section = Train.model_validate(YAML(typ="safe").load(whole(recipe))["train"])

    kept, drawn = (
        modeling.build_model(tmp_path, TARGET | {"label_names": [label]}, section, Dataset.from_dict({}))
        for label in ("LABEL_0", "relevant")
    )

    assert torch.equal(kept.classifier.weight, model.classifier.weight)
    assert not torch.equal(drawn.classifier.weight, model.classifier.weight)


def test_the_example_of_the_guide_is_a_candidate() -> None:
    guide = (Path(__file__).parents[2] / "docs/retrieval.md").read_text(encoding="utf-8")
    (line,) = (line for line in guide.splitlines() if line.startswith('{"id": "q7/1"'))
    row = json.loads(line)

    assert candidate(row["candidate"], "guide") == row["candidate"]
    assert set(row) == {"id", "query", "document", "labels", "candidate"}
