"""Continuations of a prompt: against transformers' generate() and its warpers, and the same for the same seed."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, TemperatureLogitsWarper, TopPLogitsWarper

from finetrail.evaluation import inference
from finetrail.evaluation.generation import choose, continuation

OPTIONS: dict[str, Any] = {"max_new_tokens": 20, "temperature": 0.8, "top_p": 0.9, "seed": 1}
NO_STOP = -1


@pytest.fixture(scope="module")
def model() -> GPT2LMHeadModel:
    sizes = {"vocab_size": 40, "n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 32}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GPT2Config(**sizes, bos_token_id=0, eos_token_id=0, pad_token_id=0, initializer_range=0.5)
        return GPT2LMHeadModel(config).eval()


def forwards(model: GPT2LMHeadModel) -> tuple[Any, Any]:
    """Return what reads all tokens at each step, and what the model's own memory serves."""
    whole, cached = inference.torch_forward(model), inference.torch_forward(model)
    vars(whole).pop("read")
    return whole, cached


@pytest.mark.parametrize("prompt", [[5], [1, 2, 3], [7] * 10])
def test_the_likeliest_tokens_are_those_of_transformers(model: GPT2LMHeadModel, prompt: list[int]) -> None:
    expected = model.generate(torch.tensor([prompt]), max_new_tokens=20, do_sample=False)[0, len(prompt) :].tolist()
    expected = expected[: expected.index(0)] if 0 in expected else expected
    for forward in forwards(model):
        assert continuation(prompt, forward, 0, **OPTIONS | {"temperature": 0.0}) == expected


def test_draws_are_the_same_with_and_without_memory(model: GPT2LMHeadModel) -> None:
    whole, cached = forwards(model)
    first = continuation([1, 2], whole, NO_STOP, **OPTIONS)
    assert len(first) == 20
    assert first == continuation([1, 2], cached, NO_STOP, **OPTIONS) == continuation([1, 2], whole, NO_STOP, **OPTIONS)
    assert first != continuation([1, 2], whole, NO_STOP, **OPTIONS | {"seed": 2})
    assert first[:7] == continuation([1, 2], whole, NO_STOP, **OPTIONS | {"max_new_tokens": 7})


def test_the_stopping_token_ends_a_continuation_and_is_not_in_it(model: GPT2LMHeadModel) -> None:
    tokens = continuation([1, 2], forwards(model)[0], NO_STOP, **OPTIONS)
    stop = tokens[5]
    assert continuation([1, 2], forwards(model)[0], stop, **OPTIONS) == tokens[: tokens.index(stop)]


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 0.9), (1.5, 0.6), (1.0, 0.01)])
def test_draws_follow_the_probabilities_of_transformers_warpers(temperature: float, top_p: float) -> None:
    logits = np.random.default_rng(0).normal(size=12) * 2
    scores = torch.tensor(logits)[None]
    for warper in (TemperatureLogitsWarper(temperature), TopPLogitsWarper(top_p) if top_p < 1 else lambda _, x: x):
        scores = warper(None, scores)  # type: ignore[operator]
    expected = scores.softmax(-1)[0].numpy()
    draws = (np.arange(20_000) + 0.5) / 20_000
    counts = Counter(choose(logits, temperature, top_p, draw) for draw in draws)
    found = np.array([counts[token] for token in range(len(logits))]) / len(draws)
    np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize("draw", [0.0, 1 - 2.0**-53])
def test_the_ends_of_the_draws_are_tokens_too(draw: float) -> None:
    assert 0 <= choose(np.zeros(7), 1.0, 1.0, draw) < 7
