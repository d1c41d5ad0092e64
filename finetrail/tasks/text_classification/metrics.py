"""Turns label sets into counts, and says which scores of texts are errors; training never imports it."""

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array

LOWER_IS_BETTER = ("ece", "mae", "rmse")


def hot(
    references: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]]
) -> "tuple[list[str], csr_array, csr_array]":
    """Return the labels that occur in either, sorted, and both as zeros and ones: sparse float64 [texts, labels]."""
    from scipy.sparse import csr_array  # prediction alone does not need it

    names = sorted({label for texts in (references, predictions) for labels in texts for label in labels})
    column = {name: index for index, name in enumerate(names)}
    matrices = []
    for texts in (references, predictions):
        columns = [sorted({column[label] for label in labels}) for labels in texts]
        bounds = np.cumsum([0, *map(len, columns)])
        ones, indices = np.ones(bounds[-1]), np.fromiter(chain.from_iterable(columns), np.int64, bounds[-1])
        matrices.append(csr_array((ones, indices, bounds), shape=(len(texts), len(names))))
    return names, matrices[0], matrices[1]
