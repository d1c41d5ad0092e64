"""The loss of a classifier, with label smoothing, class weights and separate heads."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from finetrail.errors import UserError
from finetrail.labels import IGNORE_INDEX
from finetrail.schema import ClassifierTrain

FEATURES_AT_ONCE = 10_000


def adjust(model: PreTrainedModel, label_names: list[str], settings: ClassifierTrain, train: Dataset) -> None:
    """Make the model, while it trains, compute the loss that the settings ask for. In evaluation it has its own.

    The loss is the sum of each item's smoothed cross-entropy times the weight of its label, divided by the number of
    items, so that the losses of micro-batches add up to that of the batch. train: features with labels.
    UserError if the labels of class_weights are not those of the corpus.
    """
    if settings.label_smoothing == 0 and settings.class_weights is None:
        return
    # A buffer moves to the model's device; it is not saved.
    model.register_buffer("class_weights", class_weights(settings.class_weights, label_names, train), persistent=False)

    def replace(model: Any, _: Any, inputs: dict[str, Any], outputs: Any) -> Any:
        if model.training and inputs.get("labels") is not None:
            outputs["loss"] = classifier_loss(
                outputs["logits"], inputs["labels"], model.class_weights, settings.label_smoothing
            )
        return outputs

    model.register_forward_hook(replace, with_kwargs=True)


def separate(model: PreTrainedModel, heads: list[list[int]]) -> None:
    """Make the model, given labels, choose among the outputs of the label's head, in training and validation.

    heads: the outputs of each head. The logits of other heads become -inf, and the loss is the cross-entropy over the
    rest, as that of a model with this head alone.
    """
    head_of = torch.zeros(sum(map(len, heads)), dtype=torch.int64)
    for head, outputs in enumerate(heads):
        head_of[outputs] = head
    model.register_buffer("head_of_output", head_of, persistent=False)

    def replace(model: Any, _: Any, inputs: dict[str, Any], outputs: Any) -> Any:
        if (labels := inputs.get("labels")) is not None:
            own = model.head_of_output[labels.clamp(min=0)][:, None] == model.head_of_output
            outputs["logits"] = outputs["logits"].masked_fill(~own, -torch.inf)
            outputs["loss"] = cross_entropy(outputs["logits"].float(), labels, ignore_index=IGNORE_INDEX)
        return outputs

    model.register_forward_hook(replace, with_kwargs=True)


def classifier_loss(
    logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, label_smoothing: float
) -> torch.Tensor:
    """Return the weighted mean over the items with a label: logits [..., labels], labels int64 [...], weights [labels].

    The divisor is the number of items; torch's own weighted mean divides by the sum of weights. Smoothing leaves
    1 - label_smoothing to the label, and divides the rest equally among all labels (Szegedy et al. 2016).
    """
    labels = labels.flatten()
    # The loss is 0 without a label. Leaving such items out would make shapes depend on data, which compiling cannot.
    losses = cross_entropy(
        logits.flatten(0, -2).float(),
        labels,
        ignore_index=IGNORE_INDEX,
        reduction="none",
        label_smoothing=label_smoothing,
    )
    return (losses * weights[labels.clamp(min=0)]).sum() / (labels != IGNORE_INDEX).sum()


def class_weights(given: str | dict[str, float] | None, label_names: list[str], train: Dataset) -> torch.Tensor:
    """Return a weight for each label, float32 [labels].

    balanced: as in scikit-learn, features / (labels * features of the label), so 1 on average over train; 1 for a
    label that train lacks. UserError if `given` has other labels than label_names.
    """
    if given is None:
        return torch.ones(len(label_names))
    if isinstance(given, dict):
        if set(given) != set(label_names):
            raise UserError(
                f"train.class_weights has the labels {', '.join(sorted(given))}; expected all labels of train, and no "
                f"others: {', '.join(label_names)}"
            )
        return torch.tensor([given[name] for name in label_names])
    counts = label_counts(train, len(label_names))
    seen = counts > 0
    weights = np.ones(len(counts))
    weights[seen] = counts.sum() / (seen.sum() * counts[seen])
    return torch.tensor(weights, dtype=torch.float32)


def label_counts(train: Dataset, labels: int) -> np.ndarray:
    """Count each label in the column `labels`, which has one or a list per feature: int64 [labels]."""
    counts = np.zeros(labels, dtype=np.int64)
    for batch in train.select_columns(["labels"]).with_format("arrow").iter(FEATURES_AT_ONCE):
        column = batch["labels"]
        known = pc.list_flatten(column) if pa.types.is_list(column.type) else column
        found = known.to_numpy()
        counts += np.bincount(found[found != IGNORE_INDEX], minlength=labels)
    return counts
