"""Gradient checkpointing: the same gradients, of fewer activations."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import toy_models
from toy_models import BATCHES
from transformers import AlbertConfig, AlbertForTokenClassification

from finetrail import tasks
from finetrail.errors import UserError
from finetrail.schema import Lora
from finetrail.training import adapters
from finetrail.training.memory import checkpoint_gradients

LORA = Lora(rank=2, alpha=4.0, dropout=0.1, target_modules=None, keep=False, quantize=None)


@pytest.fixture
def gradients(tiny_checkpoint: Path, tmp_path: Path) -> Callable[..., tuple[dict[str, Any], int]]:
    """Return the function that gives a batch's gradients, with dropout, and how many numbers were kept for them."""

    def run(task: str, lora: bool, checkpointing: bool) -> tuple[dict[str, Any], int]:
        model = toy_models.build(task, tiny_checkpoint, tmp_path).train()
        if lora:
            adapters.add(model, LORA)
        if checkpointing:
            checkpoint_gradients(model)
        torch.manual_seed(5)
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: kept.append(tensor.numel()) or tensor, lambda t: t
        ):
            loss = model(**BATCHES[task]).loss
        loss.backward()
        return {name: parameter.grad for name, parameter in model.named_parameters()}, sum(kept)

    return run


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("task", tasks.names())
def test_gradients_are_the_same_of_fewer_activations(gradients: Any, task: str, lora: bool) -> None:
    (plain, most), (found, kept) = gradients(task, lora, False), gradients(task, lora, True)
    assert found.keys() == plain.keys()
    for name, gradient in plain.items():
        assert (gradient is None) == (found[name] is None)
        assert gradient is None or torch.equal(gradient, found[name])
    assert any(gradient is not None and gradient.any() for gradient in plain.values())
    assert kept < most / 2


def test_frozen_layers_get_no_gradient_and_evaluation_works(tiny_checkpoint: Path, tmp_path: Path) -> None:
    model = toy_models.build("token_classification", tiny_checkpoint, tmp_path)
    expected = model.eval()(**BATCHES["token_classification"]).logits
    checkpoint_gradients(model)
    model.bert.requires_grad_(False)
    assert not model.train().bert(**toy_models.TEXTS).last_hidden_state.requires_grad
    with torch.inference_mode():
        assert torch.equal(model.eval()(**BATCHES["token_classification"]).logits, expected)


def test_an_architecture_without_it_is_refused() -> None:
    config = AlbertConfig(vocab_size=9, hidden_size=8, embedding_size=8, num_attention_heads=1, intermediate_size=8)
    with pytest.raises(
        UserError, match="^train.gradient_checkpointing: transformers has none for albert; expected false$"
    ):
        checkpoint_gradients(AlbertForTokenClassification(config))
