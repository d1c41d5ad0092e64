"""Turns the weights of resampled examples into percentile intervals of the scores (Efron 1979)."""

from collections.abc import Callable

import numpy as np

from finetrail.progress import Bar
from finetrail.schema import Bootstrap

# Weights of resampled examples, [samples, n]: how often each example counts; to scores of shape [samples].
Statistic = Callable[[np.ndarray], dict[str, np.ndarray]]

SAMPLES_AT_ONCE = 50  # bounds the memory of the weights: so many rows of one number an example


def intervals(n: int, to_scores: Statistic, settings: Bootstrap) -> dict[str, tuple[float, float]]:
    """Return (low, high) of each score over resamplings of n examples."""
    generator = np.random.default_rng(settings.seed)
    parts = []
    starts = range(0, settings.samples, SAMPLES_AT_ONCE)
    for start in Bar(starts, desc="resample", unit=f"times {SAMPLES_AT_ONCE} samples"):
        size = min(SAMPLES_AT_ONCE, settings.samples - start)
        drawn = generator.integers(n, size=(size, n))
        parts.append(to_scores(np.stack([np.bincount(row, minlength=n) for row in drawn])))
    tail = (1 - settings.confidence) / 2 * 100
    scores = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {
        name: (float(np.percentile(values, tail)), float(np.percentile(values, 100 - tail)))
        for name, values in scores.items()
    }
