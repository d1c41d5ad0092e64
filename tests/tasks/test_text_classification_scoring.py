"""Scores and intervals against scikit-learn and scipy, calibration and tables by hand, baselines and answers."""

import warnings
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, rankdata, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from sklearn.preprocessing import MultiLabelBinarizer

from finetrail.errors import UserError
from finetrail.evaluation.splits import Encoded
from finetrail.schema import Bootstrap
from finetrail.tasks.text_classification import card, scoring, serving, validation
from finetrail.tasks.text_classification.settings import Evaluate

NAMES = ["bad", "fair", "good"]
SINGLE = {"problem": "single_label", "label_names": NAMES}
MULTI = {"problem": "multi_label", "label_names": NAMES}
NUMBER = {"problem": "regression", "label_names": []}
KNOWN = [*NAMES, "odd"]  # and a label that train lacks


def evaluate(**changes: Any) -> Evaluate:
    bootstrap = Bootstrap(samples=100, confidence=0.95, seed=0)
    given: dict[str, Any] = {"batch_size": 2, "bootstrap": bootstrap, "worst_errors": 5}
    return Evaluate(**given | {"pool": "mean", "positive_label": None, "threshold": None} | changes)


def single(references: list[str], predictions: list[str], confidences: Any = None) -> pa.Table:
    sure = [0.5] * len(references) if confidences is None else confidences
    columns = {"references": references, "predictions": predictions, "confidences": pa.array(sure, pa.float32())}
    return pa.table({"id": [str(row) for row in range(len(references))], "text": references} | columns)


def several(references: list[list[str]], predictions: list[list[str]], probabilities: Any = None) -> pa.Table:
    shares = np.full((len(references), 3), 0.5) if probabilities is None else np.array(probabilities)
    kind = pa.list_(pa.string())
    columns = {"references": pa.array(references, kind), "predictions": pa.array(predictions, kind)}
    by_label = pa.StructArray.from_arrays([pa.array(column, pa.float32()) for column in shares.T], NAMES)
    return pa.table({"id": [str(row) for row in range(len(references))]} | columns | {"probabilities": by_label})


def numbers(references: list[float], predictions: list[float]) -> pa.Table:
    return pa.table(
        {"id": [str(row) for row in range(len(references))], "references": references, "predictions": predictions}
    )


def close(expected: Any) -> Any:
    return pytest.approx(expected, rel=0, abs=1e-9)


label = st.sampled_from(KNOWN)
labels = st.lists(label, max_size=3, unique=True)
value = st.integers(-3, 3).map(float)
picks = st.lists(st.integers(0, 30), min_size=1, max_size=12)


def resampled(table: pa.Table, picks: list[int]) -> tuple[pa.Table, np.ndarray]:
    """Return the rows picked, and the same as weights [2, n], the second sample being the whole table."""
    rows = np.array(picks) % len(table)
    return table.take(rows), np.stack([np.bincount(rows, minlength=len(table)), np.ones(len(table), dtype=np.int64)])


def assert_statistics(table: pa.Table, picks: list[int], target: dict[str, Any], chosen: Evaluate) -> None:
    part, weights = resampled(table, picks)
    found = scoring.statistics(scoring.units(table), target, chosen)(weights)
    expected = [scoring.score(one, target, chosen) for one in (part, table)]
    assert found.keys() == expected[0].keys()
    for name, values in found.items():
        assert values == close([one[name] for one in expected]), name


# --- scores -------------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(st.lists(st.tuples(label, label, st.floats(0, 1, width=32)), min_size=1, max_size=12), picks)
def test_single_labels_are_scored_and_resampled_as_scikit_learn(rows: Any, picks: list[int]) -> None:
    references, predictions, confidences = (list(column) for column in zip(*rows, strict=True))
    table, chosen = single(references, predictions, confidences), evaluate(positive_label="good")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the reference, where there is one label in all
        expected = {
            "accuracy": accuracy_score(references, predictions),
            "macro_f1": f1_score(references, predictions, average="macro", zero_division=0),
            "mcc": matthews_corrcoef(references, predictions),
            "f1": f1_score(references, predictions, labels=["good"], average="macro", zero_division=0),
        }
    found = scoring.score(table, SINGLE, chosen)
    assert {name: found[name] for name in expected} == close(expected)
    assert_statistics(table, picks, SINGLE, chosen)


@settings(max_examples=25)
@given(st.lists(st.tuples(labels, labels, st.tuples(*[st.floats(0, 1, width=32)] * 3)), min_size=1, max_size=10), picks)
def test_several_labels_are_scored_as_scikit_learn_does(rows: Any, picks: list[int]) -> None:
    references, predictions, probabilities = (list(column) for column in zip(*rows, strict=True))
    table, chosen = several(references, predictions, probabilities), evaluate(threshold=0.5)
    there = sorted({name for side in (references, predictions) for one in side for name in one})
    binarizer = MultiLabelBinarizer(classes=[*there, "never", "nor this"]).fit([])
    matrices = [binarizer.transform(side) for side in (references, predictions)]
    kept = {"labels": range(len(there) or 1), "zero_division": 0}
    expected = {
        "micro_f1": f1_score(*matrices, average="micro", **kept),
        "macro_f1": f1_score(*matrices, average="macro", **kept),
        "exact_match": accuracy_score(*matrices),
    }
    found = scoring.score(table, MULTI, chosen)
    assert {name: found[name] for name in expected} == close(expected)
    assert_statistics(table, picks, MULTI, chosen)


@settings(max_examples=25)
@given(st.lists(st.tuples(value, value), min_size=2, max_size=12), picks)
def test_numbers_are_correlated_as_scipy_does(rows: Any, picks: list[int]) -> None:
    references, predictions = (list(column) for column in zip(*rows, strict=True))
    found = scoring.score(numbers(references, predictions), NUMBER, evaluate())
    differences = [a - b for a, b in zip(references, predictions, strict=True)]
    assert found["mae"] == close(sum(map(abs, differences)) / len(rows))
    assert found["rmse"] == close((sum(d * d for d in differences) / len(rows)) ** 0.5)
    if len(set(references)) == 1 or len(set(predictions)) == 1:
        assert (found["pearson"], found["spearman"]) == (0, 0)
    else:
        pair = pearsonr(references, predictions).statistic, spearmanr(references, predictions).statistic
        assert (found["pearson"], found["spearman"]) == close(pair)
    assert_statistics(numbers(references, predictions), [*picks, 0, 1], NUMBER, evaluate())


@given(st.lists(value, min_size=1, max_size=12), picks)
def test_ranks_of_repeated_values_are_those_of_the_repeated_list(values: list[float], picks: list[int]) -> None:
    rows = np.sort(np.array(picks) % len(values))
    weights = np.bincount(rows, minlength=len(values))[None]
    ranks = scoring.weighted_ranks(np.array(values), weights)[0]
    assert ranks[rows] == close(rankdata(np.array(values)[rows]))


def test_a_positive_label_that_no_text_has_is_refused() -> None:
    with pytest.raises(
        UserError, match="positive_label: no text of train has the label 'goof'; expected one of bad, fair"
    ):
        scoring.score(single(["bad"], ["bad"]), SINGLE, evaluate(positive_label="goof"))


# --- calibration --------------------------------------------------------------------------------------------------


def test_calibration_by_hand() -> None:
    # Two bins: (0.6, 0.667] with 1 of 2 right, and (0.933, 1] with 2 of 2 right.
    table = single(["bad"] * 4, ["bad", "good", "bad", "bad"], [0.65, 0.65, 0.95, 1.0])
    assert scoring.score(table, SINGLE, evaluate())["ece"] == pytest.approx((2 * 0.15 + 2 * 0.025) / 4)
    assert scoring.tables(table, SINGLE, evaluate())["reliability"] == [
        {"confidence": pytest.approx(0.65), "accuracy": 0.5, "count": 2},
        {"confidence": pytest.approx(0.975), "accuracy": 1.0, "count": 2},
    ]


def test_a_model_whose_confidence_is_its_accuracy_is_calibrated() -> None:
    table = single(["bad"] * 4, ["bad", "bad", "bad", "good"], [0.75] * 4)
    assert scoring.score(table, SINGLE, evaluate())["ece"] == pytest.approx(0, abs=1e-7)


def test_of_several_labels_every_decision_is_in_the_calibration() -> None:
    table = several([["bad"], []], [["bad"], []], [[0.9, 0.1, 0.1], [0.1, 0.1, 0.1]])
    rows = scoring.tables(table, MULTI, evaluate(threshold=0.5))["reliability"]
    assert [(row["accuracy"], row["count"]) for row in rows] == [(0.0, 5), (1.0, 1)]
    assert scoring.score(table, MULTI, evaluate(threshold=0.5))["ece"] == pytest.approx(0.1)


@pytest.mark.parametrize(("confidence", "place"), [(0.0, 0), (0.05, 0), (0.5, 7), (0.95, 14), (1.0, 14)])
def test_fifteen_bins_hold_every_confidence(confidence: float, place: int) -> None:
    bins = scoring._bins(single(["bad"], ["bad"], [confidence]), SINGLE)[0]
    assert np.flatnonzero(bins[:, 0]).tolist() == [place]


# --- predictions --------------------------------------------------------------------------------------------------


class Tokenizer:
    pad_token_id = 0


def predict(
    logits: dict[int, list[float]], rows: list[int], examples: pa.Table, target: Any, **changes: Any
) -> pa.Table:
    """Predict features that are one token each, whose logits are given by token; rows: of their examples."""
    features = pa.table(
        {"example": pa.array(rows, pa.int32()), "input_ids": pa.array([[t] for t in logits], pa.list_(pa.int32()))}
    )

    def forward(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"logits": np.array([logits[token] for token in inputs["input_ids"][:, 0]], dtype=np.float32)}

    return scoring.predict(Encoded(examples, features), {}, target, forward, Tokenizer(), evaluate(**changes))


TEXTS = pa.table({"id": ["a", "b"], "text": ["one", "two"], "label": ["good", "bad"]})
LOGITS = {7: [0.0, 1.0, 0.0], 8: [6.0, 0.0, 0.0], 9: [0.0, 4.0, 0.0], 5: [3.0, 0.0, 0.0]}


@pytest.mark.parametrize(("pool", "expected"), [("mean", ["bad", "fair"]), ("max", ["bad", "fair"])])
def test_the_windows_of_a_text_are_pooled(pool: str, expected: list[str]) -> None:
    # Rows as a limited split has them: 4 and 9 of the corpus. Of text a the windows 7 and 8; of b 9 and 5.
    table = predict(LOGITS, [4, 4, 9, 9], TEXTS, SINGLE, pool=pool)
    assert table["predictions"].to_pylist() == expected
    assert table["references"].to_pylist() == ["good", "bad"]
    pooled = np.array([[3, 0.5, 0], [1.5, 2, 0]] if pool == "mean" else [[6, 1, 0], [3, 4, 0]])
    powers = np.exp(pooled)
    shares = [list(row.values()) for row in table["probabilities"].to_pylist()]
    assert shares == [pytest.approx(row) for row in powers / powers.sum(-1, keepdims=True)]
    assert table["confidences"].to_pylist() == [max(row) for row in shares]


def test_labels_are_those_that_reach_the_threshold() -> None:
    examples = pa.table({"id": ["a", "b"], "text": ["one", "two"], "labels": [["good"], []]})
    logits = {1: [2.0, -2.0, 0.0], 2: [-1.0, -1.0, -1.0]}
    table = predict(logits, [0, 1], examples, MULTI, threshold=0.5)
    assert table["predictions"].to_pylist() == [["bad", "good"], []]
    assert table["confidences"].to_pylist() == [pytest.approx([0.8808, 0.5], abs=1e-4), []]
    table = predict(logits, [0, 1], examples, MULTI, threshold=0.2)
    assert table["predictions"].to_pylist() == [["bad", "good"], NAMES]


def test_a_number_is_the_logit_and_references_may_be_missing() -> None:
    examples = pa.table({"id": ["a"], "text": ["one"], "text_pair": ["two"]})
    table = predict({1: [2.5]}, [0], examples, NUMBER)
    assert table.to_pylist() == [{"id": "a", "text": "one", "text_pair": "two", "references": None, "predictions": 2.5}]


def test_validation_of_training_scores_as_evaluation_does() -> None:
    features = pa.table({"example": [9, 4, 4, 9], "labels": pa.array([0, 2, 2, 0], pa.int32())})
    logits = np.array([LOGITS[9], LOGITS[7], LOGITS[8], LOGITS[5]], dtype=np.float32)  # in another order
    found = validation.validate(logits, features, SINGLE)
    expected = scoring.score(predict(LOGITS, [4, 4, 9, 9], TEXTS, SINGLE), SINGLE, evaluate())
    assert found == close({name: expected[name] for name in found}) and found.keys() == {"accuracy", "macro_f1", "mcc"}


def test_validation_of_several_labels_and_of_numbers() -> None:
    hot = pa.array([[1, 0, 1], [0, 0, 0]], pa.list_(pa.float32()))
    features = pa.table({"example": [0, 1], "labels": hot})
    logits = np.array([[1.0, -1, 1], [-1, 1, -1]], dtype=np.float32)
    found = validation.validate(logits, features, MULTI)
    assert found == close({"micro_f1": 0.8, "macro_f1": 2 / 3, "exact_match": 0.5})
    features = pa.table({"example": [0, 1, 2], "labels": pa.array([1.0, 2.0, 4.0], pa.float32())})
    found = validation.validate(np.array([[1.0], [2.0], [3.0]], dtype=np.float32), features, NUMBER)
    errors = {"mae": 1 / 3, "rmse": (1 / 3) ** 0.5}
    assert found == close({"pearson": pearsonr([1, 2, 4], [1, 2, 3]).statistic, "spearman": 1.0} | errors)


# --- what people look at ------------------------------------------------------------------------------------------


def test_tables_of_single_labels_by_hand() -> None:
    table = single(["good", "good", "odd", "bad"], ["good", "bad", "bad", "bad"])
    tables = scoring.tables(table, SINGLE, evaluate())
    assert tables["per_label"] == [
        {"label": "bad", "precision": close(1 / 3), "recall": 1.0, "f1": 0.5, "support": 1},
        {"label": "good", "precision": 1.0, "recall": 0.5, "f1": close(2 / 3), "support": 2},
        {"label": "odd", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1},
    ]
    assert tables["confusion"] == [
        {"reference": "bad", "prediction": "bad", "count": 1},
        {"reference": "good", "prediction": "bad", "count": 1},
        {"reference": "good", "prediction": "good", "count": 1},
        {"reference": "odd", "prediction": "bad", "count": 1},
    ]


def test_numbers_are_shown_by_tenths_of_the_references() -> None:
    rows = scoring.tables(numbers([3.0, 1.0, 2.0], [3.5, 1.0, 1.0]), NUMBER, evaluate())["by_reference"]
    assert [tuple(row.values()) for row in rows] == [(1.0, 1.0, 0.0, 1), (2.0, 1.0, 1.0, 1), (3.0, 3.5, 0.5, 1)]


def test_worst_errors_are_the_most_confident_and_texts_truncated() -> None:
    table = single(["good", "x" * 400, "bad"], ["bad", "bad", "bad"], [0.6, 0.9, 1.0])
    errors = scoring.worst_errors(table, 5, SINGLE, evaluate())
    assert [(row["id"], row["confidence"]) for row in errors] == [("1", 0.9), ("0", 0.6)]
    assert errors[0]["text"] == "x" * 300 + " ..." and errors[1]["reference"] == "good"
    assert len(scoring.worst_errors(table, 1, SINGLE, evaluate())) == 1


def test_worst_errors_of_several_labels_and_of_numbers() -> None:
    table = several([["bad"], ["good"]], [[], ["good", "fair"]], [[0.05, 0.1, 0.1], [0.1, 0.7, 0.9]])
    errors = scoring.worst_errors(table, 5, MULTI, evaluate(threshold=0.5))
    assert [(row["reference"], row["prediction"], row["confidence"]) for row in errors] == [
        ("bad", "none", 0.95),
        ("good", "good, fair", 0.7),
    ]
    far = scoring.worst_errors(numbers([1.0, 2.0, 3.0], [1.5, 2.0, 0.0]), 5, NUMBER, evaluate())
    assert [(row["id"], row["difference"]) for row in far] == [("2", 3.0), ("0", 0.5)]


# --- baselines ----------------------------------------------------------------------------------------------------


def encoded(**columns: Any) -> Encoded:
    return Encoded(pa.table(columns), pa.table({}))


def test_words_tell_labels_that_the_most_frequent_one_does_not() -> None:
    train = encoded(text=["good film", "a good one!", "good", "bad film", "so bad"], label=["good"] * 3 + ["bad"] * 2)
    test = encoded(text=["good", "bad"], label=["good", "bad"])
    guesses = scoring.baselines(
        train, test, {}, {"problem": "single_label", "label_names": ["bad", "good"]}, evaluate()
    )
    assert guesses["majority"]["predictions"].to_pylist() == ["good", "good"]
    assert guesses["majority"]["confidences"].to_pylist() == pytest.approx([0.6, 0.6])
    assert guesses["tfidf_logistic_regression"]["predictions"].to_pylist() == ["good", "bad"]
    for table in guesses.values():
        assert "ece" in scoring.score(table, {"problem": "single_label", "label_names": ["bad", "good"]}, evaluate())


def test_both_texts_of_a_pair_are_in_the_bag_of_words() -> None:
    train = encoded(text=["a", "a"] * 4, text_pair=["yes", "no"] * 4, label=["good", "bad"] * 4)
    guesses = scoring.baselines(
        train, train, {}, {"problem": "single_label", "label_names": ["bad", "good"]}, evaluate()
    )
    assert guesses["tfidf_logistic_regression"]["predictions"].to_pylist() == ["good", "bad"] * 4


def test_labels_that_are_never_or_always_there_need_no_words() -> None:
    labels = pa.array([["bad"], ["bad", "good"], ["bad"], ["bad", "good"]])
    train = encoded(text=["x", "good", "y", "good!"], labels=labels)
    guesses = scoring.baselines(train, train, {}, MULTI, evaluate(threshold=0.6))
    assert guesses["majority"]["predictions"].to_pylist() == [["bad"]] * 4
    assert guesses["tfidf_logistic_regression"]["predictions"].to_pylist() == labels.to_pylist()
    assert scoring.score(guesses["majority"], MULTI, evaluate(threshold=0.6))["exact_match"] == 0.5


def test_numbers_are_told_as_exactly_as_the_model_gives_them() -> None:
    predicted = [float(np.float32(value)) for value in (3.2, 1050.1236, 0.5)]
    table = pa.table({"text": ["a", "b", "c"], "references": [3.0, 1050.1234, 0.5], "predictions": predicted})
    told = [(row["reference"], row["prediction"]) for row in scoring.outcomes(table, NUMBER, evaluate())]
    assert told == [("3", "3.2"), ("1050.1234", "1050.1237"), ("0.5", "0.5")]


def test_numbers_have_the_mean_and_a_ridge() -> None:
    train = encoded(text=["low", "high", "low", "high"], score=[0.0, 2.0, 0.0, 2.0])
    guesses = scoring.baselines(train, train, {}, NUMBER, evaluate())
    assert guesses["train_mean"]["predictions"].to_pylist() == [1.0] * 4
    of_mean = {"pearson": 0.0, "spearman": 0.0, "mae": 1.0, "rmse": 1.0}
    assert scoring.score(guesses["train_mean"], NUMBER, evaluate()) == of_mean
    assert scoring.score(guesses["tfidf_ridge"], NUMBER, evaluate())["pearson"] == pytest.approx(1)


def test_of_a_large_train_split_a_part_is_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "MOST_FITTED", 2)
    train = encoded(text=["a", "a", "b", "b"], label=["good", "good", "bad", "bad"])
    target = {"problem": "single_label", "label_names": ["bad", "good"]}
    guesses = scoring.baselines(train, train, {}, target, evaluate())
    assert guesses["tfidf_logistic_regression"]["predictions"].to_pylist() == ["good", "good", "bad", "bad"]


def test_one_label_in_what_is_fitted_stops_nothing() -> None:
    train = encoded(text=["a", "b"], label=["good", "good"])
    guesses = scoring.baselines(train, train, {}, SINGLE, evaluate())
    assert guesses["tfidf_logistic_regression"]["predictions"].to_pylist() == ["good", "good"]


# --- serving ------------------------------------------------------------------------------------------------------


def test_inputs_become_examples_with_running_numbers() -> None:
    table = serving.examples([serving.text_input("one"), {"text": "two", "id": "b"}])
    assert table.to_pylist() == [{"id": "0", "text": "one"}, {"id": "b", "text": "two"}]
    assert serving.examples([{"text": "a", "text_pair": "b"}]).to_pylist() == [
        {"id": "0", "text": "a", "text_pair": "b"}
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([{"tekst": "a"}], "input '0': unknown key 'tekst'; expected id, text, text_pair"),
        ([{"text": "a"}, {}], "input '1': there is no text; expected a string"),
        ([{"text": "a", "text_pair": "b"}, {"text": "c"}], "input '1': there is no text_pair"),
        ([{"text": 3}], "input '0': text is 3; expected a string"),
    ],
)
def test_wrong_inputs_are_named(given: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        serving.examples(given)


def test_answers_are_the_predictions_by_name() -> None:
    [answer] = serving.answers(predict({1: [0.0, 5.0, 0.0]}, [0], TEXTS[:1], SINGLE))
    assert (answer["id"], answer["label"]) == ("a", "fair") and answer["confidence"] > 0.9
    assert list(answer["probabilities"]) == NAMES and sum(answer["probabilities"].values()) == pytest.approx(1)
    examples = serving.examples([{"text": "one"}])
    [answer] = serving.answers(predict({1: [0.0, 5.0, -5.0]}, [0], examples, MULTI, threshold=0.5))
    assert answer["labels"] == ["bad", "fair"] and answer["probabilities"]["good"] < 0.1
    assert serving.answers(predict({1: [1.5]}, [0], examples, NUMBER)) == [{"id": "0", "score": 1.5}]


def test_the_card_runs_the_pipeline() -> None:
    compile(card.usage("me/model", None), "usage", "exec")
    assert 'pipeline("text-classification", model="me/model"' in card.usage("me/model", None)
    assert card.labels(SINGLE) == NAMES and card.labels(NUMBER) == []
