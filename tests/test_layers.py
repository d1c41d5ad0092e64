"""A model of which some layers are kept: the same weights in fewer layers, for each architecture, type and layout."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForTokenClassification,
    BertConfig,
    BertForTokenClassification,
    DistilBertConfig,
    DistilBertForTokenClassification,
    ElectraConfig,
    ElectraForTokenClassification,
    GPT2Config,
    GPT2LMHeadModel,
    RobertaConfig,
    RobertaForTokenClassification,
)

from finetrail.errors import UserError
from finetrail.model.base.layers import keep_layers

SIZES: dict[str, Any] = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2,
                         "intermediate_size": 32, "max_position_embeddings": 20, "num_labels": 3}  # fmt: skip
DISTILBERT = DistilBertConfig(vocab_size=20, dim=16, n_layers=4, n_heads=2, hidden_dim=32, num_labels=3)
MODELS: dict[str, Callable[[], Any]] = {
    "bert": lambda: BertForTokenClassification(BertConfig(**SIZES)),
    "distilbert": lambda: DistilBertForTokenClassification(DISTILBERT),
    "electra": lambda: ElectraForTokenClassification(ElectraConfig(embedding_size=16, **SIZES)),
    "roberta": lambda: RobertaForTokenClassification(RobertaConfig(**SIZES)),
}
TEXTS = torch.tensor([[2, 9, 8, 7, 3], [2, 6, 5, 4, 3]])


def saved(name: str, folder: Path, **options: Any) -> Any:
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    model.save_pretrained(folder, **options)
    return model


def without(model: Any, layers: list[int]) -> Any:
    """Take the other layers out of a model in memory."""
    stack = model.base_model.transformer if model.config.model_type == "distilbert" else model.base_model.encoder
    stack.layer = torch.nn.ModuleList([stack.layer[layer] for layer in layers])
    return model


@pytest.mark.parametrize("layers", [[0, 2], [1, 2, 3], [3]])
@pytest.mark.parametrize("name", MODELS)
def test_kept_layers_compute_as_the_model_without_the_others(name: str, layers: list[int], tmp_path: Path) -> None:
    expected = without(saved(name, tmp_path), layers)
    keep_layers(tmp_path, layers)
    model, loading = AutoModelForTokenClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    assert model.config.num_hidden_layers == len(layers)
    assert torch.equal(model.eval()(TEXTS).logits, expected(TEXTS).logits)


def test_half_precision_and_sharded_weights_are_kept(tmp_path: Path) -> None:
    model = saved("bert", tmp_path / "whole")
    model.to(torch.bfloat16).save_pretrained(tmp_path / "parts", max_shard_size="10KB")
    files = sorted((tmp_path / "parts").glob("*.safetensors"))
    assert len(files) > 2
    before = {name: tensor for file in files for name, tensor in load_file(file).items()}
    keep_layers(tmp_path / "parts", [1, 3])
    after = {name: tensor for file in files for name, tensor in load_file(file).items()}
    assert len(after) < len(before)
    for name, tensor in after.items():
        old = name.replace("layer.1.", "layer.3.").replace("layer.0.", "layer.1.")
        assert tensor.dtype == torch.bfloat16 and torch.equal(tensor, before[old]), name
    index = json.loads((tmp_path / "parts/model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == after.keys()
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in after.values())
    _, loading = AutoModelForTokenClassification.from_pretrained(tmp_path / "parts", output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]


def test_the_bytes_are_the_same_each_time(tmp_path: Path) -> None:
    for folder in ("one", "other"):
        saved("roberta", tmp_path / folder)
        keep_layers(tmp_path / folder, [0, 3])
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").iterdir()]
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes() for file in files)


def test_a_layer_that_is_not_there_is_refused(tmp_path: Path) -> None:
    saved("bert", tmp_path)
    with pytest.raises(UserError, match=r"^model.layers: there is no layer 4; expected 0 to 3$"):
        keep_layers(tmp_path, [0, 4])


def test_an_architecture_whose_layers_differ_is_refused(tmp_path: Path) -> None:
    GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=2, n_embd=16, n_positions=16, vocab_size=12)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="^model.layers: gpt2 is not an architecture .*expected bert, camembert"):
        keep_layers(tmp_path, [0])
