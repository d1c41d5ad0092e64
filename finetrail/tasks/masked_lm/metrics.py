"""Turns sums of losses at masked tokens into perplexity and accuracy; imported by training too."""

from typing import Any

import numpy as np
import pyarrow as pa


def scores(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Turn sums [..., 3] of losses (natural logarithm), right tokens and tokens into scores, each of shape [...].

    The perplexity is that of all tokens together: a mean over batches or blocks would weigh their tokens unequally.
    """
    loss, accuracy = sums[..., 0] / sums[..., 2], sums[..., 1] / sums[..., 2]
    return {"perplexity": np.exp(loss), "loss": loss, "accuracy": accuracy}


def validate(reduced: np.ndarray, features: pa.Table, target: None) -> dict[str, float]:
    """Score what training keeps of each block: [blocks, 3], sums as in scores()."""
    result: dict[str, Any] = scores(reduced.sum(0, dtype=np.float64))
    return {name: float(result[name]) for name in ("perplexity", "accuracy")}
