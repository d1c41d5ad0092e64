"""Rankings are exact and stable, and scores are trec_eval's."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from finetrail.encoding.ranking import terms, top
from finetrail.errors import UserError
from finetrail.evaluation import ranking
from finetrail.evaluation.bootstrap import intervals
from finetrail.evaluation.splits import Encoded
from finetrail.schema import Bootstrap
from finetrail.tasks.retrieval import card, scoring, serving
from finetrail.tasks.retrieval.corpus import DOCUMENTS, QUERIES
from finetrail.tasks.retrieval.encoding import Encoder
from finetrail.tasks.retrieval.settings import Evaluate, Tokenize

IDS = [f"d{number}" for number in range(130)]
TARGET = {"pooling": "mean", "dimensions": None, "max_length": 20, "query_prefix": "", "document_prefix": ""}


def settings(**changes: Any) -> Evaluate:
    values = {
        "batch_size": 4,
        "bootstrap": Bootstrap(samples=100, confidence=0.95, seed=0),
        "worst_errors": 10,
        "index": "exact",
        "bm25_terms": "words",
        "candidates": None,
    }
    return Evaluate.model_validate(values | changes)


# --- scores ---------------------------------------------------------------------------------------------------------

QUERY = st.tuples(
    st.lists(st.sampled_from(IDS), unique=True, max_size=110),
    st.dictionaries(st.sampled_from(IDS), st.integers(1, 4), min_size=1, max_size=30),
)


@given(st.lists(QUERY, min_size=1, max_size=4))
def test_scores_are_those_of_trec_eval(asked: list[tuple[list[str], dict[str, int]]]) -> None:
    scores = ranking.per_query([found[: ranking.DEPTH] for found, _ in asked], [grades for _, grades in asked])

    for number, (order, grades) in enumerate(asked):
        # Scores that fall with the rank: trec_eval orders by them, and equal ones by the document's name.
        run = {"q": {document: float(-rank) for rank, document in enumerate(order)}}
        first = {"q": dict(list(run["q"].items())[: ranking.CUTOFF])}
        evaluator = pytrec_eval.RelevanceEvaluator({"q": grades}, {"ndcg_cut.10", "recall.1,10,100", "recip_rank"})
        expected, short = (evaluator.evaluate(of)["q"] if of["q"] else None for of in (run, first))
        names = {"ndcg@10": "ndcg_cut_10"} | {f"recall@{cut}": f"recall_{cut}" for cut in ranking.RECALL_CUTOFFS}
        for ours, theirs in names.items():
            assert scores[ours][number] == pytest.approx(expected[theirs] if expected else 0.0), ours
        assert scores["mrr@10"][number] == pytest.approx(short["recip_rank"] if short else 0.0)


def test_scores_by_hand() -> None:
    found = ranking.per_query([["a", "x", "b"], ["x"]], [{"a": 1, "b": 2}, {"a": 1}])

    best = 2 + 1 / np.log2(3)
    assert found["ndcg@10"].tolist() == pytest.approx([(1 + 2 / 2) / best, 0])
    assert found["mrr@10"].tolist() == [1, 0]
    assert found["recall@1"].tolist() == [0.5, 0]
    assert found["recall@10"].tolist() == [1, 0]


# --- search ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(1, 50))
def test_the_highest_come_first_and_equal_ones_in_order(scores: list[int], k: int) -> None:
    rows, best = top(np.array(scores, dtype=np.float32), k)

    expected = sorted(range(len(scores)), key=lambda row: (-scores[row], row))[:k]
    assert rows.tolist() == expected
    assert best.tolist() == [scores[row] for row in expected]


def test_blocks_of_queries_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    queries, documents = (generator.normal(size=(n, 8)).astype(np.float32) for n in (9, 50))
    whole = scoring.exact(queries, documents, 7)
    monkeypatch.setattr(scoring, "SIMILARITIES_AT_ONCE", 100)

    blocks = scoring.exact(queries, documents, 7)

    similarity = queries @ documents.T
    for query, ((rows, scores), (others, _)) in enumerate(zip(whole, blocks, strict=True)):
        assert rows.tolist() == others.tolist() == np.argsort(-similarity[query], kind="stable")[:7].tolist()
        np.testing.assert_allclose(scores, similarity[query][rows], rtol=1e-6)


def test_clusters_find_what_is_near() -> None:
    generator = np.random.default_rng(0)
    documents = generator.normal(size=(2000, 16)).astype(np.float32)
    documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    queries = documents[::50] + 0.05 * generator.normal(size=(40, 16)).astype(np.float32)

    found = scoring.clustered(queries, documents, 10)

    expected = scoring.exact(queries, documents, 10)
    assert [rows[0] for rows, _ in found] == list(range(0, 2000, 50))
    overlap = [len(set(a) & set(b)) for (a, _), (b, _) in zip(found, expected, strict=True)]
    assert sum(overlap) > 0.5 * 400
    assert all((np.diff(scores) <= 0).all() for _, scores in found)


def test_a_cluster_with_few_documents_gives_few() -> None:
    found = scoring.clustered(np.ones((1, 4), dtype=np.float32), np.eye(4, dtype=np.float32), 10)

    assert found[0][0].tolist() == [0, 1, 2, 3]  # one cluster; all equally near, so in order


def test_the_index_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)

    with pytest.raises(UserError, match="evaluate.index: faiss is not installed; expected `pip install faiss-cpu`"):
        scoring.clustered(np.ones((1, 4), dtype=np.float32), np.eye(4, dtype=np.float32), 10)


def test_bm25_is_lucenes_formula() -> None:
    documents = ["the cat sat", "the dog sat on the cat", "a bird"]

    ((rows, scores),) = scoring.bm25(["Cat bird?"], documents, "words", 10)

    lengths = [3, 6, 2]

    def weight(count: int, length: int, having: int) -> float:
        idf = np.log(1 + (3 - having + 0.5) / (having + 0.5))
        return idf * count / (count + 1.5 * (1 - 0.75 + 0.75 * length / np.mean(lengths)))

    expected = [weight(1, 3, 2), weight(1, 6, 2), weight(1, 2, 1)]
    assert rows.tolist() == [2, 0, 1]
    assert scores.tolist() == pytest.approx([expected[row] for row in rows], rel=1e-5)


def test_a_query_of_unknown_words_finds_the_documents_in_order() -> None:
    for query in ("unknown", "?!"):
        ((rows, scores),) = scoring.bm25([query], ["a cat", "", "a dog"], "words", 10)

        assert scores[rows != 1].tolist() == [0, 0]
        assert sorted(rows) == [0, 1, 2]


def test_bigrams_are_those_of_words() -> None:
    assert terms("여자친구가 A b12!", "bigrams") == ["여자", "자친", "친구", "구가", "a", "b1", "12"]
    assert terms("여자친구가 A b12!", "words") == ["여자친구가", "a", "b12"]


# --- from features to answers ---------------------------------------------------------------------------------------

COLLECTION = pa.Table.from_pylist(
    [
        {"id": "p", "title": "paris", "text": "anna lives in paris ."},
        {"id": "o", "title": "", "text": "the train to oslo left"},
        {"id": "q", "title": "", "text": "quito is far from lee !"},
    ],
    DOCUMENTS,
)


def relevant(*grades: tuple[str, int]) -> list[dict[str, Any]]:
    rows = {row["id"]: row for row in COLLECTION.to_pylist()}
    return [rows[given] | {"relevance": grade} for given, grade in grades]


ASKED = pa.Table.from_pylist(
    [
        {"id": "0", "query": "anna paris", "relevant": relevant(("p", 1)), "negatives": []},
        {"id": "1", "query": "the train", "relevant": relevant(("q", 1), ("o", 2)), "negatives": []},
        {"id": "2", "query": "quito far from lee and home", "relevant": relevant(("p", 1)), "negatives": []},
    ],
    QUERIES,
)


class Bag:
    """A forward whose hidden states are one-hot vectors, so that the mean of a text counts its tokens."""

    def __init__(self, size: int) -> None:
        self.size, self.texts = size, 0

    def __call__(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.texts += len(inputs["input_ids"])
        hidden = np.eye(self.size, dtype=np.float32)[inputs["input_ids"]]
        hidden[inputs["attention_mask"] == 0] = 100  # padding must not count
        return {"last_hidden_state": hidden}


@pytest.fixture
def tokenizer(tiny_wordpiece: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_wordpiece)


@pytest.fixture
def encoder(tokenizer: Any) -> Encoder:
    chosen = Tokenize(
        engine="local",
        num_proc=1,
        max_query_length=20,
        max_length=20,
        query_prefix="",
        document_prefix="",
        max_negatives=0,
        negatives=None,
        pooling="mean",
        dimensions=None,
        limit=None,
    )
    return Encoder(tokenizer, TARGET, chosen)


def encoded(encoder: Encoder, table: pa.Table) -> Encoded:
    return Encoded(table, encoder.encode(table, np.arange(len(table))))


@pytest.fixture
def predictions(encoder: Encoder, tokenizer: Any) -> pa.Table:
    shared = {"documents": encoded(encoder, COLLECTION)}
    return scoring.predict(encoded(encoder, ASKED), shared, TARGET, Bag(len(tokenizer)), tokenizer, settings())


def test_each_vector_prefix_is_scored_as_trec_eval_does(encoder: Encoder, tokenizer: Any) -> None:
    class Table:
        """A forward whose hidden states are rows of a table of random vectors."""

        rows = np.random.default_rng(0).normal(size=(len(tokenizer), 12)).astype(np.float32)

        def __call__(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {"last_hidden_state": self.rows[inputs["input_ids"]]}

    forward, target = Table(), TARGET | {"dimensions": [2, 5]}
    asked, collection = encoded(encoder, ASKED), encoded(encoder, COLLECTION)
    found = scoring.predict(asked, {"documents": collection}, target, forward, tokenizer, settings())

    def vectors(texts: list[str], width: int) -> np.ndarray:
        means = [forward.rows[tokenizer(text)["input_ids"]].mean(0)[:width] for text in texts]
        return np.stack([mean / np.linalg.norm(mean) for mean in means])

    texts = ["paris anna lives in paris .", "the train to oslo left", "quito is far from lee !"]
    qrels = {row["id"]: {one["id"]: one["relevance"] for one in row["relevant"]} for row in ASKED.to_pylist()}
    scores = scoring.score(found, target, settings())
    for width, name in ((2, "ndcg@10_2"), (5, "ndcg@10_5"), (12, "ndcg@10")):
        cosines = vectors(ASKED["query"].to_pylist(), width) @ vectors(texts, width).T
        run = {q: dict(zip("poq", row, strict=True)) for q, row in zip("012", cosines.tolist(), strict=True)}
        expected = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10"}).evaluate(run)
        assert scores[name] == pytest.approx(np.mean([of_one["ndcg_cut_10"] for of_one in expected.values()])), width
    assert len({round(scores[name], 6) for name in ("ndcg@10_2", "ndcg@10_5", "ndcg@10")}) > 1
    assert list(scores) == ["ndcg@10", "mrr@10", "recall@1", "recall@10", "recall@100", "ndcg@10_2", "ndcg@10_5"]
    units = scoring.units(found)
    resampled = scoring.statistics(units, target, settings())(np.ones((1, len(units))))
    assert {name: float(value[0]) for name, value in resampled.items()} == pytest.approx(scores)
    # People who ask have judged nothing, and wait for no other search.
    nobody = Encoded(ASKED.set_column(2, "relevant", pa.nulls(3, QUERIES.field("relevant").type)), asked.features)
    served = scoring.predict(nobody, {"documents": collection}, target, forward, tokenizer, settings())
    assert served.column_names == [name for name in found.column_names if not name.startswith("ranked_")]
    assert served["ranked"] == found["ranked"]


def test_documents_that_share_tokens_are_found(predictions: pa.Table, tokenizer: Any) -> None:
    assert [ids[0] for ids in predictions["predictions"].to_pylist()] == ["p", "o", "q"]
    assert predictions["ranked"] == predictions["predictions"]
    assert predictions["references"].to_pylist()[1] == [{"id": "q", "relevance": 1}, {"id": "o", "relevance": 2}]
    bags = [np.bincount(tokenizer(text)["input_ids"]) for text in ("anna paris", "paris anna lives in paris .")]
    size = max(map(len, bags))
    query, document = (np.pad(bag, (0, size - len(bag))) for bag in bags)
    cosine = query @ document / np.linalg.norm(query) / np.linalg.norm(document)
    assert predictions["scores"].to_pylist()[0][0] == pytest.approx(cosine, rel=1e-5)


def test_faiss_finds_the_same_in_a_small_collection(encoder: Encoder, tokenizer: Any, predictions: pa.Table) -> None:
    shared = {"documents": encoded(encoder, COLLECTION)}
    chosen = settings(index="faiss")

    found = scoring.predict(encoded(encoder, ASKED), shared, TARGET, Bag(len(tokenizer)), tokenizer, chosen)

    assert found.drop_columns("scores").equals(predictions.drop_columns("scores"))


def test_splits_share_the_vectors_of_their_documents(encoder: Encoder, tokenizer: Any) -> None:
    shared, forward = {"documents": encoded(encoder, COLLECTION)}, Bag(len(tokenizer))
    queries = encoded(encoder, ASKED)

    for _ in range(2):
        scoring.predict(queries, shared, TARGET, forward, tokenizer, settings())
    assert forward.texts == 2 * len(ASKED) + len(COLLECTION)
    other = {"documents": encoded(encoder, COLLECTION.slice(1))}
    found = scoring.predict(queries, other, TARGET, forward, tokenizer, settings())

    assert "p" not in found["ranked"].to_pylist()[0]


def test_scores_are_means_and_bootstrap_weights_them(predictions: pa.Table) -> None:
    scores = scoring.score(predictions, TARGET, settings())

    units = scoring.units(predictions)
    to_scores = scoring.statistics(units, TARGET, settings())
    assert len(units) == 3
    ones = to_scores(np.ones((2, 3), dtype=np.int64))
    assert {name: values.tolist() for name, values in ones.items()} == {
        name: pytest.approx([value] * 2) for name, value in scores.items()
    }
    alone = to_scores(np.array([[3, 0, 0]]))
    assert alone["ndcg@10"].tolist() == [1.0]
    assert set(intervals(len(units), to_scores, settings().bootstrap)) == set(scores)
    assert scoring.headline(TARGET, settings()) in scores


def ranked(queries: list[tuple[str, str, list[str], dict[str, int]]]) -> pa.Table:
    """Return predictions of (id, query, ranking, judgements)."""
    grades = [[{"id": name, "relevance": grade} for name, grade in of.items()] for *_, of in queries]
    return pa.table(
        {
            "id": [name for name, *_ in queries],
            "query": [query for _, query, *_ in queries],
            "references": pa.array(grades, pa.list_(scoring.GRADES)),
            "ranked": [ranking for *_, ranking, _ in queries],
        }
    )


def test_rows_with_the_same_query_are_one_with_all_answers() -> None:
    pairs = ranked([("0", "q", ["a", "b"], {"a": 1}), ("1", "q", ["a", "b"], {"b": 1}), ("2", "p", ["x"], {"c": 1})])
    found = scoring.score(pairs, TARGET, settings())
    evaluator = pytrec_eval.RelevanceEvaluator({"q": {"a": 1, "b": 1}, "p": {"c": 1}}, {"ndcg_cut.10", "recall.1"})
    expected = evaluator.evaluate({"q": {"a": 2.0, "b": 1.0}, "p": {"x": 1.0}})
    assert found["ndcg@10"] == pytest.approx(np.mean([one["ndcg_cut_10"] for one in expected.values()]))
    assert found["recall@1"] == pytest.approx(np.mean([one["recall_1"] for one in expected.values()]))
    assert (found["ndcg@10"], found["recall@1"]) == (0.5, 0.25)
    assert len(scoring.units(pairs)) == 2


def test_a_querys_own_document_is_dropped_unless_relevant() -> None:
    """As in BEIR, where ArguAna's queries are documents (ignore_identical_ids), and are never judged."""
    ids = ["q", "d", "r"]
    documents = pa.table({"id": ids, "title": [""] * 3, "text": ids})
    asked = [("q", "a", ["d"]), ("q", "b", None), ("q", "c", ["q"]), ("x", "d", ["q"]), ("r", "e", ["d"])]
    asked += [("q", "same", ["d"]), ("r", "same", ["q"]), ("x", "same", ["d"])]

    left_out = scoring.not_to_be_found(judged(asked), documents)

    # Rows with one text are one query: q is relevant to it, r, which is the id of another row, is not.
    assert left_out == [{"q"}, set(), set(), set(), {"r"}, {"r"}, {"r"}, {"r"}]
    every = (np.arange(3), np.array([0.9, 0.5, 0.1], dtype=np.float32))
    found = scoring._rankings(judged(asked), documents, [every] * len(asked), left_out)
    assert found["ranked"].to_pylist()[:4] == [["d", "r"], ids, ids, ids]
    assert found["scores"].to_pylist()[0] == pytest.approx([0.5, 0.1])


def judged(rows: list[tuple[str, str, list[str] | None]]) -> pa.Table:
    """Return queries of (id, text, ids of relevant documents)."""
    values = [
        {
            "id": given,
            "query": query,
            "relevant": known and [{"id": name, "relevance": 1, "title": "", "text": name} for name in known],
            "negatives": [],
        }
        for given, query, known in rows
    ]
    return pa.Table.from_pylist(values, QUERIES)


@pytest.mark.parametrize("index", ["exact", "faiss"])
def test_scores_over_shared_ids_are_trec_evals(index: str, tokenizer: Any) -> None:
    draw = np.random.default_rng(0)
    documents = pa.table({"id": [str(n) for n in range(130)], "title": [""] * 130, "text": ["x"] * 130})
    asked = [
        (str(n), f"query {n}", [str(n)] * bool(n % 2) + [str(other) for other in draw.integers(100, 130, 2)])
        for n in range(40)
    ]
    vectors, collection = (draw.normal(size=(n, 8)).astype(np.float32) for n in (40, 130))
    left_out = scoring.not_to_be_found(judged(asked), documents)
    search = scoring.exact if index == "exact" else scoring.clustered
    rankings = search(vectors, collection, scoring._depth(left_out))

    scores = scoring.score(scoring._rankings(judged(asked), documents, rankings, left_out), TARGET, settings())

    grades = {name: dict.fromkeys(known, 1) for name, _, known in asked}
    run = {}
    for (name, _, known), (rows, similarities) in zip(asked, search(vectors, collection, 130), strict=True):
        ranking = zip(map(str, rows), similarities.tolist(), strict=True)
        run[name] = {found: score for found, score in ranking if found != name or found in known}
    expected = pytrec_eval.RelevanceEvaluator(grades, {"ndcg_cut.10", "recall.1,10,100"}).evaluate(run)
    for ours, theirs in {"ndcg@10": "ndcg_cut_10", "recall@1": "recall_1", "recall@100": "recall_100"}.items():
        assert scores[ours] == pytest.approx(np.mean([of_query[theirs] for of_query in expected.values()])), ours


def test_tables_split_ndcg_by_length_and_by_relevant_documents(predictions: pa.Table) -> None:
    tables = scoring.tables(predictions, TARGET, settings())

    by_length, by_relevant = tables["by_query_length"], tables["by_relevant_documents"]
    assert [(row["label"], row["support"]) for row in by_length] == [("1-4 words", 2), ("5-8 words", 1)]
    assert [(row["label"], row["support"]) for row in by_relevant] == [("1 relevant", 2), ("2-3 relevant", 1)]
    assert sum(row["ndcg@10"] * row["support"] for row in by_length) == pytest.approx(
        3 * scoring.score(predictions, TARGET, settings())["ndcg@10"]
    )


def test_the_worst_errors_are_those_found_last_or_never(predictions: pa.Table) -> None:
    rows = predictions.to_pylist()
    lost = rows[0] | {
        "id": "lost",
        "query": "who ?",
        "ranked": ["o", "q"],
        "scores": [0.9, 0.1],
        "relevant": {"title": "", "text": "x " * 200},
    }
    table = pa.Table.from_pylist([*rows, lost], predictions.schema)

    errors = scoring.worst_errors(table, 10, TARGET, settings())

    assert [(error["id"], error["rank"]) for error in errors][0] == ("lost", None)
    assert [error["id"] for error in errors[1:]] == ["2"]
    assert errors[1]["query"] == "quito far from lee and home"
    assert errors[1]["found"] == "quito is far from lee !"
    assert errors[1]["relevant"] == "paris anna lives in paris ."
    assert len(errors[0]["relevant"]) == scoring.EXCERPT and errors[0]["relevant"].endswith("…")
    assert scoring.worst_errors(table, 1, TARGET, settings()) == errors[:1]


def test_bm25_is_the_baseline_over_the_whole_collection(encoder: Encoder) -> None:
    shared = {"documents": encoded(encoder, COLLECTION)}
    split = encoded(encoder, ASKED)

    guesses = scoring.baselines(split, split, shared, TARGET, settings())

    assert list(guesses) == ["bm25"]
    assert [ids[0] for ids in guesses["bm25"]["ranked"].to_pylist()] == ["p", "o", "q"]
    assert scoring.score(guesses["bm25"], TARGET, settings())["mrr@10"] > 0


def test_answers_are_the_documents_found_with_their_texts(predictions: pa.Table) -> None:
    answer = serving.answers(predictions)[1]

    assert answer["results"][0] == {
        "id": "o",
        "score": predictions["scores"].to_pylist()[1][0],
        "title": "",
        "text": "the train to oslo left",
    }
    assert [result["id"] for result in answer["results"]] == predictions["predictions"].to_pylist()[1]


def test_without_documents_the_answer_is_the_vector(encoder: Encoder, tokenizer: Any) -> None:
    forward = Bag(len(tokenizer))
    answers = []
    for key in ("query", "text"):
        table = serving.examples([{key: "anna"}, {key: "lee"}])
        found = scoring.predict(encoded(encoder, table), {}, TARGET, forward, tokenizer, settings())
        answers.append(serving.answers(found))

    assert answers[0] == answers[1]
    assert [list(answer) for answer in answers[0]] == [["id", "embedding"], ["id", "embedding"]]
    assert np.linalg.norm(answers[0][0]["embedding"]) == pytest.approx(1)


def test_queries_of_people_are_searched_among_their_documents(encoder: Encoder, tokenizer: Any) -> None:
    documents = serving.documents([{"text": "the train to oslo left", "title": "news"}, {"id": "x", "text": "lee"}])
    examples = serving.examples([serving.text_input("lee"), {"id": 7, "query": "train to oslo"}])

    shared = {"documents": encoded(encoder, documents)}
    found = scoring.predict(encoded(encoder, examples), shared, TARGET, Bag(len(tokenizer)), tokenizer, settings())

    assert examples["id"].to_pylist() == ["0", "7"]
    assert found["references"].to_pylist() == [None, None]
    answers = serving.answers(found)
    assert [answer["id"] for answer in answers] == ["0", "7"]
    assert [answer["results"][0]["id"] for answer in answers] == ["x", "0"]
    assert answers[1]["results"][0]["title"] == "news"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([{"query": "a"}, {"text": "b"}], "input '1': unknown key 'text'; expected id, query"),
        ([{"text": 3}], "input '0': text is 3; expected a string"),
        ([{}], "input '0': there is no query; expected a string"),
    ],
)
def test_inputs_that_are_none_are_refused(given: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        serving.examples(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([{"text": "a", "id": "x"}, {"text": "b", "id": "x"}], "document 'x': this id occurs a second time"),
        ([{"title": "a"}], "document '0': there is no text; expected a string"),
        ([{"text": "a", "title": 3}], "document '0': title is 3; expected a string"),
        ([{"id": "a", "_id": "a", "text": "a"}], "document 'a': unknown key '_id'; expected id, title, text"),
        ([{"_id": "a", "text": "a", "url": "x"}], "document 'a': unknown key 'url'; expected id, title, text"),
        ([{"id": "a", "text": "a", "metadata": {}}], "document 'a': unknown key 'metadata'; expected id, title, text"),
        ([{"_id": "a", "text": "a"}, {"_id": "a", "text": "b"}], "document 'a': this id occurs a second time"),
        ([], "there are no documents to search"),
    ],
)
def test_documents_that_are_none_are_refused(given: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        serving.documents(given)


def test_documents_may_be_a_line_of_beirs_corpus_each() -> None:
    ours = [{"id": "MED-1", "title": "a", "text": "b"}, {"id": 7, "text": "c"}]
    beirs = [
        {"_id": "MED-1", "title": "a", "text": "b", "metadata": {"url": "x"}},
        {"_id": 7, "title": "", "text": "c"},
    ]
    assert serving.documents(beirs) == serving.documents(ours)
    assert serving.documents(beirs)["id"].to_pylist() == ["MED-1", "7"]


def test_the_cards_code_is_python_that_names_the_model() -> None:
    code = card.usage("me/encoder", None)

    compile(code, "card", "exec")
    assert 'SentenceTransformer("me/encoder")' in code and card.LIBRARY == "sentence-transformers"
    assert card.labels(TARGET) == []


def test_texts_without_any_token_have_no_vector(encoder: Encoder, tokenizer: Any) -> None:
    encoder.prefix, encoder.suffix = [], []  # as of a tokenizer that adds no special tokens

    with pytest.raises(UserError, match="there is no token to make a vector of"):
        nothing = encoded(encoder, serving.examples([{"query": ""}]))
        scoring.predict(nothing, {}, TARGET, Bag(len(tokenizer)), tokenizer, settings())


def test_an_empty_text_among_others_is_nearest_to_nothing(encoder: Encoder, tokenizer: Any) -> None:
    encoder.prefix, encoder.suffix = [], []
    two = encoded(encoder, serving.examples([{"query": ""}, {"query": "anna"}]))

    found = scoring.predict(two, {}, TARGET, Bag(len(tokenizer)), tokenizer, settings())

    assert np.linalg.norm(found["predictions"].to_pylist(), axis=1).tolist() == pytest.approx([0, 1])
