"""Models that continue text: made new or loaded, their losses, their batches, and their ONNX."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertLMHeadModel, DistilBertConfig, GPT2Config, GPT2LMHeadModel, GPT2Model

from finetrail import schema
from finetrail.errors import UserError
from finetrail.evaluation import generation, inference
from finetrail.exporting.onnx import export_onnx
from finetrail.labels import IGNORE_INDEX
from finetrail.model.base import copy_verified
from finetrail.sources import fetch
from finetrail.tasks.text_generation import card, loading, modeling, scoring, validation

X = IGNORE_INDEX
TARGET = {"block_size": 16, "template": None, "chat": False}
SIZES = {"vocab_size": 40, "n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 32}
IDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}


def seeded_gpt2() -> GPT2LMHeadModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return GPT2LMHeadModel(GPT2Config(**SIZES, **IDS, initializer_range=0.5)).eval()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpt2")
    seeded_gpt2().save_pretrained(folder)
    return folder


@pytest.fixture
def new_model(tmp_path: Path) -> Path:
    source = schema.NewSource.model_validate(
        {
            "kind": "new",
            "config": {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 32},
            "tokenizer": {"kind": "byte_level_bpe", "vocab_size": 300, "min_frequency": 2},
        }
    )
    copy_verified(fetch(source, "model", tmp_path / "scratch"), tmp_path / "model")
    return tmp_path / "model/weights"


def build(folder: Path, seed: int = 0) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return modeling.build_model(folder, TARGET, None, None)  # type: ignore[arg-type]


def test_a_new_model_is_drawn_from_the_seed_and_is_no_baseline(new_model: Path) -> None:
    first, again, other = (build(new_model, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    assert not torch.equal(first["transformer.wte.weight"], other["transformer.wte.weight"])
    assert first["transformer.wte.weight"].shape == (300, 16)
    assert {tensor.dtype for tensor in first.values()} == {torch.float32}
    assert not scoring.base_is_baseline(new_model)


def test_a_base_model_keeps_its_weights_and_is_a_baseline(checkpoint: Path) -> None:
    assert scoring.base_is_baseline(checkpoint)
    expected = seeded_gpt2().state_dict()
    for model in (build(checkpoint), loading.load_model(checkpoint)):
        assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


def test_weights_without_the_heads_prefix_are_those_of_the_model(tmp_path: Path) -> None:
    GPT2Model(GPT2Config(**SIZES, **IDS)).save_pretrained(tmp_path)  # as openai-community/gpt2 has them
    assert torch.equal(build(tmp_path).transformer.wte.weight, GPT2Model.from_pretrained(tmp_path).wte.weight)


def test_half_precision_checkpoints_train_in_single_precision(tmp_path: Path) -> None:
    seeded_gpt2().half().save_pretrained(tmp_path)
    for model in (build(tmp_path), loading.load_model(tmp_path)):
        assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}


def test_a_model_that_sees_what_it_is_to_predict_is_refused(tmp_path: Path) -> None:
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertLMHeadModel(BertConfig(vocab_size=40, is_decoder=False, **small)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="bert attends to the tokens to predict; expected a decoder"):
        build(tmp_path)


def test_an_architecture_without_a_language_model_is_refused(tmp_path: Path) -> None:
    DistilBertConfig().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="no CausalLM of distilbert in transformers"):
        build(tmp_path)


def test_a_trained_model_gives_logits_alone(checkpoint: Path) -> None:
    with torch.no_grad():
        assert list(loading.load_model(checkpoint)(input_ids=torch.tensor([[1, 2]])).keys()) == ["logits"]


def test_an_exported_model_continues_with_memory(checkpoint: Path, tmp_path: Path) -> None:
    build(checkpoint).save_pretrained(tmp_path)
    assert modeling.AutoModelForCausalLM.from_pretrained(tmp_path).generation_config.use_cache is True


class Tokenizer:
    """As much of a tokenizer as a collator asks for."""

    padding_side = "right"
    pad_token_id = 0
    model_input_names = ("input_ids", "attention_mask")


def test_labels_are_padded_with_what_has_no_loss() -> None:
    collate = modeling.build_collator(Tokenizer(), None)  # type: ignore[arg-type]
    batch = collate(pa.table({"input_ids": [[1, 2], [3, 4, 5]], "labels": [[X, 2], [X, X, 5]]}))
    assert batch["labels"].tolist() == [[X, 2, X], [X, X, 5]]


# --- losses ---------------------------------------------------------------------------------------------------------

FEATURES = [([1, 2, 3, 4, 5], [X, 2, 3, 4, 5]), ([6, 7, 8], [X, X, 8]), ([9, 10, 11, 12], [X, 10, 11, 12])]


def perplexity_one_by_one(model: Any) -> float:
    """Each feature alone, without padding, its losses token by token."""
    losses = []
    with torch.no_grad():
        for ids, labels in FEATURES:
            logits = model(input_ids=torch.tensor([ids])).logits[0]
            losses += [
                cross_entropy(logits[at - 1], torch.tensor(label)).item()
                for at, label in enumerate(labels)
                if label != X
            ]
    return math.exp(sum(losses) / len(losses))


def padded(rows: list[list[int]], fill: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [fill] * (longest - len(row)) for row in rows])


def reduced(model: Any, features: list[tuple[list[int], list[int]]]) -> np.ndarray:
    ids, labels = padded([ids for ids, _ in features], 0), padded([labels for _, labels in features], X)
    mask = padded([[1] * len(ids) for ids, _ in features], 0)
    with torch.no_grad():
        return modeling.reduce(model(input_ids=ids, attention_mask=mask).logits, labels).numpy()


def table() -> pa.Table:
    return pa.table({"labels": [labels for _, labels in FEATURES]})


def test_validation_perplexity_is_over_tokens_not_batches() -> None:
    model = seeded_gpt2()
    whole = validation.validate(reduced(model, FEATURES), table(), TARGET)
    assert whole["perplexity"] == pytest.approx(perplexity_one_by_one(model), rel=1e-5)

    # As the Trainer joins batches of unequal length: filled up with -100.
    first, second = reduced(model, FEATURES[:1]), reduced(model, FEATURES[1:])
    second = np.pad(second, ((0, 0), (0, first.shape[1] - second.shape[1])), constant_values=-100)
    parts = validation.validate(np.concatenate([first, second]), table(), TARGET)
    assert parts["perplexity"] == pytest.approx(whole["perplexity"], rel=1e-6)


def test_half_precision_logits_are_reduced_in_single_precision() -> None:
    logits = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    labels = torch.tensor([[X, 1, 2, X], [X, X, X, 3]])
    losses = modeling.reduce(logits, labels)
    assert losses.dtype == torch.float32
    assert losses[0, 2].item() == pytest.approx(cross_entropy(logits[0, 1].float(), torch.tensor(2)).item())
    assert (losses[labels == X] == 0).all()


# --- ONNX and generation --------------------------------------------------------------------------------------------


def test_the_onnx_model_agrees_with_torch_and_continues_alike(checkpoint: Path, tmp_path: Path) -> None:
    model = loading.load_model(checkpoint)
    export_onnx(model, tmp_path / "model.onnx", ["input_ids", "attention_mask"])
    torch_forward, forward = inference.torch_forward(model), inference.onnx_forward(tmp_path / "model.onnx")
    draw = np.random.default_rng(0)
    for batch, length in ((1, 1), (1, 9), (3, 5), (2, 32)):
        ids = draw.integers(40, size=(batch, length))
        mask = (np.arange(length) < draw.integers(1, length + 1, size=(batch, 1))).astype(np.int64)
        expected, found = (
            run({"input_ids": ids, "attention_mask": mask})["logits"] for run in (torch_forward, forward)
        )
        assert list(found.shape) == [batch, length, 40]
        np.testing.assert_allclose(found[mask == 1], expected[mask == 1], atol=1e-4)
    options = {"max_new_tokens": 12, "temperature": 0.9, "top_p": 0.9, "seed": 3}
    assert generation.continuation([1, 2, 3], forward, 0, **options) == generation.continuation(
        [1, 2, 3], torch_forward, 0, **options
    )


def test_the_card_runs_the_pipeline_of_its_tag() -> None:
    assert card.PIPELINE_TAG in card.usage("me/model", TARGET) and "me/model" in card.usage("me/model", TARGET)
    compile(card.usage("me/model", TARGET), "card", "exec")
    assert (card.LIBRARY, card.labels(TARGET)) == ("transformers", [])
