"""Turns losses of tokens, and generated tokens, into scores; training never imports it."""

import numpy as np
import pyarrow as pa

REPEATED = 4  # tokens of a repetition (seq-rep-4 of Welleck et al. 2020)

LOWER_IS_BETTER = ("perplexity", "loss", "bits_per_byte", f"repetition_{REPEATED}")


def scores(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Turn sums [..., 4] of tokens, their losses, correct tokens and bytes into scores [...]."""
    tokens, losses, right, size = np.moveaxis(sums, -1, 0)
    loss = losses / tokens
    return {
        "perplexity": np.exp(loss),
        "loss": loss,
        "bits_per_byte": losses / np.log(2) / np.maximum(size, 1),
        "accuracy": right / tokens,
    }


def of_samples(predictions: pa.Table) -> dict[str, float]:
    """Return diversity and repetition of the continuations, and of the reference texts."""
    if "continuation_ids" not in predictions.column_names:
        return {}
    found = {
        "": predictions["continuation_ids"].drop_null().to_pylist(),
        "reference_": predictions["reference_continuation_ids"].drop_null().to_pylist(),
    }
    return {
        f"{prefix}{name}": value
        for prefix, texts in found.items()
        if texts
        for name, value in {
            "distinct_1": distinct(texts, 1),
            "distinct_2": distinct(texts, 2),
            f"repetition_{REPEATED}": repetition(texts),
        }.items()
    }


def distinct(texts: list[list[int]], size: int) -> float:
    """Return different n-grams as a share of all n-grams, over all texts together (Li et al. 2016)."""
    grams = [gram for text in texts for gram in _grams(text, size)]
    return len(set(grams)) / max(len(grams), 1)


def repetition(texts: list[list[int]]) -> float:
    """Return the share of a text's 4-grams that occurred in it before, the mean over texts (Welleck et al. 2020).

    A text of fewer than 4 tokens has a share of 0.
    """
    shares = [1 - len(set(grams)) / len(grams) if (grams := _grams(text, REPEATED)) else 0.0 for text in texts]
    return sum(shares) / len(shares)


def _grams(text: list[int], size: int) -> list[tuple[int, ...]]:
    return list(zip(*(text[start:] for start in range(size)), strict=False))
