"""Turns counts of single examples into percentile intervals of the scores (Efron 1979)."""

from collections.abc import Callable

import numpy as np

from finetrail.schema import Bootstrap

SAMPLES_AT_ONCE = 50  # bounds the memory of the weights: so many rows of one number an example


def intervals(
    counts: np.ndarray, to_scores: Callable[[np.ndarray], dict[str, np.ndarray]], settings: Bootstrap
) -> dict[str, tuple[float, float]]:
    """Return (low, high) of each score over resampled examples.

    counts: [examples, k], what each example adds; to_scores turns sums [samples, k] into scores of shape [samples].
    """
    generator = np.random.default_rng(settings.seed)
    n = len(counts)
    sums = []
    for start in range(0, settings.samples, SAMPLES_AT_ONCE):
        size = min(SAMPLES_AT_ONCE, settings.samples - start)
        drawn = generator.integers(n, size=(size, n))
        weights = np.stack([np.bincount(row, minlength=n) for row in drawn])
        sums.append(weights @ counts)
    tail = (1 - settings.confidence) / 2 * 100
    return {
        name: (float(np.percentile(values, tail)), float(np.percentile(values, 100 - tail)))
        for name, values in to_scores(np.concatenate(sums)).items()
    }
