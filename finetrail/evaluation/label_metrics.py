"""Turns predictions and references into scores with scikit-learn, seqeval and scipy, as local modules of `evaluate`.

A module of its own, because these libraries take seconds to import and prediction does not need them.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from scipy.stats import pearsonr, spearmanr
from seqeval.metrics import accuracy_score as token_accuracy
from seqeval.metrics import classification_report
from seqeval.metrics.sequence_labeling import get_entities
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    mean_absolute_error,
    root_mean_squared_error,
)
from sklearn.preprocessing import MultiLabelBinarizer

Labels = Sequence[Sequence[str]]  # sentences of labels

STRING, FLOAT = datasets.Value("string"), datasets.Value("float64")
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
        accuracy = float(token_accuracy(references, predictions))
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


class LabelMetric(evaluate.Metric):
    """Accuracy, F1 averaged over labels, and Matthews' correlation of one label per text."""

    def _info(self) -> evaluate.MetricInfo:
        return _info("Accuracy, macro F1 and MCC (Gorodkin 2004) of single labels, by scikit-learn.", STRING)

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        return {
            "accuracy": float(accuracy_score(references, predictions)),
            "macro_f1": float(f1_score(references, predictions, average="macro", zero_division=0)),
            "mcc": matthews(references, predictions),
        }


def matthews(references: Sequence[str], predictions: Sequence[str]) -> float:
    """Return the correlation of two assignments of labels (Gorodkin 2004); 0 where one of them has a single label.

    The same, to the last digit, as scikit-learn's matthews_corrcoef, whose matrix is quadratic in the number of labels.
    """
    expected, found, n = Counter(references), Counter(predictions), len(references)
    right = sum(map(str.__eq__, references, predictions))
    covariance = right * n - sum(count * found[label] for label, count in expected.items())
    spreads = [n**2 - sum(count**2 for count in counts.values()) for counts in (expected, found)]
    return covariance / math.sqrt(spreads[0] * spreads[1]) if all(spreads) else 0.0


class LabelsMetric(evaluate.Metric):
    """F1 over all decisions, F1 averaged over labels, and the share of texts with exactly their labels."""

    def _info(self) -> evaluate.MetricInfo:
        return _info("Micro and macro F1 and exact match of label sets, by scikit-learn.", datasets.List(STRING))

    def _compute(self, predictions: list[list[str]], references: list[list[str]]) -> dict[str, float]:
        hot = MultiLabelBinarizer().fit([*references, *predictions])
        labels = range(max(len(hot.classes_), 1))
        # scikit-learn reads a matrix of one column as single labels; two columns of labels that never occur widen it.
        expected, found = (np.pad(matrix, [(0, 0), (0, 2)]) for matrix in map(hot.transform, (references, predictions)))
        return {
            "micro_f1": float(f1_score(expected, found, labels=labels, average="micro", zero_division=0)),
            "macro_f1": float(f1_score(expected, found, labels=labels, average="macro", zero_division=0)),
            "exact_match": float(accuracy_score(expected, found)),
        }


class ScoreMetric(evaluate.Metric):
    """Pearson's and Spearman's correlation of numbers, and their mean absolute and root mean squared error.

    A correlation is 0 if one side is constant. The errors are in the numbers' unit.
    """

    def _info(self) -> evaluate.MetricInfo:
        return _info("Pearson and Spearman correlation, by scipy; MAE and RMSE, by scikit-learn.", FLOAT)

    def _compute(self, predictions: list[float], references: list[float]) -> dict[str, float]:
        errors = {
            "mae": float(mean_absolute_error(references, predictions)),
            "rmse": float(root_mean_squared_error(references, predictions)),
        }
        if np.ptp(predictions) == 0 or np.ptp(references) == 0:
            return {"pearson": 0.0, "spearman": 0.0} | errors
        return {
            "pearson": float(pearsonr(references, predictions).statistic),
            "spearman": float(spearmanr(references, predictions).statistic),
        } | errors


METRICS: dict[str, type[evaluate.Metric]] = {
    "entities": EntityMetric,
    "tokens": TokenMetric,
    "single_label": LabelMetric,
    "multi_label": LabelsMetric,
    "regression": ScoreMetric,
}


def _info(description: str, kind: Any) -> evaluate.MetricInfo:
    return evaluate.MetricInfo(
        description=description,
        citation="https://scikit-learn.org, https://scipy.org",
        inputs_description="predictions and references, one per text",
        features=datasets.Features({"predictions": kind, "references": kind}),
    )
