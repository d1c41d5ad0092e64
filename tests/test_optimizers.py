"""Learning rates and freezing by layer: as the Trainer where nothing is asked for, and by hand where it is."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import toy_settings
from datasets import Dataset
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    Trainer,
    TrainingArguments,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from finetrail.errors import UserError
from finetrail.schema import Train
from finetrail.training import optimizers
from finetrail.training.determinism import make_deterministic
from finetrail.training.run import Run
from stages.train import ENGINES

SIZES = {
    "hidden_size": 8,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 16,
    "vocab_size": 12,
}
THREE = SIZES | {"num_hidden_layers": 3}


def bert(layers: int = 3) -> PreTrainedModel:
    return BertForSequenceClassification(BertConfig(**SIZES, num_hidden_layers=layers))


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "bert": bert,
    "distilbert": lambda: DistilBertForSequenceClassification(
        DistilBertConfig(n_layers=3, n_heads=2, dim=8, hidden_dim=8, vocab_size=12)
    ),
    "roberta": lambda: RobertaForSequenceClassification(RobertaConfig(**THREE)),
    "electra": lambda: ElectraForSequenceClassification(ElectraConfig(**THREE, embedding_size=4)),
    "xlm-r": lambda: XLMRobertaForSequenceClassification(XLMRobertaConfig(**THREE)),
    "gpt2": lambda: GPT2ForSequenceClassification(
        GPT2Config(n_layer=3, n_head=2, n_embd=8, vocab_size=12, bos_token_id=0, eos_token_id=0)
    ),
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return MODELS[request.param]()


# --- learning rates -----------------------------------------------------------------------------------------------


def test_without_decay_by_layer_the_groups_are_the_trainers_own(model: PreTrainedModel, tmp_path: Path) -> None:
    arguments = TrainingArguments(str(tmp_path), learning_rate=3e-4, weight_decay=0.1, use_cpu=True, report_to="none")
    expected = Trainer(model, arguments).create_optimizer().param_groups
    found = torch.optim.AdamW(optimizers.parameter_groups(model, 3e-4, 0.1, 1.0)).param_groups
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert list(map(id, one["params"])) == list(map(id, other["params"]))
        assert (one["lr"], one["weight_decay"]) == (other["lr"], other["weight_decay"])


def test_each_layer_down_learns_at_a_share_of_the_one_above(model: PreTrainedModel) -> None:
    groups = optimizers.parameter_groups(model, 1.0, 0.1, 0.5)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rates = {names[id(parameter)]: group["lr"] for group in groups for parameter in group["params"]}
    assert rates.keys() == set(names.values()) and sum(len(group["params"]) for group in groups) == len(rates)
    for name, rate in rates.items():
        layer = next((int(part) for part in name.split(".") if part.isdecimal()), None)
        if layer is not None:
            assert rate == 0.5 ** (3 - layer), name
        elif "embeddings" in name or ".wte." in name or ".wpe." in name:
            assert rate == 0.5**4, name
        else:  # the head, a pooler, a last norm
            assert rate == 1.0, name


def test_biases_and_norms_do_not_decay() -> None:
    model = bert()
    groups = optimizers.parameter_groups(model, 1.0, 0.1, 0.5)
    decaying = {id(parameter) for group in groups if group["weight_decay"] for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        assert (id(parameter) in decaying) == ("bias" not in name and "LayerNorm" not in name), name


class Flat(PreTrainedModel):
    """A model without a stack of layers."""

    base_model_prefix = "base"
    config_class = BertConfig

    def __init__(self) -> None:
        super().__init__(BertConfig())
        self.base = nn.Linear(2, 2)


def test_a_model_without_layers_is_told_only_where_it_matters() -> None:
    assert len(optimizers.parameter_groups(Flat(), 1.0, 0.1, 1.0)) == 2
    with pytest.raises(UserError, match="need a stack of layers, which Flat lacks; expected layer_decay 1.0, no"):
        optimizers.parameter_groups(Flat(), 1.0, 0.1, 0.9)


# --- gradual unfreezing -------------------------------------------------------------------------------------------


def depths_that_train(model: PreTrainedModel, epoch: int, unfreeze_layers: int) -> set[int]:
    depths = optimizers.depth_of_parameters(model)
    optimizers.freeze(model, epoch, unfreeze_layers)
    trains = {depths[name] for name, parameter in model.named_parameters() if parameter.requires_grad}
    frozen = {depths[name] for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert not trains & frozen
    return trains


def test_layers_join_from_the_top_and_the_embeddings_last(model: PreTrainedModel) -> None:
    by_epoch = [depths_that_train(model, epoch, 1) for epoch in range(6)]
    assert by_epoch == [{4, 3}, {4, 3, 2}, {4, 3, 2, 1}, {4, 3, 2, 1, 0}, {4, 3, 2, 1, 0}, {4, 3, 2, 1, 0}]
    assert [depths_that_train(model, epoch, 2) for epoch in range(2)] == [{4, 3, 2}, {4, 3, 2, 1, 0}]
    assert depths_that_train(model, 0, 9) == {4, 3, 2, 1, 0}


def toy_features(rows: int) -> Dataset:
    draw = np.random.default_rng(0)
    ids = draw.integers(1, 12, size=(rows, 6)).tolist()
    return Dataset.from_dict({"input_ids": ids, "labels": [int(row[0] > 5) for row in ids]})


def collate(features: pa.Table) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(features[name].to_pylist()) for name in ("input_ids", "labels")}


def run(tmp_path: Path, engine: str = "trainer", **changes: Any) -> list[dict[str, torch.Tensor]]:
    """Train with one of the engines; return the weights before, and after each epoch."""
    make_deterministic(0)
    model = bert()
    states: list[dict[str, torch.Tensor]] = []

    def snapshot(reduced: Any = None) -> dict[str, float]:
        states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return {"accuracy": 0.0}

    snapshot()
    settings = Train(**toy_settings(**{"best_metric": "accuracy", "weight_decay": 0.1} | changes))
    columns = {"COLUMNS": ("input_ids", "labels"), "SEPARABLE": True, "num_items": lambda batch: torch.tensor(1)}
    task = SimpleNamespace(**columns, reduce=lambda logits, labels: logits)
    train, validation = toy_features(16), toy_features(4)
    ENGINES[engine](model, Run(task, collate, train, validation, snapshot, settings, 0, tmp_path, 8))  # type: ignore
    return states


@pytest.mark.usefixtures("restored_torch")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("optimizer", ["adamw_torch", "adamw_torch_fused"])
def test_frozen_weights_stay_bit_by_bit_and_then_join(tmp_path: Path, optimizer: str, engine: str) -> None:
    before, first, second, third = run(tmp_path, engine, unfreeze_layers=2, epochs=3.0, optimizer=optimizer)
    depths = optimizers.depth_of_parameters(bert())
    for name, depth in depths.items():
        assert torch.equal(before[name], first[name]) == (depth < 2), name
        # A key's bias cancels in the softmax, and positions beyond the texts and unseen tokens have no gradient.
        if "key.bias" not in name:
            assert not torch.equal(first[name], second[name]), name
            assert not torch.equal(second[name], third[name]), name


@pytest.mark.usefixtures("restored_torch")
def test_a_decayed_learning_rate_moves_the_lower_layers_less(tmp_path: Path) -> None:
    even, decayed = (run(tmp_path / str(decay), layer_decay=decay, epochs=1.0) for decay in (1.0, 0.1))

    def moved(states: list[dict[str, torch.Tensor]], name: str) -> float:
        return float((states[1][name] - states[0][name]).abs().mean())

    low, head = "bert.encoder.layer.0.output.dense.weight", "classifier.weight"
    assert moved(decayed, low) < 0.01 * moved(even, low)
    assert moved(decayed, head) > 0.5 * moved(even, head)


def test_a_bare_loop_freezes_alike_and_decays_no_frozen_weight() -> None:
    torch.manual_seed(0)
    model = bert()
    adamw = torch.optim.AdamW(optimizers.parameter_groups(model, 0.1, 0.5, 0.9))
    batch = collate(toy_features(4).with_format("arrow")[:])
    for epoch in range(2):
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        optimizers.freeze(model, epoch, 2)
        model(**batch).loss.backward()
        adamw.step()
        adamw.zero_grad()
        same = {name for name, parameter in model.named_parameters() if torch.equal(before[name], parameter)}
        assert same == set(optimizers.frozen_for_epoch(model, epoch, 2)) and bool(same) == (epoch == 0)
