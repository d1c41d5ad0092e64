"""Scores against conlleval and scikit-learn, predictions against one sentence at a time, tables by hand."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from finetrail.encoding.tokenizer import load_tokenizer
from finetrail.evaluation.inference import Forward
from finetrail.evaluation.splits import Encoded
from finetrail.tasks.token_classification import encoding, metrics, scoring, serving, validation
from finetrail.tasks.token_classification.settings import Evaluate, Tokenize

IOB2 = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-geo-loc", "I-geo-loc"]
POS = ["NOUN", "VERB", "O", "X"]  # "O" is a part of speech here


# --- scores -------------------------------------------------------------------------------------------------------


def ends(last: str, last_type: str, tag: str, chunk_type: str) -> bool:
    """endOfChunk of the perl script, for B, I and O."""
    return (last + tag) in ("BB", "BO", "IB", "IO") or (last != "O" and last_type != chunk_type)


def starts(last: str, last_type: str, tag: str, chunk_type: str) -> bool:
    """startOfChunk of the perl script, for B, I and O."""
    return (last + tag) in ("BB", "IB", "OB", "OI") or (tag != "O" and last_type != chunk_type)


def conlleval(references: list[list[str]], predictions: list[list[str]]) -> dict[str, Any]:
    """The main loop of the CoNLL-2000 script conlleval: one pass over lines, sentences parted by a line of O."""
    right, found, wanted = Counter[str](), Counter[str](), Counter[str]()
    words = right_words = 0
    last_a, last_b = ("O", ""), ("O", "")
    inside = False
    for sentence in zip(references, predictions, strict=True):
        for index, line in enumerate([*zip(*sentence, strict=True), ("O", "O")]):
            a, b = ((label[0], label[2:]) for label in line)
            end_a, end_b = ends(*last_a, *a), ends(*last_b, *b)
            if inside:
                if end_a and end_b and last_a[1] == last_b[1]:
                    inside = False
                    right[last_a[1]] += 1
                elif end_a != end_b or a[1] != b[1]:
                    inside = False
            start_a, start_b = starts(*last_a, *a), starts(*last_b, *b)
            inside = inside or (start_a and start_b and a[1] == b[1])
            wanted.update([a[1]] * start_a)
            found.update([b[1]] * start_b)
            if index < len(sentence[0]):
                words += 1
                right_words += line[0] == line[1]
            last_a, last_b = a, b
    types = {name: rates(right[name], found[name], wanted[name]) for name in sorted(wanted | found)}
    micro = rates(right.total(), found.total(), wanted.total())
    macro = sum(rate["f1"] for rate in types.values()) / len(types) if types else 0.0
    return {"all": micro | {"accuracy": right_words / words, "macro_f1": macro}, "types": types, "support": wanted}


def rates(right: int, found: int, wanted: int) -> dict[str, float]:
    precision, recall = right / found if found else 0.0, right / wanted if wanted else 0.0
    f1 = 2 * precision * recall / (precision + recall) if right else 0.0
    return {"precision": precision, "recall": recall, "f1": f1}


def pairs(labels: list[str]) -> Any:
    """References and predictions of a few sentences, whatever follows on whatever."""
    sentence = st.lists(st.tuples(st.sampled_from(labels), st.sampled_from(labels)), min_size=1, max_size=8)
    return st.lists(sentence, min_size=1, max_size=5).map(
        lambda sentences: tuple([[pair[side] for pair in sentence] for sentence in sentences] for side in (0, 1))
    )


# The mostly right predictions that random ones never are.
def nearly(labels: list[str]) -> Any:
    return st.tuples(pairs(labels), st.randoms(use_true_random=False)).map(
        lambda drawn: (
            drawn[0][0],
            [
                [a if drawn[1].random() < 0.7 else b for a, b in zip(*both, strict=True)]
                for both in zip(*drawn[0], strict=True)
            ],
        )
    )


def close(expected: Any) -> Any:
    return pytest.approx(expected, rel=0, abs=1e-12)


@settings(max_examples=300)
@given(pairs(IOB2) | nearly(IOB2))
def test_entity_scores_are_those_of_conlleval_in_all_and_by_type(drawn: Any) -> None:
    references, predictions = drawn
    expected = conlleval(references, predictions)
    assert metrics.compute(references, predictions, IOB2) == close(expected["all"])
    counts = metrics.count(references, predictions, IOB2)
    units = metrics.units(references, predictions, IOB2)
    rows = metrics.per_unit(counts.sum(0), units)
    assert {row.pop("label"): row.pop("support") for row in rows} == {name: expected["support"][name] for name in units}
    assert rows == [close(expected["types"][name]) for name in units]


@settings(max_examples=150)
@given(pairs(IOB2) | nearly(IOB2))
def test_scores_from_summed_counts_are_the_scores_of_entities(drawn: Any) -> None:
    assert metrics.scores(metrics.count(*drawn, IOB2).sum(0), IOB2) == close(metrics.compute(*drawn, IOB2))


@settings(max_examples=150)
@given(pairs(POS) | nearly(POS))
def test_single_labels_are_scored_as_scikit_learn_does(drawn: Any) -> None:
    flat = [sum(labels, []) for labels in drawn]
    expected = {"accuracy": accuracy_score(*flat), "macro_f1": f1_score(*flat, average="macro", zero_division=0)}
    assert metrics.compute(*drawn, POS) == close(expected)
    assert metrics.scores(metrics.count(*drawn, POS).sum(0), POS) == close(expected)


@settings(max_examples=50)
@given(nearly(IOB2), st.lists(st.integers(0, 4), min_size=1, max_size=6))
def test_scores_of_resampled_sentences_come_from_their_rows(drawn: Any, picks: list[int]) -> None:
    rows = [pick % len(drawn[0]) for pick in picks]
    resampled = [[sentences[row] for row in rows] for sentences in drawn]
    sums = metrics.count(*drawn, IOB2)[rows].sum(0)
    several = metrics.scores(np.stack([sums, 2 * sums]), IOB2)
    for name, value in metrics.compute(*resampled, IOB2).items():
        assert several[name] == close([value, value])


@pytest.mark.parametrize(
    ("reference", "prediction", "precision", "recall"),
    [
        ("B-PER I-PER O B-LOC", "B-PER I-PER O B-LOC", 1, 1),
        ("B-PER I-PER O B-LOC", "B-PER O O B-LOC", 1 / 2, 1 / 2),  # a part is not the entity
        ("B-PER I-PER", "B-PER B-PER", 0, 0),
        ("B-PER I-PER", "I-PER I-PER", 1, 1),  # I- after O begins a chunk
        ("B-PER I-PER I-PER", "B-PER I-LOC I-PER", 0, 0),  # three chunks
        ("O O", "B-LOC O", 0, 0),
        ("B-LOC O", "O O", 0, 0),
    ],
)
def test_entities_by_hand(reference: str, prediction: str, precision: float, recall: float) -> None:
    scores = metrics.compute([reference.split()], [prediction.split()], IOB2)
    assert (scores["precision"], scores["recall"]) == close((precision, recall))


def test_an_entity_does_not_go_on_in_the_next_sentence() -> None:
    references, predictions = [["B-PER"], ["B-PER"]], [["B-PER"], ["I-PER"]]
    assert metrics.compute(references, predictions, IOB2)["f1"] == 1


def test_a_split_without_any_entity_has_scores() -> None:
    scores = metrics.compute([["O", "O"]], [["O", "O"]], IOB2)
    assert scores == {"f1": 0, "precision": 0, "recall": 0, "accuracy": 1, "macro_f1": 0}
    assert metrics.scores(metrics.count([["O", "O"]], [["O", "O"]], IOB2).sum(0), IOB2) == scores


@pytest.mark.parametrize(
    ("labels", "entities", "headline"),
    [(IOB2, True, "f1"), (["B-PER"], True, "f1"), (POS, False, "accuracy"), (["O", "E-PER"], False, "accuracy")],
)
def test_labels_tell_what_is_scored(labels: list[str], entities: bool, headline: str) -> None:
    assert metrics.has_entities(labels) == entities
    assert scoring.headline(labels, evaluate()) == headline


@pytest.mark.parametrize("labels", [["O", "B-PER", "I-PER"], ["O", "B-", "I-"], ["O"]])
def test_without_a_scheme_iob2_like_labels_are_scored_singly(labels: list[str]) -> None:
    target = {"label_names": labels, "scheme": "none"}
    references, predictions = [["O", "LOC"], [labels[-1], "B-LOC"]], [["O", "O"], [labels[-1], labels[-1]]]

    assert metrics.units(references, predictions, target) == sorted({"O", "LOC", "B-LOC", labels[-1]})
    scores = metrics.compute(references, predictions, target)
    assert scores["accuracy"] == 0.5 and set(scores) == {"accuracy", "macro_f1"}
    counted = metrics.scores(metrics.count(references, predictions, target).sum(0), target)
    assert counted == pytest.approx(scores)
    assert scoring.headline(target, evaluate()) == "accuracy"
    table_ = pa.table({"references": references, "predictions": predictions})
    tables = scoring.tables(table_, target, evaluate())
    assert {row["label"] for row in tables["per_label"]} == {"O", "LOC", "B-LOC", labels[-1]}
    assert {"reference": "LOC", "prediction": "O", "count": 1} in tables["confusion"]


@pytest.mark.parametrize(
    "target", [["O", "COMMA", "PERIOD"], {"label_names": ["O", "B-LOC", "I-LOC"], "scheme": "none"}]
)
def test_answers_without_a_scheme_never_have_entities(target: Any, tiny_wordpiece: Path) -> None:
    sentences = [["Oslo", "Paris"], ["Oslo"]]
    features = encoder(tiny_wordpiece).encode(table(sentences), np.arange(2))
    names = target if isinstance(target, list) else target["label_names"]

    for best, expected in ((0, "O"), (1, names[1])):
        logits = np.eye(3, dtype=np.float32)[best]
        predicted = predict(table(sentences), features, target, always(logits))
        answers = serving.answers(predicted)
        assert all(set(answer["labels"]) == {expected} and "entities" not in answer for answer in answers)
    # With a scheme each answer has them, be they none.
    by_scheme = predict(table(sentences), features, ["O", "B-LOC", "I-LOC"], always(np.eye(3, dtype=np.float32)[0]))
    assert [answer["entities"] for answer in serving.answers(by_scheme)] == [[], []]


def always(logits: np.ndarray) -> Forward:
    """Return a forward that gives each token these logits."""
    return lambda inputs: {"logits": np.tile(logits, (*inputs["input_ids"].shape, 1))}


def test_counts_of_sentences_that_differ_in_length_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        metrics.count([["O", "O"]], [["O"]], IOB2)


# --- predictions --------------------------------------------------------------------------------------------------

NO_SUBWORDS = "\u200b"  # BERT's normalizer removes it
LINES = (
    "Anna lives in New York .",
    NO_SUBWORDS,
    "unbelievable tokenization of uncommon words , 1,024 e-mails and yet more uncommon words",
    f"we {NO_SUBWORDS} saw Jürgen {NO_SUBWORDS}",
    "Oslo",
    "tokenization " * 12,
)
SENTENCES = [line.split() for line in LINES]
NAMES = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
PAD = 0


def table(sentences: list[list[str]], labels: list[list[str]] | None = None) -> pa.Table:
    labels = labels or [["O"] * len(sentence) for sentence in sentences]
    strings = pa.list_(pa.string())
    ids = [f"s{index}" for index in range(len(sentences))]
    return pa.table({"id": ids, "tokens": pa.array(sentences, strings), "labels": pa.array(labels, strings)})


def evaluate(batch_size: int = 4) -> Evaluate:
    bootstrap = {"samples": 100, "confidence": 0.95, "seed": 0}
    return Evaluate.model_validate({"batch_size": batch_size, "bootstrap": bootstrap, "worst_errors": 5})


def predict(
    examples: pa.Table,
    features: pa.Table,
    names: Any = NAMES,
    forward: Forward | None = None,
    batch_size: int = 4,
) -> pa.Table:
    forward = forward or by_neighbours
    tokenizer = SimpleNamespace(pad_token_id=PAD)
    return scoring.predict(Encoded(examples, features), {}, names, forward, tokenizer, evaluate(batch_size))


def by_neighbours(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Logits from each token, its left neighbour and its place, as a causal model's: padding cannot matter."""
    input_ids, attention_mask = inputs["input_ids"], inputs["attention_mask"]
    assert set(inputs) == {"input_ids", "attention_mask"}
    assert (input_ids[attention_mask == 0] == PAD).all()
    assert (np.diff(attention_mask, axis=1) <= 0).all()
    scores = np.random.default_rng(0).normal(size=(1000, len(NAMES)))
    places = np.random.default_rng(1).normal(size=(1000, len(NAMES)))
    left = np.pad(input_ids, ((0, 0), (1, 0)))[:, :-1]
    logits = scores[input_ids] + 0.5 * scores[left] + 0.5 * places[: input_ids.shape[1]]
    return {"logits": logits.astype(np.float32)}


def encoder(folder: Path, label_subwords: Any = "first") -> encoding.Encoder:
    settings = Tokenize.model_construct(max_length=8, stride=2, label_subwords=label_subwords, limit=None)
    return encoding.Encoder(load_tokenizer(folder, 8, pre_split=True), NAMES, settings)


def whole(ids: np.ndarray) -> np.ndarray:
    """Return the logits of a batch without padding."""
    return by_neighbours({"input_ids": ids, "attention_mask": np.ones_like(ids)})["logits"]


def one_at_a_time(encode: encoding.Encoder, sentence: list[str]) -> list[tuple[str, float]]:
    """Label the words of one sentence, window by window, in plain Python."""
    labelled: dict[int, tuple[str, float]] = {}
    for feature in encode.encode(table([sentence]), np.array([0])).to_pylist():
        ids = np.array([feature["input_ids"]])
        logits = whole(ids)[0].astype(np.float64)
        for word, position in zip(feature["words"], feature["positions"], strict=True):
            assert word not in labelled, "a word was scored twice"
            odds = np.exp(logits[position]) / np.exp(logits[position]).sum()
            labelled[word] = (NAMES[int(odds.argmax())], float(odds.max()))
    unseen = {word for word, token in enumerate(sentence) if token == NO_SUBWORDS}
    assert set(labelled) == set(range(len(sentence))) - unseen
    return [labelled.get(word, ("O", 0.0)) for word in range(len(sentence))]


@pytest.mark.parametrize("label_subwords", ["first", "all"])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_every_word_is_labelled_once_as_one_sentence_at_a_time(
    tiny_wordpiece: Path, label_subwords: str, batch_size: int
) -> None:
    encode, examples = encoder(tiny_wordpiece, label_subwords), table(SENTENCES)
    # Rows of the whole split: tokenize.limit leaves gaps.
    features = encode.encode(examples, np.array([3, 5, 6, 10, 11, 40]))
    assert len(features) > len(SENTENCES), "no sentence was long enough for windows"
    predicted = predict(examples, features, batch_size=batch_size)
    expected = [one_at_a_time(encode, sentence) for sentence in SENTENCES]
    assert predicted["id"].to_pylist() == examples["id"].to_pylist()
    assert predicted["tokens"].to_pylist() == SENTENCES
    assert predicted["references"].to_pylist() == examples["labels"].to_pylist()
    assert predicted["predictions"].to_pylist() == [[label for label, _ in sentence] for sentence in expected]
    for found, sentence in zip(predicted["confidences"].to_pylist(), expected, strict=True):
        assert found == pytest.approx([confidence for _, confidence in sentence], abs=1e-6)


def test_chunked_and_sliced_features_give_the_same_predictions(tiny_wordpiece: Path) -> None:
    encode, examples = encoder(tiny_wordpiece), table(SENTENCES)
    features = encode.encode(examples, np.arange(len(SENTENCES)))
    chunks = pa.concat_tables([encode.encode(examples[i : i + 2], np.arange(i, i + 2)) for i in (0, 2, 4)])
    assert chunks["input_ids"].num_chunks == 3
    expected = predict(examples, features)
    assert predict(examples, chunks) == expected
    later = features.filter(pa.compute.greater(features["example"], 1))
    assert predict(examples[2:], later)["predictions"].to_pylist() == expected["predictions"].to_pylist()[2:]


def test_of_equal_logits_the_first_label_wins(tiny_wordpiece: Path) -> None:
    features = encoder(tiny_wordpiece).encode(table(SENTENCES[:1]), np.array([0]))

    def undecided(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"logits": np.zeros((*inputs["input_ids"].shape, 4), dtype=np.float32)}

    predicted = predict(table(SENTENCES[:1]), features, ["A", "B", "C", "D"], undecided)
    assert predicted["predictions"].to_pylist() == [["A"] * 6]
    assert predicted["confidences"].to_pylist() == [[0.25] * 6]


@pytest.mark.parametrize(
    ("first", "later", "expected"),
    [
        ("B-LOC", "I-LOC", ["B-LOC", "I-LOC", "I-LOC"]),
        ("I-LOC", "I-LOC", ["I-LOC", "I-LOC", "I-LOC"]),
        ("B-PER", "I-LOC", ["B-PER", "O", "I-LOC"]),
        ("B-LOC", "B-LOC", ["B-LOC", "O", "B-LOC"]),
        ("O", "I-LOC", ["O", "O", "I-LOC"]),
    ],
)
def test_an_entity_spans_a_word_without_subwords_in_a_sentence(
    tiny_wordpiece: Path, first: str, later: str, expected: list[str]
) -> None:
    examples = table([["Oslo", NO_SUBWORDS, "Oslo", NO_SUBWORDS], [NO_SUBWORDS, "Oslo"]])

    def by_place(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Label the first word `first`, and all later words `later`."""
        size, length = inputs["input_ids"].shape
        labels = [NAMES.index(first)] * 2 + [NAMES.index(later)] * (length - 2)
        return {"logits": np.tile(np.eye(len(NAMES), dtype=np.float32)[labels], (size, 1, 1))}

    features = encoder(tiny_wordpiece).encode(examples, np.arange(2))
    predicted = predict(examples, features, forward=by_place)
    assert predicted["predictions"].to_pylist() == [[*expected, "O"], ["O", first]]


def test_huge_logits_do_not_overflow(tiny_wordpiece: Path) -> None:
    features = encoder(tiny_wordpiece).encode(table([["Oslo"]]), np.array([0]))

    def sure(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"logits": np.tile(np.array([-1e30, 1e30, 0, 0, 0], np.float32), (*inputs["input_ids"].shape, 1))}

    predicted = predict(table([["Oslo"]]), features, forward=sure)
    assert (predicted["predictions"].to_pylist(), predicted["confidences"].to_pylist()) == ([["B-LOC"]], [[1.0]])


def test_validation_scores_words_in_any_feature_order(tiny_wordpiece: Path) -> None:
    """What the Trainer hands over: argmax ids, padded with -100, in the order of the features."""
    draw = np.random.default_rng(2)
    sentences = [sentence for sentence in SENTENCES if NO_SUBWORDS not in sentence]
    examples = table(sentences, [list(draw.choice(NAMES, len(sentence))) for sentence in sentences])
    features = encoder(tiny_wordpiece).encode(examples, np.arange(len(sentences)))
    predicted = predict(examples, features)
    shuffled = features.take(draw.permutation(len(features)))
    ids = np.full((len(features), 8), -100)
    for row, feature in enumerate(shuffled["input_ids"].to_pylist()):
        batch = np.array([feature])
        ids[row, : len(feature)] = whole(batch)[0].argmax(-1)
    validated = validation.validate(ids, shuffled, NAMES)
    assert validated.items() <= scoring.score(predicted, NAMES, evaluate()).items() and "f1" in validated


def test_validation_counts_an_unseen_label_as_an_error(tiny_wordpiece: Path) -> None:
    target = {"label_names": NAMES, "scheme": "none"}
    features = encoder(tiny_wordpiece).encode(table([["Oslo", "Oslo"]], [["LOC", "O"]]), np.array([0]))
    ids = np.zeros((1, 8), dtype=int)

    assert validation.validate(ids, features, target)["accuracy"] == 0.5
    assert validation.validate(ids, features, NAMES)["accuracy"] == 1.0


def test_validation_takes_a_label_that_train_lacks_for_o(tiny_wordpiece: Path) -> None:
    examples = table([["Oslo", "Oslo"]], [["B-NEW", "B-LOC"]])
    features = encoder(tiny_wordpiece).encode(examples, np.array([0]))
    ids = np.zeros((1, 8), dtype=int)
    ids[0, 1:] = NAMES.index("B-LOC")
    expected = metrics.compute([["O", "B-LOC"]], [["B-LOC", "B-LOC"]], NAMES)
    assert features["positions"].to_pylist() == [[1, 2]]
    assert validation.validate(ids, features, NAMES) == expected


# --- tables, errors, baselines ------------------------------------------------------------------------------------

LABELLED = pa.table(
    {
        "id": ["b", "a"],
        "tokens": [["Anna", "met", "Lee", "in", "New", "York"], ["Oslo", "is", "far"]],
        "references": [["B-PER", "O", "B-PER", "O", "B-LOC", "I-LOC"], ["B-LOC", "O", "O"]],
        "predictions": [["B-PER", "O", "B-LOC", "O", "B-LOC", "B-LOC"], ["B-LOC", "B-PER", "O"]],
        "confidences": [[0.9, 0.8, 0.75, 0.6, 0.5, 0.4], [0.9, 0.75, 0.3]],
    }
)


def test_confusion_counts_words_without_their_prefix_by_hand() -> None:
    assert scoring.tables(LABELLED, NAMES, evaluate())["confusion"] == [
        {"reference": "LOC", "prediction": "LOC", "count": 3},
        {"reference": "O", "prediction": "O", "count": 3},
        {"reference": "O", "prediction": "PER", "count": 1},
        {"reference": "PER", "prediction": "LOC", "count": 1},
        {"reference": "PER", "prediction": "PER", "count": 1},
    ]


def test_per_label_by_hand() -> None:
    assert scoring.tables(LABELLED, NAMES, evaluate())["per_label"] == [
        # Found: Lee, New, York, Oslo; expected: New York, Oslo.
        {"label": "LOC", "precision": 0.25, "recall": 0.5, "f1": close(1 / 3), "support": 2},
        {"label": "PER", "precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2},
    ]


def test_parts_of_speech_stay_whole_in_the_tables() -> None:
    predictions = pa.table({"references": [["B-X", "VERB"]], "predictions": [["VERB", "VERB"]]})
    tables = scoring.tables(predictions, ["B-X", "VERB"], evaluate())
    assert [row["reference"] for row in tables["confusion"]] == ["B-X", "VERB"]
    assert [row["label"] for row in tables["per_label"]] == ["B-X", "VERB"]


def test_worst_errors_are_sorted_by_confidence_id_in_context() -> None:
    errors = scoring.worst_errors(LABELLED, 10, NAMES, evaluate())
    assert [(error["id"], error["position"], error["confidence"]) for error in errors] == [
        ("a", 1, 0.75),
        ("b", 2, 0.75),
        ("b", 5, 0.4),
    ]
    assert errors[1] == {
        "id": "b",
        "position": 2,
        "left": "Anna met",
        "token": "Lee",
        "right": "in New York",
        "reference": "B-PER",
        "prediction": "B-LOC",
        "confidence": 0.75,
        "spans": {
            "references": [[0, 4, "PER"], [9, 12, "PER"], [16, 24, "LOC"]],
            "predictions": [[0, 4, "PER"], [9, 12, "LOC"], [16, 19, "LOC"], [20, 24, "LOC"]],
        },
    }
    assert scoring.worst_errors(LABELLED, 1, NAMES, evaluate()) == errors[:1]
    assert scoring.worst_errors(LABELLED, 0, NAMES, evaluate()) == []


def test_the_context_of_an_error_is_six_words_on_each_side() -> None:
    tokens = [str(number) for number in range(20)]
    right, wrong = ["O"] * 20, ["O"] * 10 + ["B-PER"] + ["O"] * 9
    row = {"id": ["x"], "tokens": [tokens], "references": [right], "predictions": [wrong], "confidences": [[0.5] * 20]}
    [error] = scoring.worst_errors(pa.table(row), 5, NAMES, evaluate())
    assert (error["left"], error["token"], error["right"]) == ("4 5 6 7 8 9", "10", "11 12 13 14 15 16")
    assert error["spans"] == {"references": [], "predictions": [[12, 14, "PER"]]}


def baselines(train: pa.Table, split: pa.Table, names: list[str]) -> dict[str, pa.Table]:
    """Return them; features are not looked at."""
    nothing = encoding.FEATURES.empty_table()
    return scoring.baselines(Encoded(train, nothing), Encoded(split, nothing), {}, names, evaluate())


def test_baselines_by_hand() -> None:
    train = table([["York", "is", "York"], ["York", "Lee"]], [["B-LOC", "O", "I-LOC"], ["I-LOC", "B-PER"]])
    # "Lee" once more as a place: of two labels as frequent, the first in the alphabet.
    train = pa.concat_tables([train, table([["Lee"]], [["B-LOC"]])])
    found = baselines(train, table([["Lee", "is", "new"], ["York"]]), NAMES)
    assert list(found) == ["most_frequent_label_of_word", "everything_O"]
    assert found["most_frequent_label_of_word"]["predictions"].to_pylist() == [["B-LOC", "O", "O"], ["I-LOC"]]
    assert found["everything_O"]["predictions"].to_pylist() == [["O"] * 3, ["O"]]
    assert found["everything_O"]["references"].to_pylist() == [["O"] * 3, ["O"]]


def test_without_entities_the_baseline_is_the_majority_label() -> None:
    train = table([["a", "dog", "a", "cat"]], [["DET", "NOUN", "DET", "NOUN"]])
    found = baselines(train, table([["dog", "a", "bird"]]), ["DET", "NOUN"])
    assert list(found) == ["most_frequent_label_of_word", "everything_DET"]
    assert found["most_frequent_label_of_word"]["predictions"].to_pylist() == [["NOUN", "DET", "DET"]]


def test_statistics_give_the_scores_of_any_sentence_weights() -> None:
    to_scores = scoring.statistics(scoring.units(LABELLED), NAMES, evaluate())
    found = to_scores(np.array([[1, 1], [2, 0], [0, 2]]))
    samples = [LABELLED, LABELLED.take([0, 0]), LABELLED.take([1, 1])]
    for name, values in found.items():
        assert values == close([scoring.score(sample, NAMES, evaluate())[name] for sample in samples])
    assert set(found) == set(scoring.score(LABELLED, NAMES, evaluate()))
