"""Turns predictions and references of texts into scores; imported by training too.

Labels are scored by scikit-learn, numbers by scipy and scikit-learn, each set of scores as a local module of
`evaluate`.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
import pyarrow as pa
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    matthews_corrcoef,
    mean_absolute_error,
    root_mean_squared_error,
)

from finetrail import layout

STRING, FLOAT = datasets.Value("string"), datasets.Value("float64")
THRESHOLD = 0.5  # of validation; the recipe's is in evaluate, which training does not see


class LabelMetric(evaluate.Metric):
    """Accuracy, F1 averaged over labels, and Matthews' correlation of one label a text."""

    def _info(self) -> evaluate.MetricInfo:
        return _info("Accuracy, macro F1 and MCC (Gorodkin 2004) of single labels, by scikit-learn.", STRING)

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        is_constant = len({*references, *predictions}) == 1  # scikit-learn warns, and gives 0 too
        return {
            "accuracy": float(accuracy_score(references, predictions)),
            "macro_f1": float(f1_score(references, predictions, average="macro", zero_division=0)),
            "mcc": 0.0 if is_constant else float(matthews_corrcoef(references, predictions)),
        }


class LabelsMetric(evaluate.Metric):
    """F1 over all decisions, F1 averaged over labels, and the share of texts with exactly their labels."""

    def _info(self) -> evaluate.MetricInfo:
        return _info("Micro and macro F1 and exact match of label sets, by scikit-learn.", datasets.List(STRING))

    def _compute(self, predictions: list[list[str]], references: list[list[str]]) -> dict[str, float]:
        names, expected, found = hot(references, predictions)
        labels = range(max(len(names), 1))
        # scikit-learn takes a matrix of one column for single labels: labels that are never there widen it.
        expected, found = (np.pad(matrix, [(0, 0), (0, 2)]) for matrix in (expected, found))
        return {
            "micro_f1": float(f1_score(expected, found, labels=labels, average="micro", zero_division=0)),
            "macro_f1": float(f1_score(expected, found, labels=labels, average="macro", zero_division=0)),
            "exact_match": float(accuracy_score(expected, found)),
        }


class ScoreMetric(evaluate.Metric):
    """Pearson's and Spearman's correlation of numbers, and their mean absolute and root mean squared error.

    A correlation is 0 where one side is constant, which correlates with nothing. The errors are in the numbers' unit.
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
    "single_label": LabelMetric,
    "multi_label": LabelsMetric,
    "regression": ScoreMetric,
}


def compute(references: Iterable[Any], predictions: Iterable[Any], problem: str) -> dict[str, float]:
    """Return the scores of one split: of labels, lists of labels, or numbers."""
    # evaluate 0.4.6 makes a folder even for a metric that is kept in memory; not in a home that may be read-only.
    metric = METRICS[problem](keep_in_memory=True, cache_dir=str(layout.SCRATCH / "metrics"))
    return dict(metric.compute(predictions=list(predictions), references=list(references)) or {})


def validate(logits: np.ndarray, features: pa.Table, target: dict[str, Any]) -> dict[str, float]:
    """Score logits [features, labels] against the features' labels, one score a text; for choosing a checkpoint.

    The windows of a text have the mean of their logits. A label that train lacks counts as an error among single
    labels, and not at all among several.
    """
    problem, names = target["problem"], target["label_names"]
    rows, first, text = np.unique(features["example"].to_numpy(), return_index=True, return_inverse=True)
    pooled = pool(logits, text, len(rows), "mean")
    labels = features["labels"].take(pa.array(first))
    if problem == "regression":
        return compute(labels.to_numpy().astype(np.float64), pooled[:, 0].astype(np.float64), problem)
    if problem == "single_label":
        known = [*names, ""]  # IGNORE_INDEX is no name of any label
        references = [known[max(label, -1)] for label in labels.to_pylist()]
        return compute(references, [names[label] for label in pooled.argmax(-1)], problem)
    expected, found = np.array(labels.to_pylist()) > 0, sigmoid(pooled) >= THRESHOLD
    return compute(chosen(expected, names), chosen(found, names), problem)


def pool(logits: np.ndarray, text: np.ndarray, texts: int, how: str) -> np.ndarray:
    """Return one row of logits a text, the mean or the maximum over its features: float32 [texts, labels].

    text: the number of the text of each row of logits.
    """
    if how == "max":
        pooled = np.full((texts, logits.shape[1]), -np.inf, dtype=np.float32)
        np.maximum.at(pooled, text, logits)
        return pooled
    pooled = np.zeros((texts, logits.shape[1]), dtype=np.float32)
    np.add.at(pooled, text, logits)
    return pooled / np.bincount(text, minlength=texts)[:, None].astype(np.float32)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -logits))


def chosen(decisions: np.ndarray, names: Sequence[str]) -> list[list[str]]:
    """Return the names of the labels that are true: bool [texts, labels]."""
    return [[names[index] for index in np.flatnonzero(row).tolist()] for row in decisions]


def hot(
    references: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]]
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the labels that stand in either, sorted, and both as zeros and ones: int64 [texts, labels]."""
    names = sorted({label for texts in (references, predictions) for labels in texts for label in labels})
    column = {name: index for index, name in enumerate(names)}
    matrices = np.zeros((2, len(references), len(names)), dtype=np.int64)
    for matrix, texts in zip(matrices, (references, predictions), strict=True):
        for row, labels in zip(matrix, texts, strict=True):
            row[[column[label] for label in labels]] = 1
    return names, matrices[0], matrices[1]


def _info(description: str, kind: Any) -> evaluate.MetricInfo:
    return evaluate.MetricInfo(
        description=description,
        citation="https://scikit-learn.org, https://scipy.org",
        inputs_description="predictions and references, one a text",
        features=datasets.Features({"predictions": kind, "references": kind}),
    )
