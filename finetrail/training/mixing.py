"""Chooses the features that each epoch takes from the parts of a mixture."""

import math

import numpy as np

from finetrail.schema import SizeMix, WeightMix


class Mixture:
    """The features of each epoch, from a train split of several parts; a pure function of seed and epoch.

    An epoch has as many features as train. Each part is iterated in passes over all its features, each pass in an
    order of its own. An epoch continues in each part where the previous epoch ended.
    """

    def __init__(self, parts: np.ndarray, mix: SizeMix | WeightMix, seed: int, epochs: float) -> None:
        """parts: the name of the part of each train feature, strings [features]."""
        self.names, part_of_row = np.unique(parts.astype(str), return_inverse=True)
        self.rows_of = [np.flatnonzero(part_of_row == part) for part in range(len(self.names))]
        self.mix, self.seed, self.epochs = mix, seed, math.ceil(epochs)

    def counts(self, epoch: int) -> np.ndarray:
        """Return how many features of each part an epoch has, in the order of names: int64 [parts]."""
        sizes = np.array([len(rows) for rows in self.rows_of])
        return rounded(shares(sizes, self.names.tolist(), self.mix, epoch, self.epochs) * sizes.sum())

    def record(self, epochs: int) -> dict[str, list[int]]:
        """Return how many features of each part each epoch has."""
        counts = np.array([self.counts(epoch) for epoch in range(epochs)])
        return dict(zip(self.names.tolist(), counts.T.tolist(), strict=True))

    def rows(self, epoch: int) -> np.ndarray:
        """Return the features of an epoch, part by part: int64 [features of train], a row perhaps several times."""
        starts = sum((self.counts(earlier) for earlier in range(epoch)), np.zeros(len(self.names), dtype=np.int64))
        bounds = zip(starts, starts + self.counts(epoch), strict=True)
        return np.concatenate([self._rows_between(part, start, end) for part, (start, end) in enumerate(bounds)])

    def _rows_between(self, part: int, start: int, end: int) -> np.ndarray:
        """Return the rows from start to end of the endless concatenation of a part's passes."""
        rows = self.rows_of[part]
        first, last = start // len(rows), math.ceil(end / len(rows))
        passes = [self._order(part, number) for number in range(first, last)]
        return np.concatenate([*passes, rows[:0]])[start - first * len(rows) : end - first * len(rows)]

    def _order(self, part: int, number: int) -> np.ndarray:
        """Return the features of a part in the order of one of its passes."""
        # The 1 is needed because NumPy pads a seed with zeros: a pass could have the seed of an epoch's batches.
        return np.random.default_rng([self.seed, part, number, 1]).permutation(self.rows_of[part])


def shares(sizes: np.ndarray, names: list[str], mix: SizeMix | WeightMix, epoch: int, epochs: int) -> np.ndarray:
    """Return the share of each part in an epoch of so many, from its size and name: float64 [parts], sum 1."""
    if isinstance(mix, WeightMix):
        found = np.array([mix.weights[name] for name in names])
    else:
        progress = epoch / (epochs - 1) if epochs > 1 else 0.0
        found = sizes ** (mix.power + (mix.last_power - mix.power) * progress)
    return found / found.sum()


def rounded(quotas: np.ndarray) -> np.ndarray:
    """Round quotas to integers with the same sum, up where the remainders are largest: int64, same length."""
    whole = np.floor(quotas).astype(np.int64)
    missing = round(quotas.sum()) - whole.sum()
    whole[np.argsort(whole - quotas, kind="stable")[:missing]] += 1
    return whole
