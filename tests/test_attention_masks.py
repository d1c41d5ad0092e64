"""Attention masks that are made without reading from the device."""

from typing import Any

import numpy as np
import pytest
import torch
from test_packing import CONFIGS, DECODERS, made, outputs_of, padded_batch

from finetrail.evaluation.inference import torch_forward
from finetrail.patches.attention_masks import NAME, use_masks_unread


@pytest.mark.parametrize("name", CONFIGS)
def test_outputs_are_the_same_and_no_mask_is_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    head = "next token" if name in DECODERS else "tokens"
    model, batch = made(name, head), padded_batch(head)
    del batch["labels"]
    whole = {key: value[:1] for key, value in batch.items()}  # a text without padding
    expected = [outputs_of(model, inputs) for inputs in (batch, whole)]
    use_masks_unread(model)
    assert model.config._attn_implementation == NAME

    def read(tensor: torch.Tensor) -> bool:
        raise AssertionError("a mask is read")

    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(torch.Tensor, "__bool__", read)
        model.eval()(**batch)
        model(**whole)
    found = [outputs_of(model, inputs) for inputs in (batch, whole)]
    for ones, others in zip(expected, found, strict=True):
        for one, other in zip(ones, others, strict=True):
            torch.testing.assert_close(one, other)


def test_eager_attention_stays() -> None:
    model = made("bert", "tokens")
    model.set_attn_implementation("eager")
    use_masks_unread(model)
    assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize("padded", [False, True])
def test_a_gpu_evaluates_batches_without_padding_without_a_mask(padded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made("bert", "sequence")
    ids = np.array([[5, 6, 7], [8, 9, 1]])
    inputs = {"input_ids": ids, "attention_mask": (ids != 1).astype(np.int64) if padded else np.ones_like(ids)}
    expected = torch_forward(model)(inputs)["logits"]
    given: list[set[str]] = []
    forward = model.forward

    def noted(**tensors: Any) -> Any:
        given.append(set(tensors))
        return forward(**tensors)

    model.forward = noted
    # Its device is asked for where tensors go; they stay here.
    monkeypatch.setattr(type(model), "device", property(lambda self: torch.device("cuda")))
    monkeypatch.setattr("finetrail.transfers.send", lambda tensors, device: tensors)
    np.testing.assert_allclose(torch_forward(model)(inputs)["logits"], expected, atol=1e-6)
    assert given == [{"input_ids", "attention_mask"} if padded else {"input_ids"}]
