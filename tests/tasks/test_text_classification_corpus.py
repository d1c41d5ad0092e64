"""Raw records to texts with their targets, what is counted of them, and what is refused, in one line each."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from conftest import PLAIN_LOSS, toy_settings
from pydantic import ValidationError

from finetrail.corpus.readers import Record
from finetrail.corpus.splits import assemble
from finetrail.errors import UserError
from finetrail.schema import Splits
from finetrail.tasks.text_classification import concerns, corpus
from finetrail.tasks.text_classification.settings import Corpus, Evaluate, Tokenize, Train, check

SPLITS = ("train", "validation", "test")
JSONL = {"format": "jsonl", "columns": {"text": "text", "label": "label"}, "encoding": "utf-8"}
FOLDERS = {"format": "text", "unit": "file", "columns": {"text": "text", "label": "folder"}, "encoding": "utf-8"}


def settings(stratify: str | None = None, **changes: Any) -> Corpus:
    given = {
        "name": "toy",
        "source": {"kind": "file", "path": "toy", "sha256": None},
        "splits": {"train": "a", "validation": 0.2, "test": 0.2, "seed": 0, "stratify": stratify, "group": None},
        "license": None,
        "language": None,
        "reader": JSONL,
        "problem": "single_label",
        "label_separator": None,
        "label_map": None,
        "normalize": "none",
        "unseen_labels": "keep",
    }
    return Corpus.model_validate(given | changes)


def columns(*names: str) -> dict[str, Any]:
    return JSONL | {"columns": {name: name for name in names}}


MULTI: dict[str, Any] = {"problem": "multi_label", "reader": columns("text", "labels")}
NUMBER: dict[str, Any] = {"problem": "regression", "reader": columns("text", "score")}
PAIR: dict[str, Any] = {"reader": columns("text", "text_pair", "label")}


def read(chosen: Corpus, **splits: list[dict[str, Any]]) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any]]:
    """Return the rows of each split and the counts."""
    counts = {split: corpus.Counts() for split in SPLITS}
    rows: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for split, values in splits.items():
        for number, value in enumerate(values):
            for table, row in corpus.rows(split, Record(str(number), f"a:{number + 1}", value), chosen, counts):
                rows[table].append(row)
    return rows, counts


def texts(*pairs: tuple[str, Any], column: str = "label") -> list[dict[str, Any]]:
    return [{"text": text, column: target} for text, target in pairs]


# --- rows ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "value", "expected"),
    [
        ({}, {"text": "a", "label": "x"}, {"text": "a", "label": "x"}),
        ({}, {"text": "a", "label": 1}, {"text": "a", "label": "1"}),
        ({}, {"text": "a", "label": True}, {"text": "a", "label": "true"}),
        ({"label_map": {"1": "yes"}}, {"text": "a", "label": 1}, {"text": "a", "label": "yes"}),
        ({"label_map": "strip"}, {"text": "a", "label": "\u00a0pos "}, {"text": "a", "label": "pos"}),
        (MULTI | {"label_map": "strip"}, {"text": "a", "labels": ["x ", "x"]}, {"text": "a", "labels": ["x"]}),
        (PAIR, {"text": "a", "text_pair": "b", "label": "x"}, {"text": "a", "text_pair": "b", "label": "x"}),
        (MULTI, {"text": "a", "labels": ["x", "y", "x"]}, {"text": "a", "labels": ["x", "y"]}),
        (MULTI, {"text": "a", "labels": []}, {"text": "a", "labels": []}),
        (MULTI | {"label_separator": ";"}, {"text": "a", "labels": "x; y"}, {"text": "a", "labels": ["x", "y"]}),
        (MULTI | {"label_separator": ";"}, {"text": "a", "labels": " "}, {"text": "a", "labels": []}),
        (NUMBER, {"text": "a", "score": "2.5"}, {"text": "a", "score": 2.5}),
        (NUMBER, {"text": "a", "score": -1}, {"text": "a", "score": -1.0}),
        ({"normalize": "nfc"}, {"text": "\u1112\u1161\u11ab", "label": "x"}, {"text": "\ud55c", "label": "x"}),
        ({}, {"text": "\u1112\u1161\u11ab", "label": "x"}, {"text": "\u1112\u1161\u11ab", "label": "x"}),
    ],
)
def test_a_record_becomes_a_row(changes: dict[str, Any], value: dict[str, Any], expected: dict[str, Any]) -> None:
    chosen = settings(**changes)
    rows, _ = read(chosen, train=[value])
    assert rows["train"] == [{"id": "0"} | expected]
    assert pa.Table.from_pylist(rows["train"], corpus.tables(chosen)["train"]).to_pylist() == rows["train"]
    assert list(corpus.tables(chosen)) == list(SPLITS)
    metadata = {b"normalize": b"nfc"} if chosen.normalize == "nfc" else None
    assert all(schema.metadata == metadata for schema in corpus.tables(chosen).values())


@pytest.mark.parametrize("separator", [";", None])
def test_labels_of_a_text_are_one_stratum_in_any_order(separator: str | None) -> None:
    given = ["b; a", "a;b", "a;b;a", "a; b"] if separator else [["b", "a"], ["a", "b"], ["a", "b", "a"], ["a", "b"]]
    values = [{"text": str(n), "labels": given[n % 4] if n < 16 else "c" if separator else ["c"]} for n in range(20)]
    chosen = settings(**MULTI | {"label_separator": separator})
    whole = [Record(str(n), f"a:{n}", value) for n, value in enumerate(values)]
    drawn = Splits(train="tr", validation=0.25, test=0.25, seed=0, stratify="labels", group=None)

    found = [
        (split, sorted(set(record.values["labels"])))
        for split, record in assemble(drawn, lambda _: corpus.records(lambda: iter(whole), chosen))
    ]

    assert Counter((split, *labels) for split, labels in found) == {
        ("train", "a", "b"): 8,
        ("train", "c"): 2,
        ("validation", "a", "b"): 4,
        ("validation", "c"): 1,
        ("test", "a", "b"): 4,
        ("test", "c"): 1,
    }


@pytest.mark.parametrize("text", ["", " \t\n", None])
def test_blank_texts_are_left_out_and_counted(text: str | None) -> None:
    rows, counts = read(settings(**PAIR), train=[{"text": "a", "text_pair": text, "label": "x"}])
    assert rows["train"] == [] and counts["train"].empty_examples == 1


@pytest.mark.parametrize(
    ("changes", "value", "message"),
    [
        ({}, {"text": 3, "label": "x"}, "a:1: example '0': text is 3; expected a string"),
        ({}, {"text": "a", "label": ""}, "the label is ''; expected a name or a whole number"),
        ({}, {"text": "a", "label": 1.5}, "the label is 1.5; expected a name or a whole number"),
        ({}, {"text": "a", "label": None}, "the label is None; expected a name"),
        (
            {"label_map": {"0": "a", "1": "b"}},
            {"text": "a", "label": "2"},
            "the label is '2'; corpus.label_map has '0', '1'",
        ),
        (
            MULTI,
            {"text": "a", "labels": "x;y"},
            "labels is 'x;y'; expected a list, or a string and corpus.label_separator",
        ),
        (MULTI, {"text": "a", "labels": ["x", ""]}, "the label is ''; expected a name"),
        (MULTI | {"label_separator": ";"}, {"text": "a", "labels": "x;;y"}, "the label is ''; expected a name"),
        (NUMBER, {"text": "a", "score": "high"}, "the score is 'high'; expected a finite number"),
        (NUMBER, {"text": "a", "score": "nan"}, "the score is 'nan'; expected a finite number"),
        (NUMBER, {"text": "a", "score": True}, "the score is True; expected a finite number"),
        (NUMBER, {"text": "a", "score": None}, "the score is None; expected a finite number"),
    ],
)
def test_what_is_no_text_or_no_target_is_refused_with_its_place(
    changes: dict[str, Any], value: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as error:
        read(settings(**changes), train=[value])
    assert message in str(error.value) and str(error.value).startswith("a:1: example '0': ")


# --- checks -------------------------------------------------------------------------------------------------------


def test_what_is_known_of_the_splits_by_hand() -> None:
    chosen = settings()
    _, counts = read(
        chosen,
        train=texts(("a", "x"), ("a", "x"), ("b", "x"), ("b", "y"), (" ", "x")),
        validation=texts(("b", "x"), ("c", "z")),
        test=texts(("c", "z"), ("a", "y")),
    )
    checks = corpus.checks(counts, chosen)
    assert checks["splits"]["train"] == {
        "examples": 4,
        "characters": 4,
        "empty_examples": 1,
        "duplicates": 2,
        "contradictions": 1,
        "labels": {"x": 3, "y": 1},
    }
    assert checks["leakage"] == {"train/validation": 1, "train/test": 1, "validation/test": 1}
    assert checks["unseen_labels"] == {"validation": {"z": 1}, "test": {"z": 1}}
    assert corpus.summary(counts["train"], chosen) == "4 texts, 2 labels: x 75.0%, y 25.0%"
    assert [*map(str, concerns.of_corpus(checks))] == [
        "train: examples without text, left out: 1",
        "train: texts that occur with different targets: 1",
        "train: texts that repeat an earlier one of their split: 2",
        "validation: texts that also occur in train: 1",
        "test: texts that also occur in train: 1",
        "test: texts that also occur in validation: 1",
        "validation: labels that train lacks and no model will predict: z (1)",
        "test: labels that train lacks and no model will predict: z (1)",
    ]


def test_a_pair_is_its_two_texts_in_order_and_not_their_join() -> None:
    pairs = [{"text": a, "text_pair": b, "label": "x"} for a, b in (("a b", "c"), ("a", "b c"), ("c", "a b"))]
    _, counts = read(settings(**PAIR), train=pairs, test=pairs[:1])
    assert corpus.checks(counts, settings(**PAIR))["splits"]["train"]["duplicates"] == 0
    assert corpus.checks(counts, settings(**PAIR))["leakage"]["train/test"] == 1
    assert corpus.summary(counts["train"], settings(**PAIR)).startswith("3 pairs, 1 labels")


def test_the_order_of_labels_is_no_contradiction() -> None:
    _, counts = read(settings(**MULTI), train=texts(("a", ["x", "y"]), ("a", ["y", "x"]), ("b", []), column="labels"))
    checks = corpus.checks(counts, settings(**MULTI))["splits"]["train"]
    assert (checks["duplicates"], checks["contradictions"], checks["labels"]) == (1, 0, {"x": 2, "y": 2})


def test_scores_have_a_range_and_a_mean() -> None:
    _, counts = read(settings(**NUMBER), **{split: texts(("a", 1), ("b", "4"), column="score") for split in SPLITS})
    checks = corpus.checks(counts, settings(**NUMBER))
    assert checks["splits"]["test"]["scores"] == {"lowest": 1.0, "highest": 4.0, "mean": 2.5}
    assert "labels" not in checks["splits"]["test"]
    assert corpus.summary(counts["test"], settings(**NUMBER)) == "2 texts, scores from 1 to 4, mean 2.5"
    assert len([*map(str, concerns.of_corpus(checks))]) == 3  # leakage alone


def test_imbalance_is_told() -> None:
    _, counts = read(settings(), train=texts(*((str(n), "x") for n in range(11)), ("z", "y")))
    found = [*map(str, concerns.of_corpus(corpus.checks(counts, settings())))]
    assert "train: imbalanced: x occurs 11 times, y 1" in found


def test_of_many_labels_the_frequent_and_the_rarest_are_shown() -> None:
    rows = [(f"{label}{n}", f"l{label:02}") for label in range(12) for n in range(12 - label)]
    _, counts = read(settings(), train=texts(*rows))
    summary = corpus.summary(counts["train"], settings())
    assert "12 labels: l00 15.4%" in summary and summary.endswith("l08 5.1%, ..., l11 1.3%")


def test_labels_that_may_be_meant_as_one_are_warned_of() -> None:
    rows = {"train": texts(("a", "pos"), ("b", "pos "), ("c", "neg")), "test": texts(("d", "Pos"), ("e", "neg"))}
    many = {"train": texts(("a", ["x"]), ("b", ["X", "y"]), column="labels")}
    for chosen, given, expected in (
        (settings(), rows, "'Pos' (1), 'pos' (1), 'pos ' (1)"),
        (settings(problem="multi_label", reader=several("labels")), many, "'X' (1), 'x' (1)"),
    ):
        lines = [*map(str, concerns.of_corpus(corpus.checks(read(chosen, **given)[1], chosen)))]
        assert [line for line in lines if "alone" in line] == [
            f"labels that differ in blanks, case or Unicode form alone: {expected}"
        ]


def several(column: str) -> dict[str, Any]:
    return JSONL | {"columns": {"text": "text", column: column}}


def test_unseen_labels_can_be_refused() -> None:
    chosen = settings(unseen_labels="refuse")
    _, counts = read(chosen, train=texts(("a", "x")), test=texts(("b", "y")))
    with pytest.raises(UserError, match="test: example '0' has the label 'y', which train lacks; expected .* keep"):
        corpus.checks(counts, chosen)


# --- settings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"reader": columns("text", "labels")},
            "a single_label corpus needs label and text, and may have text_pair, id, candidate, that of splits",
        ),
        ({"reader": columns("text", "label", "date")}, "reader.columns has date, label, text; a single_label"),
        ({"problem": "regression"}, "a regression corpus needs score and text"),
        ({"stratify": "labels"}, "splits.stratify: 'labels' is not one of reader.columns"),
        ({"label_separator": ";"}, "label_separator goes with problem multi_label, not single_label"),
        (
            {"problem": "multi_label", "reader": FOLDERS | {"columns": {"text": "text", "labels": "folder"}}},
            "label_separator is null, and text has no lists",
        ),
        (NUMBER | {"label_map": "strip"}, "label_map: a regression corpus has scores and no labels"),
        (
            {"label_map": {0: "no", 1: "yes"}},
            "quote values that YAML reads as a number or a boolean, such as '0': negative; got {0",
        ),
        ({"label_map": {True: "yes"}}, "reads as a number or a boolean, such as '0': negative; got {True"),
        ({"label_map": {}}, "expected strip, null, or for each value in the files the name of its label"),
        (NUMBER | {"label_map": {"a": "b"}}, "label_map: a regression corpus has scores and no labels"),
    ],
)
def test_a_corpus_section_is_consistent(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings(**changes)


def recipe(
    train: str = "accuracy",
    problem: str = "single_label",
    overflow: str = "head",
    loss: dict[str, Any] = PLAIN_LOSS,
    label_map: Any = None,
    **evaluate: Any,
) -> Any:
    target = {"single_label": "label", "multi_label": "labels", "regression": "score"}[problem]
    names = ("text", "text_pair", target) if overflow == "tail" else ("text", target)
    bootstrap = {"samples": 100, "confidence": 0.95, "seed": 0}
    given = {"batch_size": 2, "bootstrap": bootstrap, "worst_errors": 5, "pool": "mean"}
    stride = 2 if overflow == "windows" else None
    return SimpleNamespace(
        corpus=settings(problem=problem, reader=columns(*names), label_map=label_map),
        model=SimpleNamespace(source=SimpleNamespace(kind="hub")),
        tokenize=Tokenize(
            engine="local", num_proc=1, max_length=16, overflow=overflow, head_tokens=None, stride=stride, limit=None
        ),
        train=Train(**toy_settings(best_metric=train, **loss)),
        evaluate=Evaluate(**given | {"positive_label": None, "threshold": None} | evaluate),
    )


@pytest.mark.parametrize(
    "given",
    [
        recipe("loss"),
        recipe("mcc", positive_label="x"),
        recipe("micro_f1", "multi_label", threshold=0.5),
        recipe("spearman", "regression", overflow="windows"),
        recipe(overflow="tail"),
        recipe(loss={"label_smoothing": 0.1, "class_weights": "balanced"}),
        recipe(
            label_map={"1": "yes", "0": "no"}, positive_label="yes", loss=PLAIN_LOSS | {"class_weights": {"no": 2.0}}
        ),
        recipe(label_map="strip", positive_label="yes"),
    ],
)
def test_sections_that_go_together_pass(given: Any) -> None:
    assert list(check(given)) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            recipe("f1"),
            "best_metric: 'f1' does not go with corpus.problem single_label; expected one of loss, accuracy",
        ),
        (recipe("accuracy", "regression"), "expected one of loss, pearson, spearman, mae, rmse"),
        (recipe("loss", "regression", positive_label="x"), "positive_label goes with corpus.problem single_label"),
        (recipe("loss", "multi_label"), "evaluate.threshold: expected a number for multi_label"),
        (
            recipe("loss", "regression", loss=PLAIN_LOSS | {"label_smoothing": 0.1}),
            "train.label_smoothing and train.class_weights go with corpus.problem single_label, not regression",
        ),
        (
            recipe("loss", "multi_label", loss=PLAIN_LOSS | {"class_weights": {"x": 2.0}}, threshold=0.5),
            "train.class_weights go with corpus.problem single_label, not multi_label; expected 0.0 and null",
        ),
        (recipe("loss", threshold=0.5), "evaluate.threshold: expected null, as it is for multi_label"),
        (
            recipe(label_map={"1": "yes", "0": "no"}, positive_label="1"),
            "evaluate.positive_label: '1' is no label of corpus.label_map; expected one of no, yes",
        ),
        (
            recipe(label_map={"1": "yes", "0": "no"}, loss=PLAIN_LOSS | {"class_weights": {"no": 2.0, "1": 1.0}}),
            "train.class_weights: '1' is no label of corpus.label_map; expected one of no, yes",
        ),
    ],
)
def test_sections_that_contradict_each_other_are_told(given: Any, message: str) -> None:
    [problem] = check(given)
    assert message in problem


def test_windows_are_not_for_pairs() -> None:
    given = recipe(overflow="tail")
    given.tokenize = recipe(overflow="windows").tokenize
    assert list(check(given)) == ["tokenize.overflow: windows does not support pairs; expected head or tail"]
