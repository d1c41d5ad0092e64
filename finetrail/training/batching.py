"""Turns the lengths of features into the order in which training sees them."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Sampler

BATCHES_SORTED_TOGETHER = 50


def length_grouped(lengths: np.ndarray, batch_size: int, generator: np.random.Generator) -> np.ndarray:
    """Return a random order of the features in which each run of batch_size has similar lengths.

    A random permutation is sorted by length within groups of batches, and the batches are then shuffled, so that
    short and long ones alternate; an incomplete batch comes last.
    """
    order = generator.permutation(len(lengths))
    group = batch_size * BATCHES_SORTED_TOGETHER
    runs = [order[start : start + group] for start in range(0, len(order), group)]
    order = np.concatenate([run[np.argsort(lengths[run], kind="stable")] for run in runs] or [order])
    whole = len(order) // batch_size * batch_size
    batches = order[:whole].reshape(-1, batch_size)
    return np.concatenate([generator.permutation(batches).ravel(), order[whole:]])


class LengthGroupedSampler(Sampler[int]):
    """length_grouped as a sampler: another order in each epoch, from a seed that torch's generator gives once.

    Later, dropout has moved that generator on, and not alike in all processes, which must share one order.
    """

    def __init__(self, lengths: Sequence[int] | np.ndarray, batch_size: int) -> None:
        self.lengths, self.batch_size = np.asarray(lengths), batch_size
        self.generator = np.random.default_rng(int(torch.empty((), dtype=torch.int64).random_()))

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        yield from length_grouped(self.lengths, self.batch_size, self.generator).tolist()
