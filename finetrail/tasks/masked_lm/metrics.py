"""Turns sums of losses at masked tokens into perplexity, loss and accuracy; training never imports it."""

import numpy as np

LOWER_IS_BETTER = ("perplexity", "loss")


def scores(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Turn sums [..., 3] of losses (natural logarithm), right tokens and tokens into scores, each of shape [...].

    The perplexity is that of all tokens together: a mean over batches or blocks would weigh their tokens unequally.
    """
    loss, accuracy = sums[..., 0] / sums[..., 2], sums[..., 1] / sums[..., 2]
    return {"perplexity": np.exp(loss), "loss": loss, "accuracy": accuracy}
