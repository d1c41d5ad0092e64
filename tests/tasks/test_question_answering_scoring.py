"""Decoding against every span written out, scores against the official scripts, tables and baselines by hand."""

import json
import math
import re
import string
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import real
from hypothesis import given, settings
from hypothesis import strategies as st

from finetrail.evaluation.splits import Encoded
from finetrail.tasks.question_answering import corpus, encoding, scoring
from finetrail.tasks.question_answering.settings import Evaluate, Tokenize

ROOT = Path(__file__).parents[2]
TARGET = {"unanswerable": True}
SCRIPTS = ("squad", "squad2", "korquad")


def how(**changes: Any) -> Evaluate:
    values = {"batch_size": 3, "n_best": 5, "max_answer_length": 4, "null_threshold": None, "script": "squad"}
    return Evaluate.model_construct(**values | changes)


# --- decoding -------------------------------------------------------------------------------------------------------

logits = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), max_size=12)


@given(logits, st.integers(1, 30), st.integers(1, 12))
def test_best_spans_are_the_best_of_all(drawn: list[tuple[int, int]], n_best: int, max_length: int) -> None:
    start, end = (np.array([pair[side] for pair in drawn], dtype=np.float32) for side in (0, 1))
    start[start == -3] = end[end == 3] = -np.inf

    scores, first, last = scoring.best_spans(start, end, n_best, max_length)

    spans = [
        (-float(start[a] + end[b]), a, b)
        for a in range(len(drawn))
        for b in range(a, min(a + max_length, len(drawn)))
        if start[a] + end[b] > -np.inf
    ]
    assert list(zip(-scores, first, last, strict=True)) == sorted(spans)[:n_best]


def test_a_longest_answer_beyond_the_window_takes_no_memory() -> None:
    logits = np.arange(4.0)
    found, expected = (scoring.best_spans(logits, logits, 3, longest) for longest in (10**12, 4))
    assert [values.tolist() for values in found] == [values.tolist() for values in expected]


def encoded(
    folder: Path, examples: list[tuple[str, str, list[str] | None]], max_length: int, stride: int
) -> tuple[Any, Encoded]:
    """Return the tokenizer, and the examples with their features; answers are at their first occurrence."""
    settings = Tokenize.model_construct(max_length=max_length, stride=stride, max_question_length=6, limit=None)
    tokenizer = encoding.load_tokenizer(folder, settings, lambda: iter([]))
    rows = [
        {
            "id": f"q{number}",
            "title": None,
            "question": question,
            "context": context,
            "answers": None if answers is None else [{"text": a, "start": context.index(a)} for a in answers],
        }
        for number, (question, context, answers) in enumerate(examples)
    ]
    table = pa.Table.from_pylist(rows, corpus.SCHEMA)
    features = encoding.Encoder(tokenizer, TARGET, settings).encode(table, np.arange(len(rows)) * 7)
    return tokenizer, Encoded(table, features)


def from_features(split: Encoded, logits: Callable[[dict[str, Any]], tuple[np.ndarray, np.ndarray]]) -> Any:
    """Return a model whose logits are a function of the feature, and of nothing that padding or batches change."""
    known = {tuple(feature["input_ids"]): feature for feature in split.features.to_pylist()}

    def forward(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = {
            name: np.full(inputs["input_ids"].shape, 99.0, dtype=np.float32) for name in ("start_logits", "end_logits")
        }
        for row, (ids, mask) in enumerate(zip(inputs["input_ids"], inputs["attention_mask"], strict=True)):
            feature = known[tuple(ids[mask == 1].tolist())]
            for name, values in zip(outputs, logits(feature), strict=True):
                outputs[name][row, : len(values)] = values
        return outputs

    return forward


def random_logits(feature: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(feature["input_ids"])
    start, end = (draw.normal(size=len(feature["input_ids"])).astype(np.float32) for _ in range(2))
    return start, end


def oracle(feature: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    start, end = (np.zeros(len(feature["input_ids"]), dtype=np.float32) for _ in range(2))
    start[feature["start_positions"]] = end[feature["end_positions"]] = 8
    return start, end


CONTEXT = "Anna 🙂 lives near New York , a friend lives in Oslo . Kofi met Jürgen in São Paulo , the café was closed ."
ASKED = [
    ("who lives in New York ?", CONTEXT, ["Anna"]),
    ("near where ?", CONTEXT, ["New York", "York"]),
    ("was it closed ?", CONTEXT, ["café was closed"]),
    ("who", "서울 에 갔다 .", ["서울"]),
    ("who met Jürgen ?", CONTEXT[54:], ["Kofi"]),
    ("where is Paris ?", CONTEXT, []),
    ("unknown ?", CONTEXT, None),
]
KINDS = ("tiny_wordpiece", "tiny_bpe", "tiny_sentencepiece")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_length", [20, 64])
def test_a_model_that_knows_the_answers_gives_them(kind: str, max_length: int, request: pytest.FixtureRequest) -> None:
    asked = [example for example in ASKED if example[2] is not None]
    tokenizer, split = encoded(request.getfixturevalue(kind), asked, max_length, 8)
    assert (len(split.features) > len(asked)) == (max_length == 20)

    # A window without the answer points at its first token: none of its spans has a better score than 0.
    found = scoring.predict(
        split, {}, TARGET, from_features(split, oracle), tokenizer, how(null_threshold=0.0, max_answer_length=16)
    )

    rows = found.to_pylist()
    assert [row["predictions"] for row in rows] == [answers[0] if answers else "" for _, _, answers in asked]
    for row, (_, context, answers) in zip(rows, asked, strict=True):
        assert row["references"] == answers
        assert row["starts"] == (context.index(answers[0]) if answers else None)
    assert rows[5]["null_scores"] == 16.0 and rows[5]["confidences"] > 0.9
    assert rows[5]["n_best"][0] == {"text": "", "start": None, "end": None, "confidence": rows[5]["confidences"]}


def spans_of(split: Encoded, settings: Evaluate, windows: list[int]) -> tuple[dict[tuple[int, int], float], float]:
    """Write out every span of some windows, and their lowest null score."""
    best: dict[tuple[int, int], float] = {}
    null = np.inf
    for feature in split.features.take(windows).to_pylist():
        start, end = random_logits(feature)
        null = min(null, float(start[0] + end[0]))
        units: dict[tuple[int, int], list[float]] = {}  # tokens of the same characters are one
        for token, place in enumerate(zip(feature["starts"], feature["ends"], strict=True), feature["context_start"]):
            old = units.setdefault(place, [-np.inf, -np.inf])
            units[place] = [max(old[0], start[token]), max(old[1], end[token])]
        places = list(units)
        for a, one in enumerate(places):
            for other in places[a : a + settings.max_answer_length]:
                if one[0] < one[1] and other[0] < other[1]:
                    span, score = (one[0], other[1]), float(units[one][0] + units[other][1])
                    best[span] = max(score, best.get(span, -np.inf))
    return best, null


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threshold", [None, 0.5])
def test_answers_are_the_best_spans_within_one_window(
    kind: str, threshold: float | None, request: pytest.FixtureRequest
) -> None:
    tokenizer, split = encoded(request.getfixturevalue(kind), ASKED, 20, 4)
    settings = how(null_threshold=threshold, n_best=7)

    found = scoring.predict(split, {}, TARGET, from_features(split, random_logits), tokenizer, settings).to_pylist()

    for number, row in enumerate(found):
        windows = np.flatnonzero(split.features["example"].to_numpy() == 7 * number).tolist()
        best, null = spans_of(split, settings, windows)
        spans = sorted(best, key=lambda span: (-best[span], span))[:7]
        assert row["null_scores"] == pytest.approx(null - best[spans[0]])
        refused = threshold is not None and null - best[spans[0]] > threshold
        expected: list[Any] = (
            [(CONTEXT[:0], None, None)] if refused else [(row["context"][slice(*spans[0])], *spans[0])]
        )
        assert (row["predictions"], row["starts"]) == expected[0][:2]
        candidates = [(row["context"][a:b], a, b, best[a, b]) for a, b in spans]
        candidates += [] if threshold is None else [("", None, None, null)]
        candidates.sort(key=lambda span: -span[3])
        weights = np.exp([score for *_, score in candidates])
        assert [(s["text"], s["start"], s["end"]) for s in row["n_best"]] == [span[:3] for span in candidates]
        assert [s["confidence"] for s in row["n_best"]] == pytest.approx(weights / weights.sum())
        chosen = [
            s["confidence"] for s in row["n_best"] if s["text"] == row["predictions"] and s["start"] == row["starts"]
        ]
        assert [row["confidences"]] == chosen


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_answers_do_not_depend_on_batches(tiny_bpe: Path, batch_size: int) -> None:
    tokenizer, split = encoded(tiny_bpe, ASKED, 20, 4)
    forward = from_features(split, random_logits)

    found = scoring.predict(split, {}, TARGET, forward, tokenizer, how(batch_size=batch_size))

    assert found == scoring.predict(split, {}, TARGET, forward, tokenizer, how())
    assert found["references"].to_pylist()[-2:] == [[], None]


def test_of_equal_scores_the_earlier_shorter_span_wins(tiny_wordpiece: Path) -> None:
    tokenizer, split = encoded(tiny_wordpiece, [("who", "Anna lives in Oslo", ["Oslo"])], 20, 4)

    def flat(feature: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        zeros = np.zeros(len(feature["input_ids"]), dtype=np.float32)
        return zeros, zeros

    [row] = scoring.predict(split, {}, TARGET, from_features(split, flat), tokenizer, how(n_best=3)).to_pylist()

    assert [span["text"] for span in row["n_best"]] == ["Anna", "Anna lives", "Anna lives in"]
    assert (row["predictions"], row["null_scores"]) == ("Anna", 0.0)
    assert row["confidences"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("threshold", [None, 100.0])
def test_a_context_without_tokens_gets_no_answer(tiny_wordpiece: Path, threshold: float | None) -> None:
    tokenizer, split = encoded(tiny_wordpiece, [("who", "\u200b", []), ("who", "Oslo", ["Oslo"])], 20, 4)
    settings = how(null_threshold=threshold)

    first, second = scoring.predict(split, {}, TARGET, from_features(split, oracle), tokenizer, settings).to_pylist()

    assert (first["predictions"], first["starts"], second["predictions"]) == ("", None, "Oslo")
    assert first["confidences"] == (0.0 if threshold is None else 1.0)
    assert len(first["n_best"]) == (threshold is not None)


def settled(split: Encoded, tokenizer: Any, target: dict[str, bool], **changes: Any) -> Any:
    """Predict a split as validation and as test, and settle what is left open; return what settle() returns."""
    settings = how(n_best=7, **changes)
    found = scoring.predict(split, {}, target, from_features(split, random_logits), tokenizer, settings)
    return scoring.settle({"validation": found, "test": found.slice(1)}, target, settings)


@pytest.mark.parametrize("kind", KINDS)
def test_auto_is_the_threshold_that_is_best_on_validation(kind: str, request: pytest.FixtureRequest) -> None:
    asked = [example for example in ASKED if example[2] is not None]
    asked += [("nobody ?", CONTEXT[n:], []) for n in (10, 30, 54)]
    tokenizer, split = encoded(request.getfixturevalue(kind), asked, 20, 4)
    forward = from_features(split, random_logits)

    values, found, notes = settled(split, tokenizer, TARGET, null_threshold="auto", script="squad2")

    def at(threshold: float) -> pa.Table:
        return scoring.predict(split, {}, TARGET, forward, tokenizer, how(null_threshold=threshold, n_best=7))

    every = [float("-inf"), *at(0.0)["null_scores"].to_pylist()]
    best = max(scoring.score(at(threshold), TARGET, how(script="squad2"))["f1"] for threshold in every)
    expected = at(values["null_threshold"])
    assert found["validation"] == expected and found["test"] == expected.slice(1)
    assert scoring.score(expected, TARGET, how(script="squad2"))["f1"] == pytest.approx(best) and best > 0.3
    assert not notes or not any(expected["predictions"].to_pylist())


def test_auto_answers_each_question_where_train_has_answers(tiny_wordpiece: Path) -> None:
    target = {"unanswerable": False}
    tokenizer, split = encoded(tiny_wordpiece, [example for example in ASKED if example[2]], 20, 4)

    values, found, notes = settled(split, tokenizer, target, null_threshold="auto", script="squad2")

    always = scoring.predict(split, {}, target, from_features(split, random_logits), tokenizer, how(n_best=7))
    assert (values, notes) == ({"null_threshold": None}, [])
    assert found["validation"] == always and all(always["predictions"].to_pylist())


@pytest.mark.parametrize(
    ("unanswerable", "changes", "expected"),
    [
        (False, {"null_threshold": 0.0, "script": "squad2"}, ["each question of train has an answer, and .* 0 lets"]),
        (True, {"null_threshold": None, "script": "squad2"}, ["train has questions without an answer, and .* null"]),
        (True, {"null_threshold": 0.0, "script": "korquad"}, ["korquad has no rule .* .1 of validation and 1 of test"]),
        (True, {"null_threshold": 0.0, "script": "squad2"}, []),
        (False, {"null_threshold": None, "script": "squad2"}, []),
    ],
)
def test_what_does_not_fit_the_corpus_is_told(
    unanswerable: bool, changes: dict[str, Any], expected: list[str], tiny_wordpiece: Path
) -> None:
    answerable = [example for example in ASKED if example[2]]
    without = [("where is Paris ?", CONTEXT, [])] if unanswerable else []
    tokenizer, split = encoded(tiny_wordpiece, answerable + without, 20, 4)

    values, _, notes = settled(split, tokenizer, {"unanswerable": unanswerable}, **changes)

    assert values == {} and len(notes) == len(expected)
    for note, pattern in zip(notes, expected, strict=True):
        assert re.search(pattern, note) and "; expected " in note


# --- scores ---------------------------------------------------------------------------------------------------------
# The official scripts, written down from their text: evaluate-v1.1.py and evaluate-v2.0.py of SQuAD, evaluate-v1.0.py
# of KorQuAD. Percentages there.


def squad_normalize(text: str) -> str:
    text = "".join(ch for ch in text.lower() if ch not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def korquad_normalize(text: str) -> str:
    for sign in ("'", '"', "《", "》", "<", ">", "〈", "〉", r"\(", r"\)", "‘", "’"):
        text = re.sub(sign, " ", text)
    return " ".join("".join(ch for ch in text.lower() if ch not in set(string.punctuation)).split())


def overlap(predicted: list[str], expected: list[str]) -> float:
    same = sum((Counter(predicted) & Counter(expected)).values())
    if same == 0:
        return 0
    precision, recall = same / len(predicted), same / len(expected)
    return (2 * precision * recall) / (precision + recall)


def squad_v1(predictions: list[str], references: list[list[str]]) -> tuple[float, float]:
    exact = f1 = 0.0
    for prediction, golds in zip(predictions, references, strict=True):
        exact += max(squad_normalize(prediction) == squad_normalize(gold) for gold in golds)
        f1 += max(overlap(squad_normalize(prediction).split(), squad_normalize(gold).split()) for gold in golds)
    return 100 * exact / len(predictions), 100 * f1 / len(predictions)


def korquad_v1(predictions: list[str], references: list[list[str]]) -> tuple[float, float]:
    def characters(text: str) -> list[str]:
        return [character for token in korquad_normalize(text).split() for character in token]

    exact = f1 = 0.0
    for prediction, golds in zip(predictions, references, strict=True):
        exact += max(korquad_normalize(prediction) == korquad_normalize(gold) for gold in golds)
        f1 += max(overlap(characters(prediction), characters(gold)) for gold in golds)
    return 100 * exact / len(predictions), 100 * f1 / len(predictions)


def squad_v2(predictions: list[str], references: list[list[str]]) -> dict[str, float]:
    def tokens(text: str) -> list[str]:
        return squad_normalize(text).split() if text else []

    def f1(gold: str, prediction: str) -> float:
        if not tokens(gold) or not tokens(prediction):
            return int(tokens(gold) == tokens(prediction))
        return overlap(tokens(prediction), tokens(gold))

    exact, f1s = [], []
    for prediction, golds in zip(predictions, references, strict=True):
        golds = [gold for gold in golds if squad_normalize(gold)] or [""]
        exact.append(max(int(squad_normalize(gold) == squad_normalize(prediction)) for gold in golds))
        f1s.append(max(f1(gold, prediction) for gold in golds))
    has = [bool(golds) for golds in references]
    found = {"exact": np.mean(exact), "f1": np.mean(f1s)}
    if any(has):
        found["HasAns_exact"] = np.mean([score for score, answered in zip(exact, has, strict=True) if answered])
        found["HasAns_f1"] = np.mean([score for score, answered in zip(f1s, has, strict=True) if answered])
    if not all(has):
        found["NoAns_exact"] = np.mean([score for score, answered in zip(exact, has, strict=True) if not answered])
    return {name: 100 * float(value) for name, value in found.items()}


def official(predictions: list[str], references: list[list[str]], script: str) -> dict[str, float]:
    """Return the official scores under our names, as fractions."""
    if script == "squad2":
        ours = {
            "exact": "exact_match",
            "f1": "f1",
            "HasAns_exact": "has_answer_exact_match",
            "HasAns_f1": "has_answer_f1",
            "NoAns_exact": "no_answer_accuracy",
        }
        return {ours[name]: value / 100 for name, value in squad_v2(predictions, references).items()}
    exact, f1 = (squad_v1 if script == "squad" else korquad_v1)(predictions, references)
    return {"exact_match": exact / 100, "f1": f1 / 100}


def table(predictions: list[str], references: list[list[str]], **columns: Any) -> pa.Table:
    given = {
        "predictions": pa.array(predictions, pa.string()),
        "references": pa.array(references, pa.list_(pa.string())),
    }
    return pa.table(given | columns)


WORDS = ["the", "The", "a", "an", "A.", "cat", "cats", "don't", "U.S.", "1,000", "théorie", "¿qué?", "-", "…", "\u3000"]
WORDS += ["서울", "서울에", "《책》", "<b>", "(수)", "‘말’", "〈시〉", '"x"', "1989년"]
parts = st.lists(st.sampled_from(WORDS), max_size=5).map(" ".join)


@pytest.mark.parametrize("script", SCRIPTS)
@settings(max_examples=200)
@given(data=st.data())
def test_scores_are_those_of_the_official_script(script: str, data: st.DataObject) -> None:
    least = 0 if script == "squad2" else 1
    asked = st.tuples(parts, st.lists(parts, min_size=least, max_size=3))
    predictions, references = map(list, zip(*data.draw(st.lists(asked, min_size=1, max_size=6)), strict=True))

    found = scoring.score(table(predictions, references), TARGET, how(script=script))

    expected = official(predictions, references, script)
    assert {name: found[name] for name in expected if name in found} == pytest.approx(
        {name: value for name, value in expected.items() if name in found}
    )
    assert set(found) <= set(expected) | {"has_answer_f1", "has_answer_exact_match"}
    assert all(references) == ("no_answer_accuracy" not in found)


def real_answers(name: str) -> tuple[list[list[str]], list[str]]:
    path = real(name)
    questions = [
        (qa, paragraph["context"])
        for article in json.loads(path.read_text(encoding="utf-8"))["data"]
        for paragraph in article["paragraphs"]
        for qa in paragraph["qas"]
    ]
    return [[answer["text"] for answer in qa["answers"]] for qa, _ in questions], [context for _, context in questions]


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("squad_v1.1_part/squad_v1.1_part_dev.json", "squad"),
        ("squad_v1.1_part/squad_v1.1_part_dev.json", "squad2"),
        ("korquad1/KorQuAD_v1.0_dev.json", "korquad"),
    ],
)
def test_scores_of_real_answers_are_those_of_the_official_script(name: str, script: str) -> None:
    references, contexts = real_answers(name)
    draw = np.random.default_rng(0)
    predictions = []
    for golds, context in zip(references, contexts, strict=True):
        words = context.split(" ")
        first = int(draw.integers(len(words)))
        near = golds[0][: int(draw.integers(len(golds[0]) + 1))] + ["", " the", "."][int(draw.integers(3))]
        predictions.append([near, " ".join(words[first : first + 3]), golds[-1]][int(draw.integers(3))])

    found = scoring.score(table(predictions, references), TARGET, how(script=script))

    expected = official(predictions, references, script)
    assert found == pytest.approx({name: expected[name] for name in ("f1", "exact_match")}, abs=1e-12)
    assert 0.3 < found["f1"] < 0.9 and len(predictions) > 600


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_question_without_an_answer_is_right_without_one(script: str) -> None:
    found = scoring.score(table(["", "Oslo", "Oslo"], [[], [], ["Oslo"]]), TARGET, how(script=script))

    assert found == {
        "f1": pytest.approx(2 / 3),
        "exact_match": pytest.approx(2 / 3),
        "has_answer_f1": 1.0,
        "has_answer_exact_match": 1.0,
        "no_answer_accuracy": 0.5,
    }


def test_the_two_squad_scripts_differ_on_empty_answers() -> None:
    predictions, references = ["the", "the"], [["The"], ["The", "Oslo"]]

    one, two = (scoring.score(table(predictions, references), TARGET, how(script=s)) for s in ("squad", "squad2"))

    assert (one["exact_match"], one["f1"]) == (1.0, 0.0)
    assert (two["exact_match"], two["f1"]) == (0.5, 0.5)


@given(st.lists(st.tuples(parts, st.lists(parts, max_size=2), st.integers(0, 3)), min_size=1, max_size=8))
def test_statistics_of_drawn_questions_are_their_scores(
    drawn: list[tuple[str, list[str], int]],
) -> None:
    weights = np.array([count for _, _, count in drawn])
    if not weights.sum():
        return
    whole = table([prediction for prediction, _, _ in drawn], [references for _, references, _ in drawn])
    settings = how(script="squad2")

    to_scores = scoring.statistics(scoring.units(whole), TARGET, settings)

    drawn_split = whole.take(np.repeat(np.arange(len(drawn)), weights))
    expected = scoring.score(drawn_split, TARGET, settings)
    found = {
        name: values[1] for name, values in to_scores(np.stack([np.ones(len(drawn), dtype=np.int64), weights])).items()
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert scoring.headline(TARGET, settings) in found


# --- tables, errors, baselines --------------------------------------------------------------------------------------


def predictions_by_hand() -> pa.Table:
    rows = [
        # question, references, best span, null score less that of the span
        ("What is it?", ["the cat"], "cat", -3.0),
        ("In what year?", ["1989 or so"], "1989", -1.0),
        ("누구인가?", ["서울 시장"], "시장", 0.5),
        ("Name it.", [], "Oslo", 1.0),
        ("Who is not there?", [], "Oslo", 2.0),
        ("Who?", ["one two three four five six seven eight nine"], "ten", 3.0),
        ("Is it?", ["yes"], "", np.inf),  # no span at all
    ]
    threshold = 0.75
    return pa.table(
        {
            "id": [str(number) for number in range(len(rows))],
            "question": [row[0] for row in rows],
            "context": [f"Before it. {row[2]} {'x' * 200}" for row in rows],
            "references": pa.array([row[1] for row in rows], pa.list_(pa.string())),
            "predictions": ["" if row[3] > threshold else row[2] for row in rows],
            "starts": pa.array([None if row[3] > threshold else 11 for row in rows], pa.int32()),
            "confidences": [0.5, 0.25, 0.9, 0.8, 0.7, 0.95, 0.0],
            "n_best": pa.array(
                [
                    [{"text": "", "start": None, "end": None, "confidence": 0.1}]
                    + [{"text": row[2], "start": 11, "end": 11 + len(row[2]), "confidence": 0.9}] * bool(row[2])
                    for row in rows
                ],
                pa.list_(scoring.SPAN),
            ),
            "null_scores": [row[3] for row in rows],
        }
    )  # fmt: skip


def test_tables_group_by_question_word_and_length_of_the_answer() -> None:
    found = scoring.tables(predictions_by_hand(), TARGET, how())

    by_word = {row["label"]: (row["support"], row["f1"], row["exact_match"]) for row in found["per_question_word"]}
    assert by_word == {
        "what": (2, pytest.approx((1 + 0.5) / 2), 0.5),
        "누구": (1, pytest.approx(2 / 3), 0.0),
        "who": (2, 0.5, 0.5),
        "(other)": (2, 0.5, 0.5),
    }
    by_length = {row["label"]: (row["support"], row["f1"]) for row in found["per_answer_length"]}
    assert by_length == {
        "(no answer)": (2, 1.0),
        "1 word": (1, 0.0),
        "2 words": (2, pytest.approx((1 + 2 / 3) / 2)),
        "3-4 words": (1, 0.5),
        "9 words and more": (1, 0.0),
    }
    assert list(found["per_question_word"][0]) == ["label", "support", "f1", "exact_match"]


def test_the_threshold_table_is_what_its_predictions_score() -> None:
    given = predictions_by_hand()

    rows = scoring.tables(given, TARGET, how())["null_thresholds"]

    assert [row["threshold"] for row in rows] == [-4.0, -3.0, -1.0, 0.5, 1.0, 2.0, 3.0]
    for row in rows:
        kept = [
            next((span["text"] for span in one["n_best"] if span["text"]), "")
            if one["null_scores"] <= row["threshold"]
            else ""
            for one in given.to_pylist()
        ]
        scores = scoring.score(table(kept, given["references"].to_pylist()), TARGET, how())
        assert (row["f1"], row["exact_match"]) == pytest.approx((scores["f1"], scores["exact_match"]))
        assert row["answered"] == pytest.approx(
            sum(one["null_scores"] <= row["threshold"] for one in given.to_pylist()) / 7
        )
    assert (
        [row["threshold"] for row in rows if row["best"]]
        == [0.5]
        == [max(rows, key=lambda row: row["f1"])["threshold"]]
    )
    answerable = given.filter(np.array([bool(references) for references in given["references"].to_pylist()]))
    assert "null_thresholds" not in scoring.tables(answerable, TARGET, how())


@pytest.mark.parametrize("null_score", [math.inf, -math.inf])
def test_without_spans_no_threshold_changes_a_score(null_score: float) -> None:
    given = predictions_by_hand()
    given = given.set_column(given.column_names.index("n_best"), "n_best", pa.array([[]] * 7, pa.list_(scoring.SPAN)))
    null_scores = pa.array([null_score] * 7)
    given = given.set_column(given.column_names.index("null_scores"), "null_scores", null_scores)
    rows = scoring.tables(given, TARGET, how())["null_thresholds"]
    unanswerable = sum(not references for references in given["references"].to_pylist())
    assert {row["f1"] for row in rows} == {unanswerable / 7}
    assert [row["best"] for row in rows].count(True) == 1


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(-20, 20)), min_size=1, max_size=60))
def test_the_best_threshold_is_the_best_of_all(drawn: list[tuple[bool, bool, float]]) -> None:
    spans = [
        [{"text": "right" if right else "wrong", "start": 0, "end": 5, "confidence": 1.0}] for _, right, _ in drawn
    ]
    references = [["right"] if answerable else [] for answerable, _, _ in drawn]
    differences = np.array([round(difference, 3) for *_, difference in drawn])
    given = table(
        [""] * len(drawn),
        references,
        question=["?"] * len(drawn),
        n_best=pa.array(spans, pa.list_(scoring.SPAN)),
        null_scores=differences,
    )
    if all(references):
        return

    rows = scoring.tables(given, TARGET, how())["null_thresholds"]

    right = np.array([answerable and right for answerable, right, _ in drawn])
    none = np.array([not answerable for answerable, _, _ in drawn])
    every = [np.where(differences <= limit, right, none).mean() for limit in [-21.0, *differences]]
    assert max(row["f1"] for row in rows) == pytest.approx(max(every))
    assert [row["best"] for row in rows].count(True) == 1 and len(rows) <= 21


def test_errors_are_sorted_by_confidence_with_their_context() -> None:
    found = scoring.worst_errors(predictions_by_hand(), 3, TARGET, how())

    assert [(row["id"], row["confidence"], row["f1"]) for row in found] == [
        ("5", 0.95, 0.0),
        ("2", 0.9, 0.6667),
        ("1", 0.25, 0.5),
    ]
    assert found[1] == {
        "id": "2",
        "question": "누구인가?",
        "left": "Before it. ",
        "token": "시장",
        "right": " " + "x" * 79,
        "reference": "서울 시장",
        "prediction": "시장",
        "confidence": 0.9,
        "f1": 0.6667,
    }
    assert found[0]["prediction"] == "(no answer)"
    assert scoring.worst_errors(predictions_by_hand(), 0, TARGET, how()) == []
    missed = predictions_by_hand().to_pylist()[5] | {"predictions": "ten", "starts": 11, "references": []}
    [error] = scoring.worst_errors(pa.Table.from_pylist([missed]), 3, TARGET, how())
    assert error["reference"] == "(no answer)" and error["token"] == "ten"


def test_baselines_take_sentences_and_none_where_train_has_none(tiny_wordpiece: Path) -> None:
    context = "Anna met Kofi. Lee lives in Oslo! Nobody was at home."
    _, split = encoded(
        tiny_wordpiece, [("Who lives in Oslo?", context, ["Lee", "Lee lives"]), ("Where?", context, [])], 64, 4
    )

    found = scoring.baselines(split, split, {}, TARGET, how())

    guesses = {name: guess["predictions"].to_pylist() for name, guess in found.items()}
    assert guesses == {
        "first_sentence": ["Anna met Kofi."] * 2,
        "sentence_most_like_question": ["Lee lives in Oslo!", "Anna met Kofi."],
        "no_answer": ["", ""],
    }
    assert found["no_answer"]["references"].to_pylist() == [["Lee", "Lee lives"], []]
    assert set(scoring.baselines(split, split, {}, {"unanswerable": False}, how())) == set(guesses) - {"no_answer"}
    assert scoring.score(found["no_answer"], TARGET, how())["f1"] == 0.5
