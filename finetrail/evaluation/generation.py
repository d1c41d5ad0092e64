"""Turns the tokens of a prompt into those of a continuation, with the same result for torch and ONNX.

transformers' generate() needs a torch model, and samples with its device's generator. Here NumPy samples.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from finetrail.evaluation.inference import Forward, Read

# Tokens so far -> logits of the next, float64 [vocabulary].
Step = Callable[[list[int]], np.ndarray]


def continuation(
    prompt: list[int],
    forward: Forward,
    stop: int,
    *,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
) -> list[int]:
    """Return the new tokens, at most max_new_tokens; the token `stop` ends them and is not one of them.

    It depends only on the prompt and the options. temperature 0: the likeliest token; top_p: Holtzman et al. 2020.
    """
    # Seeded by the prompt too: with one seed alone each prompt would get the same draws, and much the same words.
    # NumPy guarantees both streams across versions; 53 bits make a number in [0, 1), as in random().
    raw = np.random.PCG64(np.random.SeedSequence([seed, *prompt])).random_raw(max_new_tokens)
    draws = (raw >> np.uint64(11)) * 2.0**-53
    step = _remembering(forward.read) if hasattr(forward, "read") else _whole(forward)
    tokens = list(prompt)
    for draw in draws:
        token = choose(step(tokens), temperature, top_p, float(draw))
        if token == stop:
            break
        tokens.append(token)
    return tokens[len(prompt) :]


def choose(logits: np.ndarray, temperature: float, top_p: float, draw: float) -> int:
    """Return the token that a number in [0, 1) picks from the nucleus: the fewest tokens with probability top_p."""
    if temperature == 0:
        return int(logits.argmax())
    weights = np.exp((logits - logits.max()) / temperature)
    order = np.argsort(-weights, kind="stable")
    reached = np.cumsum(weights[order] / weights.sum())
    # Rounding may leave the last sum a little below 1.
    size = min(int(np.searchsorted(reached, top_p)) + 1, len(order))
    return int(order[np.searchsorted(reached[:size], draw * reached[size - 1], side="right").clip(max=size - 1)])


def _whole(forward: Forward) -> Step:
    """Read all tokens at each step, without a cache."""

    def step(tokens: list[int]) -> np.ndarray:
        ids = np.array([tokens], dtype=np.int64)
        return forward({"input_ids": ids, "attention_mask": np.ones_like(ids)})["logits"][0, -1].astype(np.float64)

    return step


def _remembering(read: Read) -> Step:
    """Read only the new tokens at each step; a cache has keys and values of earlier tokens."""
    kept: Any = None
    seen = 0

    def step(tokens: list[int]) -> np.ndarray:
        nonlocal kept, seen
        logits, kept = read(tokens[seen:], kept)
        seen = len(tokens)
        return logits

    return step
