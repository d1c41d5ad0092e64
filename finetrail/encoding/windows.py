"""Splits texts that are longer than a feature into overlapping windows, as the tokenizers library does."""

import numpy as np

from finetrail.encoding.ragged import bounds


class Windows:
    """The windows over sentences of given lengths: [k * step, k * step + capacity), until one reaches the end."""

    def __init__(self, lengths: np.ndarray, capacity: int, step: int) -> None:
        self.lengths, self.capacity, self.step = lengths, capacity, step
        self.count = 1 + np.maximum(0, -(-(lengths - capacity) // step))
        self.first = bounds(self.count)[:-1]
        self.sentence = np.repeat(np.arange(len(lengths)), self.count)
        self.start = (np.arange(len(self.sentence)) - self.first[self.sentence]) * step
        self.size = np.minimum(capacity, lengths[self.sentence] - self.start)

    def with_most_context(self, sentence: np.ndarray, token: np.ndarray) -> np.ndarray:
        """Return the window of its sentence in which each token is farthest from a cut; ties go to the earlier.

        The ends of the sentence are no cuts.
        """
        length, last = self.lengths[sentence], self.count[sentence] - 1
        nearest = np.minimum(token // self.step, last)
        best, most = nearest, np.full(len(token), -1)
        for back in range(-(-self.capacity // self.step)):
            window = nearest - back
            start = window * self.step
            left = np.where(window == 0, length, token - start)
            right = np.where(window == last, length, start + self.capacity - 1 - token)
            context = np.where(window >= 0, np.minimum(left, right), -1)
            better = context >= np.maximum(most, 0)
            best, most = np.where(better, window, best), np.where(better, context, most)
        return best
