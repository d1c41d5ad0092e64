"""Turns the weights of resampled examples into percentile intervals of the scores (Efron 1979)."""

from collections.abc import Callable, Iterator

import numpy as np

from finetrail.progress import Bar
from finetrail.schema import Bootstrap

# Weights of resampled examples [samples, n], which say how often each example counts -> scores [samples] by name.
Statistic = Callable[[np.ndarray], dict[str, np.ndarray]]

SAMPLES_AT_ONCE = 50
WEIGHTS_AT_ONCE = 1 << 23  # bounds the memory of the weights, one number per example and sample


def intervals(n: int, to_scores: Statistic, settings: Bootstrap) -> dict[str, tuple[float, float]]:
    """Return (low, high) of each score over resamplings of n examples."""
    tail = (1 - settings.confidence) / 2 * 100
    return {
        name: (float(np.percentile(values, tail)), float(np.percentile(values, 100 - tail)))
        for name, values in resampled(n, to_scores, settings.samples, settings.seed).items()
    }


def resampled(n: int, to_scores: Statistic, samples: int, seed: int, drawn: int | None = None) -> dict[str, np.ndarray]:
    """Return each score [samples] of examples drawn with replacement out of n; drawn: how many, by default n."""
    generator = np.random.default_rng(seed)
    parts = []
    with Bar(total=samples, desc="resample", unit="samples", delay=1) as bar:
        for size in sizes(samples, n):
            rows = (generator.integers(n, size=n if drawn is None else drawn) for _ in range(size))
            parts.append(to_scores(np.stack([np.bincount(row, minlength=n) for row in rows])))
            bar.update(size)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def sizes(samples: int, n: int) -> Iterator[int]:
    """Yield the sizes of the chunks in which samples of n examples are drawn; they do not change the draws."""
    step = max(1, min(SAMPLES_AT_ONCE, WEIGHTS_AT_ONCE // max(n, 1)))
    for start in range(0, samples, step):
        yield min(step, samples - start)
