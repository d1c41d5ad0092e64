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
    tail = (1 - settings.confidence) / 2 * 100
    return {
        name: (float(np.percentile(values, tail)), float(np.percentile(values, 100 - tail)))
        for name, values in resampled(n, to_scores, settings.samples, settings.seed).items()
    }


def resampled(n: int, to_scores: Statistic, samples: int, seed: int, drawn: int | None = None) -> dict[str, np.ndarray]:
    """Return each score [samples] of so many examples that are drawn out of n with replacement; of n, by default."""
    generator = np.random.default_rng(seed)
    parts = []
    starts = range(0, samples, SAMPLES_AT_ONCE)
    for start in Bar(starts, desc="resample", unit=f"times {SAMPLES_AT_ONCE} samples", delay=1):
        rows = generator.integers(n, size=(min(SAMPLES_AT_ONCE, samples - start), n if drawn is None else drawn))
        parts.append(to_scores(np.stack([np.bincount(row, minlength=n) for row in rows])))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
