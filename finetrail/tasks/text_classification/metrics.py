"""Turns predictions and references of texts into scores; imported by training too.

Labels are scored by scikit-learn, numbers by scipy and scikit-learn, each set of scores as a local module of
`evaluate`.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from scipy.special import expit

from finetrail import layout
from finetrail.tasks.text_classification.settings import Target

if TYPE_CHECKING:
    from scipy.sparse import csr_array

THRESHOLD = 0.5  # of validation; the recipe's is in evaluate, which training does not see


def compute(references: Iterable[Any], predictions: Iterable[Any], problem: str) -> dict[str, float]:
    """Return the scores of one split: of labels, lists of labels, or numbers."""
    from finetrail.evaluation.label_metrics import METRICS  # seconds to import: not for who only predicts

    # evaluate 0.4.6 makes a folder even for a metric that is kept in memory; not in a home that may be read-only.
    metric = METRICS[problem](keep_in_memory=True, cache_dir=str(layout.SCRATCH / "metrics"))
    return dict(metric.compute(predictions=list(predictions), references=list(references)) or {})


def validate(logits: np.ndarray, features: pa.Table, target: Target) -> dict[str, float]:
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
    expected, found = np.array(labels.to_pylist()) > 0, expit(pooled) >= THRESHOLD
    return compute(chosen(expected, names), chosen(found, names), problem)


def pool(logits: np.ndarray, text: np.ndarray, texts: int, how: str) -> np.ndarray:
    """Return one row of logits a text, the mean or the maximum over its features: float32 [texts, labels].

    text: the number of the text of each row of logits.
    """
    if len(logits) == texts and (text == np.arange(texts)).all():
        return logits + np.float32(0)  # which makes 0 of -0, as summing does
    if how == "max":
        pooled = np.full((texts, logits.shape[1]), -np.inf, dtype=np.float32)
        np.maximum.at(pooled, text, logits)
        return pooled
    pooled = np.zeros((texts, logits.shape[1]), dtype=np.float32)
    np.add.at(pooled, text, logits)
    return pooled / np.bincount(text, minlength=texts)[:, None].astype(np.float32)


def chosen(decisions: np.ndarray, names: Sequence[str]) -> list[list[str]]:
    """Return the names of the labels that are true: bool [texts, labels]."""
    return [[names[index] for index in np.flatnonzero(row).tolist()] for row in decisions]


def hot(
    references: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]]
) -> "tuple[list[str], csr_array, csr_array]":
    """Return the labels that stand in either, sorted, and both as zeros and ones: sparse float64 [texts, labels]."""
    from scipy.sparse import csr_array  # not for who only predicts

    names = sorted({label for texts in (references, predictions) for labels in texts for label in labels})
    column = {name: index for index, name in enumerate(names)}
    matrices = []
    for texts in (references, predictions):
        columns = [sorted({column[label] for label in labels}) for labels in texts]
        bounds = np.cumsum([0, *map(len, columns)])
        ones, indices = np.ones(bounds[-1]), np.fromiter(chain.from_iterable(columns), np.int64, bounds[-1])
        matrices.append(csr_array((ones, indices, bounds), shape=(len(texts), len(names))))
    return names, matrices[0], matrices[1]
