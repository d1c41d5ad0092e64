"""What bounds memory changes no result, and what is large takes no more steps than it needs: beside the plain way."""

from collections import Counter
from dataclasses import replace
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from finetrail.corpus import concerns, raw, spans
from finetrail.encoding import ranking
from finetrail.evaluation import bootstrap
from finetrail.evaluation.label_metrics import matthews
from finetrail.evaluation.splits import Encoded
from finetrail.exporting import parity
from finetrail.reporting import page
from finetrail.schema import Bootstrap, SpanRules
from finetrail.tasks.text_classification import scoring as texts
from finetrail.tasks.text_classification import serving
from finetrail.tasks.text_classification.settings import Evaluate
from finetrail.tasks.token_classification import scoring as words
from stages import download_corpus, tokenize
from tests.test_report import make_results

SETTINGS = Evaluate(
    batch_size=4, bootstrap=Bootstrap(samples=100, confidence=0.9, seed=0), worst_errors=3, pool="mean",
    positive_label=None, threshold=None,
)  # fmt: skip


def drawn(rows: int, names: list[str], seed: int = 0) -> tuple[list[str], list[str]]:
    """Return labels and predictions, of which more than half are right."""
    draw = np.random.default_rng(seed)
    references = draw.integers(len(names), size=rows)
    predictions = np.where(draw.random(rows) < 0.6, references, draw.integers(len(names), size=rows))
    return [names[label] for label in references], [names[label] for label in predictions]


def labels_of(number: int) -> dict[str, Any]:
    return {"problem": "single_label", "label_names": [f"L{label:06}" for label in range(number)], "texts": ["text"]}


# --- evaluation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drawn_rows", [None, 7])
def test_resamples_are_the_same_however_many_are_drawn_at_once(monkeypatch: Any, drawn_rows: int | None) -> None:
    values, seen = np.random.default_rng(0).random(30), []

    def to_scores(weights: np.ndarray) -> dict[str, np.ndarray]:
        seen.append(weights.size)
        return {"sum": (weights * values).sum(-1)}

    whole = bootstrap.resampled(30, to_scores, 101, 5, drawn_rows)["sum"]
    monkeypatch.setattr(bootstrap, "WEIGHTS_AT_ONCE", 200)
    assert bootstrap.resampled(30, to_scores, 101, 5, drawn_rows)["sum"].tolist() == whole.tolist()
    assert seen[:3] == [1500, 1500, 30] and set(seen[3:]) == {180, 150}


@pytest.mark.parametrize("seed", range(5))
def test_assignment_correlation_is_scikit_learns_exactly(seed: int) -> None:
    pair = drawn(200, ["a", "b", "c", "d"], seed)
    assert matthews(*pair) == matthews_corrcoef(*pair)
    assert matthews(["a", "a"], ["a", "b"]) == 0.0


def test_intervals_of_many_labels_need_no_square_memory() -> None:
    names = labels_of(20_000)["label_names"]
    references, predictions = drawn(3_000, names)
    weights = np.random.default_rng(1).integers(3, size=(2, 3_000))
    found = texts._label_statistic(references, predictions, SETTINGS)(weights)
    for sample, row in enumerate(weights):
        pair = [np.repeat(labels, row).tolist() for labels in (references, predictions)]
        assert found["accuracy"][sample] == pytest.approx(accuracy_score(*pair))
        assert found["macro_f1"][sample] == pytest.approx(f1_score(*pair, average="macro", zero_division=0))
        assert found["mcc"][sample] == pytest.approx(matthews(*pair))


def predicted(features: pa.Table, examples: pa.Table, target: dict[str, Any]) -> pa.Table:
    """Predict with a model whose logits are those of a table by the first token."""
    logits = np.random.default_rng(3).normal(size=(100, len(target["label_names"]))).astype(np.float32)
    tokenizer = SimpleNamespace(pad_token_id=0)
    forward = lambda inputs: {"logits": logits[inputs["input_ids"][:, 0]]}  # noqa: E731
    return texts.predict(Encoded(examples, features), {}, target, forward, tokenizer, SETTINGS)


def some_texts(target: dict[str, Any]) -> tuple[pa.Table, pa.Table]:
    """Return examples, and one to three features of each."""
    example = np.repeat(np.arange(11), [1, 3, 1, 2, 1, 1, 2, 1, 3, 1, 1])
    ids = [[int(row) + 1, *range(row % 4)] for row in range(len(example))]
    names = [target["label_names"][row % len(target["label_names"])] for row in range(11)]
    examples = pa.table({"id": [str(row) for row in range(11)], "text": ["x"] * 11, "label": names})
    return pa.table({"example": pa.array(example, pa.int32()), "input_ids": ids}), examples


def test_texts_are_predicted_alike_in_blocks(monkeypatch: Any) -> None:
    target = labels_of(5)
    whole = predicted(*some_texts(target), target)
    monkeypatch.setattr(texts, "NUMBERS_AT_ONCE", 20)
    assert texts.texts_at_once(target) == 4
    parts = predicted(*some_texts(target), target)
    assert parts.equals(whole) and parts["predictions"].num_chunks == 3
    assert texts.score(parts, target, SETTINGS) == texts.score(whole, target, SETTINGS)


def test_of_very_many_labels_the_most_probable_are_kept(monkeypatch: Any) -> None:
    target = labels_of(30)
    whole = serving.answers(predicted(*some_texts(target), target))
    monkeypatch.setattr(texts, "MOST_LABELS", 29)
    table = predicted(*some_texts(target), target)
    few = serving.answers(table)
    for answer, known in zip(few, whole, strict=True):
        best = sorted(known["probabilities"].items(), key=lambda item: (-item[1], item[0]))[: texts.LISTED]
        assert list(answer.pop("probabilities").items()) == best
        del known["probabilities"]
    assert few == whole
    assert len(texts.worst_errors(table, 3, target, SETTINGS)) == 3


def test_labels_without_a_bag_of_words_still_have_a_majority(monkeypatch: Any) -> None:
    target = labels_of(3)
    features, examples = some_texts(target)
    train = Encoded(pa.concat_tables([examples, examples.slice(1, 1)]), features)
    known = texts.baselines(train, Encoded(examples, features), {}, target, SETTINGS)["majority"]
    monkeypatch.setattr(texts, "MOST_CLASSES", 2)
    found = texts.baselines(train, Encoded(examples, features), {}, target, SETTINGS)
    assert list(found) == ["majority"] and found["majority"].equals(known)
    assert set(known["predictions"].to_pylist()) == {"L000001"} and len(known) == 11


# --- words --------------------------------------------------------------------------------------------------------

SENTENCES = [["the", "Ada", "x"], ["x", "the"], ["Ada"], ["new", "x", "the", "x"]]
TAGS = [["O", "B-PER", "B-LOC"], ["O", "O"], ["B-LOC"], ["O", "B-LOC", "O", "B-PER"]]
NAMES = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]


def tagged(tokens: list[list[str]], labels: list[list[str]]) -> Encoded:
    kind = pa.list_(pa.string())
    return Encoded(pa.table({"tokens": pa.array(tokens, kind), "labels": pa.array(labels, kind)}), pa.table({}))


def test_the_most_frequent_label_of_a_word_is_counted_as_by_hand() -> None:
    train = tagged(SENTENCES, TAGS)
    asked = [["Ada", "unknown"], [], ["x", "the", "new", "x"]]
    found = words.baselines(train, tagged(asked, [["O"] * len(of) for of in asked]), {}, NAMES, SETTINGS)
    counts: dict[str, Counter[str]] = {}
    for token, label in zip(sum(SENTENCES, []), sum(TAGS, []), strict=True):
        counts.setdefault(token, Counter())[label] += 1
    best = {token: min(of, key=lambda label: (-of[label], label)) for token, of in counts.items()}
    assert best["Ada"] == "B-LOC"  # as often as B-PER, and before it in the alphabet
    expected = [[best.get(token, "O") for token in sentence] for sentence in asked]
    assert found["most_frequent_label_of_word"]["predictions"].to_pylist() == expected
    assert found["everything_O"]["predictions"].to_pylist() == [["O"] * len(sentence) for sentence in asked]


def test_the_worst_words_are_those_of_a_plain_sort() -> None:
    draw = np.random.default_rng(0)
    sentences = [[f"w{draw.integers(9)}" for _ in range(size)] for size in (4, 0, 7, 1, 5)]
    references, predictions = ([[NAMES[draw.integers(5)] for _ in of] for of in sentences] for _ in range(2))
    sure = [[float(draw.integers(1, 4)) / 4 for _ in of] for of in sentences]
    columns = {"tokens": sentences, "references": references, "predictions": predictions}
    kinds = dict.fromkeys(columns, pa.list_(pa.string()))
    arrays = {name: pa.array(values, kinds[name]) for name, values in columns.items()}
    table = pa.table({"id": list("eabdc"), **arrays, "confidences": pa.array(sure, pa.list_(pa.float32()))})
    table = pa.concat_tables([table.slice(0, 2), table.slice(2)])
    found = [(row["id"], row["position"]) for row in words.worst_errors(table, 99, NAMES, SETTINGS)]
    wrong = [
        (-sure[row][at], "eabdc"[row], at, (references[row][at][2:], predictions[row][at][2:]))
        for row in range(5)
        for at in range(len(sentences[row]))
        if references[row][at] != predictions[row][at]
    ]
    assert len(wrong) > 8 and sorted(found) == sorted((name, at) for _, name, at, _ in wrong)
    firsts = {kind: (name, at) for _, name, at, kind in reversed(sorted(wrong))}
    few = [(row["id"], row["position"]) for row in words.worst_errors(table, len(firsts), NAMES, SETTINGS)]
    assert sorted(few) == sorted(firsts.values())
    assert found == [(name, at) for _, name, at, _ in sorted(wrong)]


# --- search, parity, texts ----------------------------------------------------------------------------------------


def test_terms_as_numbers_are_ranked_as_words_are() -> None:
    import bm25s

    documents = [" ".join(pair) for pair in product(["cat", "dog", ""], ["sat", "ran ran", "cat"])]
    plain = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
    plain.index([ranking.terms(document, "words") for document in documents], show_progress=False)
    index = ranking.Bm25(iter(documents), "words")
    for query in (["cat", "ran"], ["dog"], ["cat", "unknown"]):
        assert index.scores(" ".join(query)).tolist() == plain.get_scores(query).tolist()
    assert ranking.Bm25(["?!", "..."], "words").scores("cat").tolist() == [0, 0]


def test_tables_are_compared_alike_in_blocks(monkeypatch: Any) -> None:
    draw = np.random.default_rng(0)
    ids = [f"e{row}" for row in range(23)]
    tables = [pa.table({"id": ids, "predictions": draw.integers(2, size=23), "confidences": [0.5] * 23}) for _ in "ab"]
    whole = parity.compare(*tables)
    monkeypatch.setattr(parity, "ROWS_AT_ONCE", 4)
    assert whole.differ and parity.compare(*tables) == whole


def test_a_line_of_many_pieces_is_joined_once(monkeypatch: Any, tmp_path: Any) -> None:
    monkeypatch.setattr(raw, "CHUNK_BYTES", 3)
    lines = ["a" * 50, "", "b" * 7, "é" * 20]
    (tmp_path / "a.txt").write_bytes("\r\n".join(lines).encode())
    assert [line for _, line in raw.lines(tmp_path / "a.txt", "a.txt", None)] == lines


def test_a_text_is_gone_through_once_for_all_of_its_spans() -> None:
    text = "ab \N{GRINNING FACE}cd " * 50
    found = [spans.Span(7 * place, 7 * place + 1, "X") for place in range(50)]  # inside the first word
    rules = SpanRules(
        words="unicode", units="characters", blanks="trim", inside_words="snap", overlapping="longest", empty="drop"
    )
    cut = [(start, start + 2) for place in range(50) for start in (7 * place, 7 * place + 4)]
    for known in (spans._borders, spans._others):
        known.cache_clear()
    tags, misfits = spans.tag(text, cut, found, rules)
    assert tags == ["B-X", "O"] * 50 and len(misfits) >= 50
    assert spans._borders.cache_info().misses == 3 and spans._others.cache_info().misses == 1


def test_long_texts_wait_and_are_encoded_in_fewer_rows(monkeypatch: Any, tmp_path: Any) -> None:
    rows = [("train", {"id": str(row), "text": "x" * (5 if row < 4 else 500)}) for row in range(8)]
    columns = pa.schema([("id", pa.string()), ("text", pa.string())])
    monkeypatch.setattr(download_corpus, "VALUES_WAITING", 1000)
    download_corpus.write_tables(rows, {"train": columns}, tmp_path)
    file = tmp_path / "train.parquet"
    groups = pq.read_metadata(file)
    assert [groups.row_group(number).num_rows for number in range(groups.num_row_groups)] == [6, 2]
    assert pq.read_table(file).to_pylist() == [row for _, row in rows]
    assert tokenize.batch_size(file) == tokenize.EXAMPLES_A_BATCH
    monkeypatch.setattr(tokenize, "BYTES_A_BATCH", 600)
    assert 1 <= tokenize.batch_size(file) <= 2
    assert [len(part) for _, part in tokenize.read(file, None)] == [tokenize.batch_size(file)] * (
        8 // tokenize.batch_size(file)
    )


# --- report -------------------------------------------------------------------------------------------------------


def test_the_page_of_very_many_labels_shows_the_first() -> None:
    labels = {f"label{number}": 3 for number in range(5_000)}
    results = make_results()
    results.checks["splits"] = {split: {"examples": 15_000, "labels": labels} for split in ("train", "test")}
    results.checks["unseen_labels"] = {"test": labels}
    told = [*map(str, concerns.unseen(results.checks["unseen_labels"]))]
    html = page.render("text_classification", "many", replace(results, concerns=told))
    assert f"the first {page.MAX_ROWS} of 5,000 labels" in html and "label199<" in html and "label4999" not in html
    assert "label19 (3), and 4,980 others" in html
