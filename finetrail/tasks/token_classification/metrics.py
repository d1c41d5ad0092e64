"""Turns word-level references and predictions into counts per sentence, and counts into scores.

Training never imports it. IOB2 tags are scored as entities, as conlleval does; labels of the scheme none (parts of
speech) are scored word by word.
"""

from array import array
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetrail.evaluation import label_scores
from finetrail.evaluation.ratios import ratio
from finetrail.tasks.token_classification.settings import Target
from finetrail.tasks.token_classification.settings import has_entities as has_entities

if TYPE_CHECKING:
    from scipy.sparse import csr_array

LOWER_IS_BETTER: tuple[str, ...] = ()

Labels = Sequence[Sequence[str]]  # sentences of labels


def compute(references: Labels, predictions: Labels, target: Target) -> dict[str, float]:
    """Return the scores of one split, each in [0, 1]."""
    return label_scores.compute("entities" if has_entities(target) else "tokens", references, predictions)


def units(references: Labels, predictions: Labels, target: Target) -> list[str]:
    """Return the scored entity types, or labels: those in the references or the predictions, sorted."""
    labels = {label for sentences in (references, predictions) for sentence in sentences for label in sentence}
    return sorted({label[2:] for label in labels if label != "O"} if has_entities(target) else labels)


def count(references: Labels, predictions: Labels, target: Target) -> "csr_array":
    """Return the counts of each sentence: sparse int64 [sentences, 3 * units + 2].

    For each unit of units(): right, predicted, expected; then words right and words in all. Scores of any set of
    sentences come from the sum of their rows.
    """
    from scipy.sparse import csr_array  # prediction alone does not need it

    names = units(references, predictions, target)
    column = {name: 3 * index for index, name in enumerate(names)}
    entities = has_entities(target)
    rows, columns, values = array("q"), array("q"), array("q")
    for row, (expected, predicted) in enumerate(zip(references, predictions, strict=True)):
        right = [a == b for a, b in zip(expected, predicted, strict=True)]
        counted = Counter({3 * len(names): sum(right), 3 * len(names) + 1: len(right)})
        wanted, found = _chunks(expected, entities), _chunks(predicted, entities)
        for offset, chunks in ((0, wanted & found), (1, found), (2, wanted)):
            counted.update(column[chunk[0]] + offset for chunk in chunks)
        rows.extend([row] * len(counted))
        columns.extend(counted)
        values.extend(counted.values())
    shape = len(references), 3 * len(names) + 2
    return csr_array((np.array(values), (np.array(rows), np.array(columns))), shape=shape, dtype=np.int64)


def scores(sums: np.ndarray, target: Target) -> dict[str, np.ndarray]:
    """Turn summed counts [..., 3 * units + 2] into the scores of compute(), each of shape [...]."""
    right, predicted, expected = (sums[..., offset:-2:3] for offset in range(3))
    macro_f1 = _f1(right, predicted, expected)
    # A unit that a resampled split lacks altogether is left out of its average, as seqeval and scikit-learn do.
    present = (predicted + expected) > 0
    result = {
        "accuracy": ratio(sums[..., -2], sums[..., -1]),
        "macro_f1": ratio((macro_f1 * present).sum(-1), present.sum(-1)),
    }
    if has_entities(target):
        totals = right.sum(-1), predicted.sum(-1), expected.sum(-1)
        micro = {"f1": _f1(*totals), "precision": ratio(totals[0], totals[1]), "recall": ratio(totals[0], totals[2])}
        return micro | result
    return result


def per_unit(sums: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return precision, recall, F1 and support of each unit, from the sum of count()'s rows: [3 * units + 2]."""
    right, predicted, expected = (sums[offset:-2:3] for offset in range(3))
    columns = ratio(right, predicted), ratio(right, expected), _f1(right, predicted, expected)
    return [
        {"label": name, "precision": float(p), "recall": float(r), "f1": float(f), "support": int(support)}
        for name, p, r, f, support in zip(names, *columns, expected, strict=True)
    ]


def _chunks(labels: Sequence[str], entities: bool) -> set[tuple[Any, ...]]:
    if entities:
        from seqeval.metrics.sequence_labeling import get_entities  # imports scikit-learn

        return set(get_entities(list(labels)))
    return {(label, index) for index, label in enumerate(labels)}


def _f1(right: np.ndarray, predicted: np.ndarray, expected: np.ndarray) -> np.ndarray:
    return ratio(2 * right, predicted + expected)
