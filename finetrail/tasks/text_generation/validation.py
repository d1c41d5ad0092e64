"""Turns losses of single tokens into the perplexity of validation while a model trains."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from finetrail.labels import IGNORE_INDEX
from finetrail.tasks.text_generation.settings import Target

# Names among the loss and validate()'s scores, any of which train.best_metric and a search may name.
LOWER_IS_BETTER = ("loss", "perplexity")


def validate(losses: np.ndarray, features: pa.Table, target: Target) -> dict[str, float]:
    """Return the perplexity of all tokens with a label; losses [features, padded length] are 0 at the others.

    This is a mean over tokens. The Trainer's own loss is a mean over batches.
    """
    labels = pc.list_flatten(features["labels"]).to_numpy()
    lengths = pc.list_value_length(features["labels"]).to_numpy()
    own = np.arange(losses.shape[1]) < lengths[:, None]  # the Trainer pads with another number
    return {"perplexity": float(np.exp(losses[own].sum(dtype=np.float64) / (labels != IGNORE_INDEX).sum()))}
