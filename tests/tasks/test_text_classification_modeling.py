"""Heads, losses and batches of each problem; what loading shares with other tasks is tested in test_training."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import NO_FEATURES, PLAIN_LOSS, toy_settings
from torch.nn import functional
from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer, BertTokenizer, GPT2Config, GPT2LMHeadModel

from finetrail.errors import UserError
from finetrail.tasks.text_classification import loading, modeling, scoring
from finetrail.tasks.text_classification.settings import Train

SETTINGS = Train(**toy_settings(**PLAIN_LOSS))
SINGLE = {"problem": "single_label", "label_names": ["bad", "fair", "good"]}
MULTI = {"problem": "multi_label", "label_names": ["x", "y"]}
NUMBER = {"problem": "regression", "label_names": [], "mean": 2.0, "std": 0.5}


@pytest.fixture(scope="module")
def weights(tiny_base_model: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT with a masked language model's head, which has no pooler."""
    return tiny_base_model(tmp_path_factory.mktemp("base") / "model") / "weights"


def build(weights: Path, target: dict[str, Any], seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return modeling.build_model(weights, target, SETTINGS, NO_FEATURES).eval()


BATCH = {
    "input_ids": torch.tensor([[2, 9, 8, 3], [2, 7, 3, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
}


@pytest.mark.parametrize(
    ("target", "labels", "loss"),
    [
        (SINGLE, [2, 0], lambda logits, labels: functional.cross_entropy(logits, labels)),
        (
            MULTI,
            [[1.0, 0.0], [0.0, 0.0]],
            lambda logits, labels: functional.binary_cross_entropy_with_logits(logits, labels),
        ),
        ({**MULTI, "label_names": ["x"]}, [[1.0], [0.0]], functional.binary_cross_entropy_with_logits),
        # Standardised: the square of the spread is 0.25.
        (NUMBER, [2.5, -1.0], lambda logits, labels: functional.mse_loss(logits[:, 0], labels) / 0.25),
    ],
)
def test_each_problem_has_its_loss(weights: Path, target: dict[str, Any], labels: Any, loss: Any) -> None:
    model, tensor = build(weights, target), torch.tensor(labels)
    output = model(**BATCH, labels=tensor)
    assert output.logits.shape == (2, max(len(target["label_names"]), 1))
    assert output.loss.item() == pytest.approx(loss(output.logits, tensor).item(), rel=1e-6)


@pytest.mark.parametrize(
    ("target", "names"), [(SINGLE, {0: "bad", 1: "fair", 2: "good"}), (MULTI, {0: "x", 1: "y"}), (NUMBER, {0: "score"})]
)
def test_names_and_problem_are_saved_with_the_model(
    weights: Path, tmp_path: Path, target: dict[str, Any], names: dict[int, str]
) -> None:
    trained = build(weights, target)
    modeling.finish(trained)
    trained.save_pretrained(tmp_path)
    model = loading.load_model(tmp_path).eval()
    assert model.config.id2label == names
    assert model.config.problem_type == modeling.PROBLEM_TYPES[target["problem"]]
    assert torch.allclose(model(**BATCH).logits, build(weights, target)(**BATCH).logits, atol=1e-6)


def test_head_and_pooler_are_seeded_the_encoder_is_loaded(weights: Path) -> None:
    one, same, other = (build(weights, SINGLE, seed).state_dict() for seed in (0, 0, 1))
    drawn = {name for name in one if not torch.equal(one[name], other[name])}
    assert drawn == {"bert.pooler.dense.weight", "classifier.weight"}
    assert all(torch.equal(one[name], same[name]) for name in one)


def test_a_classifier_of_other_labels_gets_a_new_head(weights: Path, tmp_path: Path) -> None:
    build(weights, SINGLE).save_pretrained(tmp_path)
    kept = build(tmp_path, SINGLE, seed=5).state_dict()["classifier.weight"]
    assert torch.equal(kept, build(weights, SINGLE).state_dict()["classifier.weight"])
    renamed = {"problem": "single_label", "label_names": ["a", "b", "c"]}
    assert not torch.equal(build(tmp_path, renamed, seed=5).state_dict()["classifier.weight"], kept)
    assert build(tmp_path, NUMBER).state_dict()["classifier.weight"].shape[0] == 1


def test_a_regressor_starts_at_its_scores_others_at_the_mean(weights: Path, tmp_path: Path) -> None:
    regressor = build(weights, NUMBER)
    regressor.classifier.bias.data += 1
    modeling.finish(regressor)
    regressor.save_pretrained(tmp_path / "regressor")
    given = regressor(**BATCH).logits
    assert not torch.allclose(given, torch.tensor(2.0), atol=0.1)

    again = build(tmp_path / "regressor", NUMBER | {"mean": 7.0, "std": 3.0}, seed=5)

    assert torch.allclose(again(**BATCH).logits, given, rtol=1e-5)
    # A masked language model keeps the names of a regressor that it came from, and has no head to keep.
    config = AutoConfig.from_pretrained(weights, id2label={0: "score"}, label2id={"score": 0})
    AutoModelForMaskedLM.from_pretrained(weights, config=config).save_pretrained(tmp_path / "adapted")
    drawn = build(tmp_path / "adapted", NUMBER | {"mean": 7.0, "std": 3.0}, seed=5)
    assert torch.allclose(drawn(**BATCH).logits, torch.tensor(7.0), atol=1.0)


def test_a_model_without_such_a_head_is_refused(weights: Path, tmp_path: Path) -> None:
    shutil.copytree(weights, tmp_path / "clip")
    (tmp_path / "clip/config.json").write_text('{"model_type": "clip_vision_model"}')
    with pytest.raises(UserError, match="clip_vision_model has no SequenceClassification in transformers"):
        build(tmp_path / "clip", SINGLE)


def test_gpt2_finds_the_last_token_of_each_text(tmp_path: Path) -> None:
    config = GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=12, n_positions=8, bos_token_id=11, eos_token_id=11)
    torch.manual_seed(0)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    model = build(tmp_path, SINGLE)
    padded = model(input_ids=torch.tensor([[1, 2, 11], [3, 4, 5]]), attention_mask=torch.tensor([[1, 1, 0], [1, 1, 1]]))
    alone = model(input_ids=torch.tensor([[1, 2]]), attention_mask=torch.tensor([[1, 1]]))
    assert model.config.pad_token_id == 11
    assert torch.allclose(padded.logits[0], alone.logits[0], atol=1e-6)
    outputs = model(input_ids=torch.tensor([[1, 2]]))
    assert torch.equal(modeling.reduce((outputs.logits, outputs.past_key_values), None), outputs.logits)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([1, 0], torch.tensor([1, 0])),
        ([[1.0, 0.0], [0.0, 1.0]], torch.tensor([[1.0, 0.0], [0.0, 1.0]])),
        ([0.5, 2.0], torch.tensor([0.5, 2.0])),
    ],
)
def test_batches_are_padded_to_their_longest(tiny_wordpiece: Path, labels: list[Any], expected: torch.Tensor) -> None:
    tokenizer = BertTokenizer(vocab=AutoTokenizer.from_pretrained(tiny_wordpiece).get_vocab())
    collate = modeling.build_collator(tokenizer, SETTINGS)
    rows = [
        {"input_ids": ids, "token_type_ids": [0, *[1] * (len(ids) - 1)], "labels": label}
        for ids, label in zip(([2, 5, 3], [2, 3]), labels, strict=True)
    ]
    batch = collate(pa.Table.from_pylist(rows))
    assert batch["input_ids"].tolist() == [[2, 5, 3], [2, 3, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["token_type_ids"].tolist() == [[0, 1, 1], [0, 1, 0]]
    assert batch["labels"].dtype == expected.dtype and torch.equal(batch["labels"], expected)


def test_the_base_is_no_baseline_and_logits_are_kept_in_fp32(weights: Path) -> None:
    assert not scoring.base_is_baseline(weights)
    kept = modeling.reduce(torch.ones(2, 3, dtype=torch.bfloat16), None)
    assert kept.dtype == torch.float32 and np.array_equal(kept.numpy(), np.ones((2, 3)))
