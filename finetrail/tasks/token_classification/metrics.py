"""Turns word-level references and predictions into counts a sentence, and counts into scores; imported by training too.

IOB2 tags are scored as entities, as conlleval does; labels of the scheme none (parts of speech) word by word.
"""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
import pyarrow as pa
from seqeval.metrics import accuracy_score, classification_report
from seqeval.metrics.sequence_labeling import get_entities
from sklearn.metrics import f1_score

from finetrail import layout
from finetrail.tasks.token_classification.settings import Target, label_names
from finetrail.tasks.token_classification.settings import has_entities as has_entities

Labels = Sequence[Sequence[str]]  # sentences of labels
UNSEEN = ""  # for a label that train lacks: none of train's, which are never empty

LISTS = datasets.Features({name: datasets.List(datasets.Value("string")) for name in ("predictions", "references")})


class EntityMetric(evaluate.Metric):
    """seqeval in its default mode, which is the CoNLL-2000 conlleval definition, as a local evaluate module."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Precision, recall and F1 of whole entities (Tjong Kim Sang and Buchholz 2000).",
            citation="https://github.com/chakki-works/seqeval",
            inputs_description="predictions and references: lists of sentences of IOB2 labels",
            features=LISTS,
        )

    def _compute(self, predictions: Labels, references: Labels) -> dict[str, float]:
        accuracy = float(accuracy_score(references, predictions))
        if not get_entities(references) and not get_entities(predictions):
            # seqeval would average over no types: NaN, and a warning.
            return dict.fromkeys(("f1", "precision", "recall"), 0.0) | {"accuracy": accuracy, "macro_f1": 0.0}
        report: Any = classification_report(references, predictions, output_dict=True, zero_division=0)
        micro, macro = report["micro avg"], report["macro avg"]
        return {
            "f1": float(micro["f1-score"]),
            "precision": float(micro["precision"]),
            "recall": float(micro["recall"]),
            "accuracy": accuracy,
            "macro_f1": float(macro["f1-score"]),
        }


class TokenMetric(evaluate.Metric):
    """Accuracy and macro F1 of single labels, by scikit-learn, as a local evaluate module."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Accuracy of single labels, and F1 averaged over the labels.",
            citation="https://scikit-learn.org",
            inputs_description="predictions and references: lists of sentences of labels",
            features=LISTS,
        )

    def _compute(self, predictions: Labels, references: Labels) -> dict[str, float]:
        predicted, expected = (
            [label for sentence in labels for label in sentence] for labels in (predictions, references)
        )
        correct = sum(map(str.__eq__, predicted, expected))
        macro = f1_score(expected, predicted, average="macro", zero_division=0)
        return {"accuracy": correct / len(expected), "macro_f1": float(macro)}


def compute(references: Labels, predictions: Labels, target: Target) -> dict[str, float]:
    """Return the scores of one split, each in [0, 1]."""
    kind = EntityMetric if has_entities(target) else TokenMetric
    # evaluate 0.4.6 makes a folder even for a metric that is kept in memory; not in a home that may be read-only.
    metric = kind(keep_in_memory=True, cache_dir=str(layout.SCRATCH / "metrics"))
    scores = metric.compute(predictions=list(predictions), references=list(references))
    return dict(scores or {})


def units(references: Labels, predictions: Labels, target: Target) -> list[str]:
    """Return what is scored: entity types, or labels, that stand in the references or the predictions; sorted."""
    labels = {label for sentences in (references, predictions) for sentence in sentences for label in sentence}
    return sorted({label[2:] for label in labels if label != "O"} if has_entities(target) else labels)


def count(references: Labels, predictions: Labels, target: Target) -> np.ndarray:
    """Return what each sentence adds to the scores: int64 [sentences, 3 * units + 2].

    For each unit of units(): right, predicted, expected; then words right and words in all. Scores of any set of
    sentences come from the sum of their rows.
    """
    names = units(references, predictions, target)
    column = {name: 3 * index for index, name in enumerate(names)}
    entities = has_entities(target)
    counts = np.zeros((len(references), 3 * len(names) + 2), dtype=np.int64)
    for row, expected, predicted in zip(counts, references, predictions, strict=True):
        right = [a == b for a, b in zip(expected, predicted, strict=True)]
        row[-2:] = sum(right), len(right)
        wanted, found = _chunks(expected, entities), _chunks(predicted, entities)
        for offset, chunks in ((0, wanted & found), (1, found), (2, wanted)):
            for chunk in chunks:
                row[column[chunk[0]] + offset] += 1
    return counts


def scores(sums: np.ndarray, target: Target) -> dict[str, np.ndarray]:
    """Turn summed counts [..., 3 * units + 2] into the scores of compute(), each of shape [...]."""
    right, predicted, expected = (sums[..., offset:-2:3] for offset in range(3))
    macro_f1 = _f1(right, predicted, expected)
    # A unit that a resampled split lacks altogether is left out of its average, as seqeval and scikit-learn do.
    present = (predicted + expected) > 0
    result = {
        "accuracy": _ratio(sums[..., -2], sums[..., -1]),
        "macro_f1": _ratio((macro_f1 * present).sum(-1), present.sum(-1)),
    }
    if has_entities(target):
        totals = right.sum(-1), predicted.sum(-1), expected.sum(-1)
        micro = {"f1": _f1(*totals), "precision": _ratio(totals[0], totals[1]), "recall": _ratio(totals[0], totals[2])}
        return micro | result
    return result


def per_unit(sums: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return precision, recall, F1 and support of each unit, from the sum of count()'s rows: [3 * units + 2]."""
    right, predicted, expected = (sums[offset:-2:3] for offset in range(3))
    columns = _ratio(right, predicted), _ratio(right, expected), _f1(right, predicted, expected)
    return [
        {"label": name, "precision": float(p), "recall": float(r), "f1": float(f), "support": int(support)}
        for name, p, r, f, support in zip(names, *columns, expected, strict=True)
    ]


def validate(predicted_ids: np.ndarray, features: pa.Table, target: Target) -> dict[str, float]:
    """Score argmax ids [features, padded length] at the words that the features hold; for choosing a checkpoint.

    A word of an entity that train lacks counts as O here; evaluate scores it as the error that it is.
    """
    labels = features["labels"].to_pylist()
    sentences: dict[int, list[tuple[int, int, int]]] = {}
    rows = zip(*(features[name].to_pylist() for name in ("example", "words", "positions")), strict=True)
    for index, (example, words, positions) in enumerate(rows):
        sentence = sentences.setdefault(example, [])
        sentence += [(w, labels[index][p], int(predicted_ids[index, p])) for w, p in zip(words, positions, strict=True)]
    names = [*label_names(target), "O" if has_entities(target) else UNSEEN]
    ordered = [sorted(sentence) for sentence in sentences.values()]
    references = [[names[max(label, -1)] for _, label, _ in sentence] for sentence in ordered]
    predictions = [[names[label] for _, _, label in sentence] for sentence in ordered]
    return compute(references, predictions, target)


def _chunks(labels: Sequence[str], entities: bool) -> set[tuple[Any, ...]]:
    if entities:
        return set(get_entities(list(labels)))
    return {(label, index) for index, label in enumerate(labels)}


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide; 0 where there is nothing to divide by, as conlleval has it."""
    return np.divide(part, whole, out=np.zeros(np.shape(whole), dtype=np.float64), where=np.asarray(whole) > 0)


def _f1(right: np.ndarray, predicted: np.ndarray, expected: np.ndarray) -> np.ndarray:
    return _ratio(2 * right, predicted + expected)
