"""Turns logits into labels, and labels into scores: what validation and evaluation of a task share.

The libraries that score are imported when something is scored: they take seconds, and prediction needs none of them.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from finetrail import layout


def compute(kind: str, references: Iterable[Any], predictions: Iterable[Any]) -> dict[str, float]:
    """Return the scores of one split; kind: a key of label_metrics.METRICS, which describes the values."""
    from finetrail.evaluation.label_metrics import METRICS

    # evaluate 0.4.6 makes a folder even for a metric that is kept in memory; not in a home that may be read-only.
    metric = METRICS[kind](keep_in_memory=True, cache_dir=str(layout.SCRATCH / "metrics"))
    return dict(metric.compute(predictions=list(predictions), references=list(references)) or {})


def pool(logits: np.ndarray, text: np.ndarray, texts: int, how: str) -> np.ndarray:
    """Return one row of logits per text, the mean or the maximum over its features: float32 [texts, labels].

    text: the number of the text of each row of logits.
    """
    if len(logits) == texts and (text == np.arange(texts)).all():
        return logits + np.float32(0)  # turns -0 into 0, as summing does
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
