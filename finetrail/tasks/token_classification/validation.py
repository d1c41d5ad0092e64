"""Turns argmax ids over labelled features into the scores of validation while a model trains."""

import numpy as np
import pyarrow as pa

from finetrail.evaluation import label_scores
from finetrail.tasks.token_classification.settings import Target, has_entities, label_names

# Names among the loss and validate()'s scores, any of which train.best_metric and a search may name.
LOWER_IS_BETTER = ("loss",)

UNSEEN = ""  # a label that train lacks; labels of train are never empty


def validate(predicted_ids: np.ndarray, features: pa.Table, target: Target) -> dict[str, float]:
    """Score argmax ids [features, padded length] at the words of the features, for choosing a checkpoint.

    A word of an entity type that train lacks counts as O here; evaluate counts it as an error.
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
    return label_scores.compute("entities" if has_entities(target) else "tokens", references, predictions)
