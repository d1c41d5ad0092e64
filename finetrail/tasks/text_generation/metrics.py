"""Turns losses of single tokens into perplexity; imported by training too."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from finetrail.tasks import IGNORE_INDEX
from finetrail.tasks.text_generation.settings import Target


def validate(losses: np.ndarray, features: pa.Table, target: Target) -> dict[str, float]:
    """Return the perplexity of all tokens with a label; losses [features, padded length] are 0 at the others.

    The mean over tokens, and not the mean over batches of their means, which the Trainer gives as the loss.
    """
    labels = pc.list_flatten(features["labels"]).to_numpy()
    lengths = pc.list_value_length(features["labels"]).to_numpy()
    own = np.arange(losses.shape[1]) < lengths[:, None]  # the Trainer fills up with another number
    return {"perplexity": float(np.exp(losses[own].sum(dtype=np.float64) / (labels != IGNORE_INDEX).sum()))}
