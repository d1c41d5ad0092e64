"""Turns sums of losses at masked tokens into the scores of validation while a model trains."""

import numpy as np
import pyarrow as pa

# Names among the loss and validate()'s scores, any of which train.best_metric and a search may name.
LOWER_IS_BETTER = ("loss", "perplexity")


def validate(reduced: np.ndarray, features: pa.Table, target: None) -> dict[str, float]:
    """Score all blocks together: [blocks, 3], sums of losses (natural logarithm), right tokens and tokens."""
    loss, right, tokens = reduced.sum(0, dtype=np.float64)
    return {"perplexity": float(np.exp(loss / tokens)), "accuracy": float(right / tokens)}
