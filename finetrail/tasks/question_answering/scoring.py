"""Turns features and a model's outputs into answers, and those into scores, tables and baselines."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from finetrail.evaluation import inference, slicing
from finetrail.evaluation.bootstrap import Statistic
from finetrail.evaluation.slicing import Slicing
from finetrail.evaluation.splits import Encoded, slice_columns
from finetrail.tasks.question_answering import metrics
from finetrail.tasks.question_answering.metrics import normalized, question_scores
from finetrail.tasks.question_answering.settings import NULL_POSITION, Evaluate, Target

if TYPE_CHECKING:
    from finetrail.tasks.contract import Outcome, Row

# Optional in tasks/contract.py, and not used here.
beside = candidates = counted = alone = None

# Text, start, end (characters; None for no answer), score.
Span = tuple[str, int | None, int | None, float]

SPAN = pa.struct([("text", pa.string()), ("start", pa.int32()), ("end", pa.int32()), ("confidence", pa.float64())])

# Columns that decoding adds.
ANSWER = {
    "predictions": pa.string(),
    "starts": pa.int32(),
    "confidences": pa.float64(),
    "n_best": pa.list_(SPAN),
    "null_scores": pa.float64(),
}

NOTHING = {"text": "", "start": None, "confidence": 0.0}  # an answer that is not among the n best

# A question counts for the first that it contains. Korean ones may be followed by a particle in the same word.
ENGLISH_WORDS = ("what", "who", "whom", "whose", "when", "where", "which", "why", "how")
KOREAN_WORDS = ("누구", "누가", "언제", "어디", "무엇", "무슨", "몇", "어떤", "어느", "왜", "얼마", "어떻게")
OTHER = "(other)"

ANSWER_WORDS = ((1, "1 word"), (2, "2 words"), (4, "3-4 words"), (8, "5-8 words"))
MORE_WORDS, NO_ANSWER = "9 words and more", "(no answer)"

SENTENCE_END = re.compile(r"(?<=[.!?。])\s+")
THRESHOLDS = 20  # rows of the table of thresholds, plus the best one
CONTEXT_CHARACTERS = 80  # on each side of an error


def predict(
    split: Encoded,
    shared: dict[str, Encoded],
    target: Target,
    forward: inference.Forward,
    tokenizer: Any,
    settings: Evaluate,
) -> pa.Table:
    """Answer every question with a span of its context, or with "" for none.

    Columns: id, question, context, references (null where they are not known), predictions, starts (characters; null
    for no answer), confidences (softmax over the n best, and over none where that is a choice), n_best, null_scores:
    how far the score of no answer (in the window where it is lowest, as Devlin et al. 2019) is above the best span's.
    null_threshold auto is 0 here, where none is a choice: settle() chooses it.
    """
    examples, features = split
    threshold = settings.null_threshold
    if threshold == "auto":
        threshold = 0.0 if target["unanswerable"] else None
    found: list[dict[tuple[int, int], float]] = [{} for _ in range(len(examples))]
    null = np.full(len(examples), np.inf)
    example = np.unique(features["example"].to_numpy(), return_inverse=True)[1]
    for row, span_scores, null_score in _windows(features, forward, tokenizer.pad_token_id, settings):
        of_example = found[example[row]]
        null[example[row]] = min(null[example[row]], null_score)
        for span, score in span_scores.items():
            # Windows overlap, so a span may be in several.
            of_example[span] = max(score, of_example.get(span, -np.inf))
    contexts = examples["context"].to_pylist()
    answers = [
        _answer(*of_example, settings.n_best, threshold) for of_example in zip(contexts, found, null, strict=True)
    ]
    columns = {name: pa.array([answer[name] for answer in answers], kind) for name, kind in ANSWER.items()}
    given = examples["answers"].to_pylist()
    references = [None if of_one is None else [answer["text"] for answer in of_one] for of_one in given]
    return pa.table(
        {
            "id": examples["id"],
            "question": examples["question"],
            "context": examples["context"],
            "references": pa.array(references, pa.list_(pa.string())),
            **columns,
            **slice_columns(examples),
        }
    )


def _windows(
    features: pa.Table, forward: inference.Forward, pad_token_id: int, settings: Evaluate
) -> Iterator[tuple[int, dict[tuple[int, int], float], float]]:
    """Yield each feature's row, its best spans as characters of the context with their scores, and its null score."""
    starts, ends = (features[name].combine_chunks() for name in ("starts", "ends"))
    bounds = starts.offsets.to_numpy() - starts.offsets[0].as_py()
    starts, ends = starts.flatten().to_numpy(), ends.flatten().to_numpy()
    context_start = features["context_start"].to_numpy()
    for rows, outputs in inference.forward_batches(features, forward, pad_token_id, settings.batch_size):
        for row, start_logits, end_logits in zip(rows, outputs["start_logits"], outputs["end_logits"], strict=True):
            part = slice(bounds[row], bounds[row + 1])
            inside = slice(context_start[row], context_start[row] + part.stop - part.start)
            spans = _spans(starts[part], ends[part], start_logits[inside], end_logits[inside], settings)
            yield row, spans, float(start_logits[NULL_POSITION] + end_logits[NULL_POSITION])


def _spans(
    starts: np.ndarray, ends: np.ndarray, start_logits: np.ndarray, end_logits: np.ndarray, settings: Evaluate
) -> dict[tuple[int, int], float]:
    """Return the best spans of one window, (start, end) in characters, with their scores.

    Tokens with the same characters, such as the bytes of one, are one token, with the best of their logits. No span
    begins or ends with a token that is nothing but white space.
    """
    if not len(starts):
        return {}
    first = np.flatnonzero(np.append(True, (np.diff(starts) != 0) | (np.diff(ends) != 0)))
    starts, ends = starts[first], ends[first]
    begin, finish = (
        np.where(starts < ends, np.maximum.reduceat(logits, first), -np.inf) for logits in (start_logits, end_logits)
    )
    scores, a, b = best_spans(begin, finish, settings.n_best, settings.max_answer_length)
    return dict(zip(zip(starts[a].tolist(), ends[b].tolist(), strict=True), scores.tolist(), strict=True))


def best_spans(
    start_logits: np.ndarray, end_logits: np.ndarray, n_best: int, max_length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return score, first and last token of the best spans of one window, the best first; float and int [<= n_best].

    Of all spans of at most max_length tokens, not only of those between the best starts and the best ends; of equal
    scores the earlier comes first, then the shorter. A logit of -inf marks a token where no span begins, or ends.
    """
    max_length = min(max_length, len(end_logits))  # no span is longer, and memory grows with it
    beyond = np.append(end_logits, np.full(max_length, -np.inf, dtype=end_logits.dtype))
    ends = np.lib.stride_tricks.sliding_window_view(beyond, max_length)[: len(start_logits)]  # [start, length - 1]
    scores = (start_logits[:, None] + ends).ravel()
    allowed = np.flatnonzero(scores > -np.inf)
    if len(allowed) > n_best:
        allowed = allowed[scores[allowed] >= np.partition(scores[allowed], -n_best)[-n_best]]
    best = allowed[np.argsort(-scores[allowed], kind="stable")][:n_best]
    return scores[best], best // max_length, best // max_length + best % max_length


def _answer(
    context: str, found: dict[tuple[int, int], float], null: float, most: int, threshold: float | None
) -> dict[str, Any]:
    """Choose the answer to one question, from the scores of the spans found in its windows, and keep the best."""
    ranked = sorted(found.items(), key=lambda item: (-item[1], item[0]))[:most]
    spans: list[Span] = [(context[start:end], start, end, score) for (start, end), score in ranked]
    difference = null - spans[0][3] if spans else np.inf
    if threshold is not None:
        spans = sorted([*spans, ("", None, None, null)], key=lambda span: -span[3])
    scores = np.array([span[3] for span in spans])
    powers = np.exp(scores - scores.max(initial=-np.inf))
    confidences = zip(spans, (powers / powers.sum()).tolist(), strict=True)
    n_best = [{"text": a, "start": b, "end": c, "confidence": sure} for (a, b, c, _), sure in confidences]
    return _choice(n_best, difference, threshold) | {"n_best": n_best, "null_scores": difference}


def _choice(n_best: list[dict[str, Any]], null_score: float, null_threshold: float | None) -> dict[str, Any]:
    """Return prediction, start and confidence: the best span or, where none's score is above the threshold, none."""
    refused = null_threshold is not None and null_score > null_threshold
    chosen = next((span for span in n_best if bool(span["text"]) != refused), NOTHING)
    return {"predictions": chosen["text"], "starts": chosen["start"], "confidences": chosen["confidence"]}


def settle(
    predictions: dict[str, pa.Table], target: Target, settings: Evaluate
) -> tuple[dict[str, float | None], dict[str, pa.Table], list[str]]:
    """Choose null_threshold if it is auto; the notes state which settings do not fit the corpus.

    The choice is that of evaluate-v2.0.py (best_f1_thresh) on validation: the lowest threshold with the best F1.
    """
    notes = list(_misfits(predictions, target["unanswerable"], settings))
    if settings.null_threshold != "auto":
        return {}, predictions, notes
    if not target["unanswerable"]:
        return {"null_threshold": None}, predictions, notes
    rows = _null_thresholds(predictions["validation"].to_pylist(), settings.script)
    best = next(row for row in rows if row["best"])
    if not best["answered"]:
        notes.append("on validation F1 is best where no question is answered; expected a model that has trained longer")
    threshold = best["threshold"]
    return {"null_threshold": threshold}, {name: _at(table, threshold) for name, table in predictions.items()}, notes


def _misfits(predictions: dict[str, pa.Table], unanswerable: bool, settings: Evaluate) -> Iterator[str]:
    threshold, script = settings.null_threshold, settings.script
    if not unanswerable and isinstance(threshold, float):
        yield (
            f"each question of train has an answer, and evaluate.null_threshold {threshold:g} lets the model give "
            "none; expected auto or null"
        )
    if unanswerable and threshold is None:
        yield (
            "train has questions without an answer, and evaluate.null_threshold null answers each question; expected "
            "auto or a number"
        )
    without = {name: table["references"].to_pylist().count([]) for name, table in predictions.items()}
    if script != "squad2" and any(without.values()):
        named = " and ".join(f"{count:,} of {name}" for name, count in without.items() if count)
        yield (
            f"evaluate.script {script} has no rule for questions without an answer ({named}), which are scored as by "
            "squad2; expected squad2"
        )


def _at(predictions: pa.Table, null_threshold: float) -> pa.Table:
    """Return the predictions with another threshold; no answer must be a choice in them."""
    for_choice = zip(predictions["n_best"].to_pylist(), predictions["null_scores"].to_pylist(), strict=True)
    chosen = [_choice(*of_question, null_threshold) for of_question in for_choice]
    for name in chosen[0] if chosen else ():
        column = pa.array([choice[name] for choice in chosen], ANSWER[name])
        predictions = predictions.set_column(predictions.column_names.index(name), name, column)
    return predictions


def headline(target: Target, settings: Evaluate) -> str:
    return "f1"


def score(predictions: pa.Table, target: Target, settings: Evaluate) -> dict[str, float]:
    """Return the scores, each in [0, 1]."""
    to_scores = statistics(predictions, target, settings)
    everything = np.ones((1, len(predictions)), dtype=np.int64)
    return {name: float(values[0]) for name, values in to_scores(everything).items()}


def units(predictions: pa.Table) -> pa.Table:
    """Return all rows: a row per question."""
    return predictions


def statistics(units: pa.Table, target: Target, settings: Evaluate) -> Statistic:
    columns = metrics.per_question(units["predictions"].to_pylist(), units["references"].to_pylist(), settings.script)

    def to_scores(weights: np.ndarray) -> dict[str, np.ndarray]:
        # A resampled split may lack one of the two kinds of questions.
        return {
            name: (weights * counted) @ values / np.maximum((weights * counted).sum(1), 1)
            for name, (values, counted) in columns.items()
        }

    return to_scores


def outcomes(units: pa.Table, target: Target, settings: Evaluate) -> "list[Outcome]":
    """Return the outcome of each question; its score is its F1."""
    return [
        {
            "score": float(f1),
            "input": row["question"],
            "reference": " / ".join(dict.fromkeys(row["references"])) or NO_ANSWER,
            "prediction": row["predictions"] or NO_ANSWER,
        }
        for row, (_, f1) in zip(units.to_pylist(), _scored(units, settings), strict=True)
    ]


def slicings(units: pa.Table, train: pa.Table, target: Target) -> list[Slicing]:
    """Slice questions by the length of the context, by words that train lacks, and by columns."""
    known = {
        word
        for name in ("question", "context")
        for text in train[name].unique().to_pylist()
        for word in slicing.words(text)
    }
    return [
        slicing.by_length("length of context in words", list(map(slicing.words, units["context"].to_pylist()))),
        slicing.by_unseen(list(map(slicing.words, units["question"].to_pylist())), known),
        *slicing.by_columns(units),
    ]


def _scored(questions: pa.Table, settings: Evaluate) -> list[tuple[float, float]]:
    """Return exact match and F1 of each question."""
    pairs = zip(questions["predictions"].to_pylist(), questions["references"].to_pylist(), strict=True)
    return [question_scores(*pair, settings.script) for pair in pairs]


def tables(predictions: pa.Table, target: Target, settings: Evaluate) -> "dict[str, list[Row]]":
    """Return tables by question word, by length of the answer, and by threshold.

    null_thresholds has the score of each value of evaluate.null_threshold, if some questions have no answer. auto
    chooses by that of validation.
    """
    rows = predictions.select(["question", "references", "predictions", "n_best", "null_scores"]).to_pylist()
    scores = [question_scores(row["predictions"], row["references"], settings.script) for row in rows]
    found = {
        "per_question_word": _by_label([_question_word(row["question"]) for row in rows], scores),
        "per_answer_length": _by_label([_answer_length(row["references"]) for row in rows], scores),
    }
    if all(row["references"] for row in rows):
        return found
    return found | {"null_thresholds": _null_thresholds(rows, settings.script)}


def _by_label(labels: list[str], scores: list[tuple[float, float]]) -> list[dict[str, Any]]:
    groups: dict[str, list[tuple[float, float]]] = {}
    for label, of_question in zip(labels, scores, strict=True):
        groups.setdefault(label, []).append(of_question)
    means = {label: np.mean(of_label, axis=0) for label, of_label in groups.items()}
    return [
        {"label": label, "support": len(groups[label]), "f1": float(f1), "exact_match": float(exact)}
        for label, (exact, f1) in sorted(means.items())
    ]


def _question_word(question: str) -> str:
    for word in re.findall(r"\w+", question.lower()):
        if word in ENGLISH_WORDS:
            return word
        for stem in KOREAN_WORDS:
            if word.startswith(stem):
                return stem
    return OTHER


def _answer_length(references: list[str]) -> str:
    if not references:
        return NO_ANSWER
    words = len(references[0].split())
    return next((label for most, label in ANSWER_WORDS if words <= most), MORE_WORDS)


def _null_thresholds(rows: list[dict[str, Any]], script: str) -> list[dict[str, Any]]:
    """Return the scores at thresholds spread evenly over the questions, and at the best for F1, from low to high."""
    rows = sorted(rows, key=lambda row: row["null_scores"])
    spans = [next((span["text"] for span in row["n_best"] if span["text"]), "") for row in rows]
    answered = [question_scores(span, row["references"], script) for span, row in zip(spans, rows, strict=True)]
    refused = [question_scores("", row["references"], script) for row in rows]
    # Questions up to a threshold keep their span. Sums by the number of these questions: [questions + 1, 2].
    none = np.zeros((1, 2))
    kept, given_up = (np.concatenate([none, np.cumsum(scores, axis=0)]) for scores in (answered, refused))
    by_number = (kept + given_up[-1] - given_up) / len(rows)
    differences = np.array([row["null_scores"] for row in rows])
    finite = np.unique(np.round(differences[np.isfinite(differences)], 4))
    finite = finite if len(finite) else np.zeros(1)  # no question has a span at any threshold
    thresholds = np.append(np.floor(finite[:1]) - 1, finite)  # at the first, no question is answered
    number = np.searchsorted(differences, thresholds, side="right")
    best = int(by_number[number, 1].argmax())
    spread = np.linspace(0, len(thresholds) - 1, min(THRESHOLDS, len(thresholds))).round().astype(int)
    return [
        {
            "threshold": float(thresholds[index]),
            "f1": float(by_number[number[index], 1]),
            "exact_match": float(by_number[number[index], 0]),
            "answered": float(number[index] / len(rows)),
            "best": bool(index == best),
        }
        for index in sorted({best, *spread.tolist()})
    ]


def worst_errors(predictions: pa.Table, most: int, target: Target, settings: Evaluate) -> "list[Row]":
    """Return the questions without an exact match, the most confident first, with the context of the answer."""
    scores = _scored(predictions, settings)
    confidences = predictions["confidences"].to_pylist()
    wrong = sorted((-confidences[index], index) for index, (exact, _) in enumerate(scores) if not exact)[:most]
    rows = predictions.take([index for _, index in wrong]).to_pylist() if wrong else []
    return [_in_context(row, scores[index][1]) for row, (_, index) in zip(rows, wrong, strict=True)]


def _in_context(row: dict[str, Any], f1: float) -> dict[str, Any]:
    """Return one error with the context of the predicted span, or of the reference if no answer was predicted."""
    context, text, start = row["context"], row["predictions"], row["starts"]
    if start is None:
        text = row["references"][0] if row["references"] else ""
        start = context.find(text)
    end = start + len(text)
    return {
        "id": row["id"],
        "question": row["question"],
        "left": context[max(0, start - CONTEXT_CHARACTERS) : start],
        "token": context[start:end],
        "right": context[end : end + CONTEXT_CHARACTERS],
        "reference": " | ".join(dict.fromkeys(row["references"])) or NO_ANSWER,
        "prediction": row["predictions"] or NO_ANSWER,
        "confidence": round(row["confidences"], 4),
        "f1": round(f1, 4),
    }


def base_is_baseline(base_model: Path) -> bool:
    """Return False: before training, the head is new and points anywhere."""
    return False


def baselines(
    train: Encoded, split: Encoded, shared: dict[str, Encoded], target: Target, settings: Evaluate
) -> dict[str, pa.Table]:
    """Return the context's first sentence, its sentence most like the question, and no answer.

    No answer is a baseline if train has questions without one. The second is the sliding window of Rajpurkar et al.
    2016, with sentences as windows.
    """
    columns = (split.examples[name].to_pylist() for name in ("question", "context", "answers"))
    guesses: dict[str, list[str]] = {"first_sentence": [], "sentence_most_like_question": [], "no_answer": []}
    references = []
    for question, context, answers in zip(*columns, strict=True):
        sentences = SENTENCE_END.split(context.strip())
        asked = set(normalized(question, settings.script).split())
        overlaps = [len(asked & set(normalized(sentence, settings.script).split())) for sentence in sentences]
        guesses["first_sentence"].append(sentences[0])
        guesses["sentence_most_like_question"].append(sentences[int(np.argmax(overlaps))])
        guesses["no_answer"].append("")
        references.append([answer["text"] for answer in answers])
    if not target["unanswerable"]:
        del guesses["no_answer"]
    of_split = pa.array(references, pa.list_(pa.string()))
    return {
        name: pa.table({"references": of_split, "predictions": pa.array(texts, pa.string())})
        for name, texts in guesses.items()
    }
