"""Turns logits over labelled features of texts into the scores of validation while a model trains."""

import numpy as np
import pyarrow as pa
from scipy.special import expit

from finetrail.evaluation.label_scores import chosen, compute, pool
from finetrail.tasks.text_classification.settings import Target

# Names among the loss and validate()'s scores, any of which train.best_metric and a search may name.
LOWER_IS_BETTER = ("loss", "mae", "rmse")

THRESHOLD = 0.5  # of validation; the recipe's is in evaluate, which training does not see


def validate(logits: np.ndarray, features: pa.Table, target: Target) -> dict[str, float]:
    """Score logits [features, labels] against the features' labels, one prediction per text.

    The logits of a text are the mean over its windows. A label that train lacks counts as an error for single labels,
    and is ignored for label sets.
    """
    problem, names = target["problem"], target["label_names"]
    rows, first, text = np.unique(features["example"].to_numpy(), return_index=True, return_inverse=True)
    pooled = pool(logits, text, len(rows), "mean")
    labels = features["labels"].take(pa.array(first))
    if problem == "regression":
        return compute(problem, labels.to_numpy().astype(np.float64), pooled[:, 0].astype(np.float64))
    if problem == "single_label":
        known = [*names, ""]  # IGNORE_INDEX is no name of any label
        references = [known[max(label, -1)] for label in labels.to_pylist()]
        return compute(problem, references, [names[label] for label in pooled.argmax(-1)])
    expected, found = np.array(labels.to_pylist()) > 0, expit(pooled) >= THRESHOLD
    return compute(problem, chosen(expected, names), chosen(found, names))
