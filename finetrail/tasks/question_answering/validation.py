"""Turns a model's logits over labelled features into the score of validation while a model trains.

exact_match and f1 are in metrics.py: they need the text of answers, and a change to them must not retrain.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from finetrail.tasks.question_answering.settings import NULL_POSITION, Target

# Names among the loss and validate()'s scores, any of which train.best_metric and a search may name.
LOWER_IS_BETTER = ("loss",)


def span_accuracy(start_logits: np.ndarray, end_logits: np.ndarray, features: pa.Table, unanswerable: bool) -> float:
    """Return the share of examples whose best window has its best start and its best end where the labels are.

    logits: [features, padded length]. unanswerable: whether "no answer" is a choice. Then an example without a label is
    correct if its lowest null score is at least the score of its best span.
    """
    positions = np.arange(start_logits.shape[1])
    first = features["context_start"].to_numpy()[:, None]
    inside = (positions >= first) & (positions < first + pc.list_value_length(features["starts"]).to_numpy()[:, None])
    starts, ends = (np.where(inside, logits, -np.inf) for logits in (start_logits, end_logits))
    best = starts.max(1) + ends.max(1)
    labels = features["start_positions"].to_numpy(), features["end_positions"].to_numpy()
    right = (starts.argmax(1) == labels[0]) & (ends.argmax(1) == labels[1]) & (labels[0] != NULL_POSITION)
    example = np.unique(features["example"].to_numpy(), return_inverse=True)[1]
    chosen = np.lexsort((-best, example))[np.unique(np.sort(example), return_index=True)[1]]
    if not unanswerable:
        return float(right[chosen].mean())
    null = np.full(len(chosen), np.inf)
    np.minimum.at(null, example, start_logits[:, NULL_POSITION] + end_logits[:, NULL_POSITION])
    answered, has_answer = best[chosen] > null, np.bincount(example, labels[0] != NULL_POSITION) > 0
    return float(np.where(has_answer, right[chosen] & answered, ~answered).mean())


def validate(reduced: tuple[np.ndarray, np.ndarray], features: pa.Table, target: Target) -> dict[str, float]:
    """Score the logits of all features, for choosing a checkpoint."""
    return {"span_accuracy": span_accuracy(*reduced, features, target["unanswerable"])}
