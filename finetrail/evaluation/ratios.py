"""Ratios of counts, for scores of many resamplings at once."""

import numpy as np


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide; the result is 0 if the divisor is 0, as in scikit-learn and conlleval."""
    return np.divide(part, whole, out=np.zeros(np.shape(whole), dtype=np.float64), where=np.asarray(whole) > 0)
