"""Heads that a checkpoint lacks, batches, and the perplexity of validation."""

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertConfig,
    BertModel,
)

from finetrail.encoding.masking import FIRST, SPECIAL
from finetrail.errors import UserError
from finetrail.labels import IGNORE_INDEX
from finetrail.tasks.masked_lm import loading, modeling, scoring, validation
from finetrail.tasks.masked_lm.encoding import FEATURES
from finetrail.tasks.masked_lm.settings import Train
from tests.conftest import NO_FEATURES, toy_settings

SETTINGS = Train.model_construct(**toy_settings(), mask_probability=0.3, whole_word=True)


@pytest.fixture(scope="module")
def headless(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT without its masked-LM head, as sentence encoders are published."""
    folder = tmp_path_factory.mktemp("headless")
    BertModel.from_pretrained(tiny_checkpoint, add_pooling_layer=True).save_pretrained(folder)
    return folder


def batch(vocabulary: int = 100, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, vocabulary, (4, 10), generator=generator)
    labels = torch.where(torch.rand(4, 10, generator=generator) < 0.3, ids, IGNORE_INDEX)
    labels[:, 3] = ids[:, 3]
    mask = torch.ones_like(ids)
    mask[0, 8:] = 0
    labels[0, 8:] = IGNORE_INDEX
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


# --- the head -----------------------------------------------------------------------------------------------------


def test_a_new_head_is_tied_and_the_same_each_time(headless: Path) -> None:
    torch.manual_seed(1)
    first = loading.load_model(headless)
    torch.manual_seed(2)
    second = loading.load_model(headless)

    assert first.get_output_embeddings().weight is first.get_input_embeddings().weight
    for name, parameter in first.state_dict().items():
        assert torch.equal(parameter, second.state_dict()[name]), name
    # It passes on the states as they are, through the activation and a neutral norm.
    head = first.cls.predictions
    assert torch.equal(head.transform.dense.weight, torch.eye(32))
    assert head.transform.LayerNorm.weight.eq(1).all()
    assert not any(bias.any() for bias in (head.bias, head.transform.dense.bias, head.transform.LayerNorm.bias))


def test_a_new_head_stays_when_it_is_saved(headless: Path, tmp_path: Path) -> None:
    model = modeling.build_model(headless, None, SETTINGS, NO_FEATURES)
    with torch.no_grad():
        model.get_input_embeddings().weight[7] += 1
        model.cls.predictions.bias[7] = 3
    model.save_pretrained(tmp_path)
    loaded = loading.load_model(tmp_path)
    inputs = {name: value for name, value in batch().items() if name != "labels"}

    assert modeling.notes(tmp_path) == []
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    assert torch.equal(model.eval()(**inputs).logits, loaded(**inputs).logits)


def test_a_new_head_is_tied_even_where_the_configuration_is_not(headless: Path, tmp_path: Path) -> None:
    shutil.copy(headless / "model.safetensors", tmp_path)
    config = BertConfig.from_pretrained(headless)
    config.tie_word_embeddings = False
    config.save_pretrained(tmp_path)
    model = loading.load_model(tmp_path)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    model.save_pretrained(tmp_path / "saved")
    assert loading.load_model(tmp_path / "saved").config.tie_word_embeddings


def test_a_head_that_is_there_is_kept_and_nothing_is_noted(tiny_checkpoint: Path) -> None:
    expected = AutoModelForMaskedLM.from_pretrained(tiny_checkpoint).state_dict()
    found = modeling.build_model(tiny_checkpoint, None, SETTINGS, NO_FEATURES).state_dict()
    assert modeling.notes(tiny_checkpoint) == []
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_new_head_is_told(headless: Path) -> None:
    (note,) = modeling.notes(headless)
    assert "no masked-LM head" in note and "tied to its word embeddings" in note
    assert scoring.base_is_baseline(headless)


def test_a_model_that_fills_no_masks_is_refused(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    GPT2LMHeadModel(GPT2Config(vocab_size=10, n_embd=8, n_layer=1, n_head=1)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="gpt2 has no MaskedLM in transformers"):
        loading.load_model(tmp_path)


# --- batches ------------------------------------------------------------------------------------------------------


def feature(ids: list[int], labels: list[int] | None = None) -> dict[str, Any]:
    return {"example": 0, "input_ids": ids, "pieces": [SPECIAL, *[FIRST] * (len(ids) - 2), SPECIAL], "labels": labels}


def table(features: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(features, pa.schema([*FEATURES, ("row_seed", pa.int64())]))


def test_frozen_masks_are_used_as_they_are_and_padded(tiny_wordpiece: Path) -> None:
    collate = modeling.build_collator(AutoTokenizer.from_pretrained(tiny_wordpiece), SETTINGS)
    found = collate(table([feature([1, 7, 8, 2], [-100, 9, -100, -100]), feature([1, 5, 2], [-100, 5, -100])]))
    assert {name: value.tolist() for name, value in found.items()} == {
        "input_ids": [[1, 7, 8, 2], [1, 5, 2, 0]],
        "attention_mask": [[1, 1, 1, 1], [1, 1, 1, 0]],
        "labels": [[-100, 9, -100, -100], [-100, 5, -100, -100]],
    }


def test_training_masks_depend_on_the_features_draw_alone(tiny_wordpiece: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_wordpiece)
    collate = modeling.build_collator(tokenizer, SETTINGS)
    features = [feature([2, *range(10, 40), 3]), feature([2, *range(40, 60), 3])]

    def batch_of(*draws: int) -> dict[str, list[list[int]]]:
        given = [row | {"row_seed": draw} for row, draw in zip(features, draws, strict=False)]
        return {name: value.tolist() for name, value in collate(table(given)).items()}

    first, second = batch_of(1, 2), batch_of(3, 2)
    assert batch_of(1, 2) == first != second
    assert first["labels"][1] == second["labels"][1]
    assert batch_of(1)["labels"][0] == first["labels"][0][: len(features[0]["input_ids"])]
    for row, given in enumerate(features):
        ids, labels = np.array(first["input_ids"][row]), np.array(first["labels"][row])
        back = np.where(labels == IGNORE_INDEX, ids, labels)
        assert back[: len(given["input_ids"])].tolist() == given["input_ids"]
        assert tokenizer.mask_token_id in ids


# --- validation ---------------------------------------------------------------------------------------------------


def test_perplexity_is_that_of_all_tokens_by_a_hand_loop(tiny_checkpoint: Path) -> None:
    model = loading.load_model(tiny_checkpoint)
    losses, right, reduced = [], [], []
    for seed, rows in ((0, 4), (1, 4), (2, 1)):  # the last batch is a short one
        inputs = {name: value[:rows] for name, value in batch(len(model.get_input_embeddings().weight), seed).items()}
        with torch.no_grad():
            output = model(**inputs)
        reduced.append(modeling.reduce(output.logits, inputs["labels"]).numpy())
        for row in range(rows):
            for position, label in enumerate(inputs["labels"][row].tolist()):
                if label != IGNORE_INDEX:
                    logits = output.logits[row, position]
                    losses.append(float(torch.nn.functional.cross_entropy(logits[None], torch.tensor([label]))))
                    right.append(int(logits.argmax()) == label)

    found = validation.validate(np.concatenate(reduced), pa.table({}), None)

    assert found == pytest.approx({"perplexity": math.exp(np.mean(losses)), "accuracy": np.mean(right)}, rel=1e-5)
    assert reduced[0].shape == (4, 3)
