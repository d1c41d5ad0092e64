"""Scores that are learned standardised and given in their own unit, over the kinds of heads that models come with."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import mse_loss
from transformers import AutoConfig, AutoModelForSequenceClassification

from finetrail.errors import UserError
from finetrail.model import standardization

MEAN, STD = 1050.0, 30.0
SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
OF_BART = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
OF_BART |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "max_position_embeddings": 32}
# Kind of head -> its configuration; heads of decoders have no bias.
WITH_BIAS: dict[str, dict[str, Any]] = {
    "albert": SMALL | {"embedding_size": 8},
    "bart": OF_BART,
    "bert": SMALL,
    "deberta-v2": SMALL,
    "distilbert": {"dim": 16, "hidden_dim": 16, "n_layers": 2, "n_heads": 2},
    "electra": SMALL | {"embedding_size": 8},
    "funnel": {"d_model": 16, "n_head": 2, "d_head": 8, "d_inner": 16, "block_sizes": [1, 1]},
    "modernbert": SMALL | {"reference_compile": False},
    "mpnet": SMALL,
    "roberta": SMALL,
    "t5": {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0},
    "xlm-roberta": SMALL,
    "xlnet": {"d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 16},
}
WITHOUT_BIAS: dict[str, dict[str, Any]] = {
    "gemma": SMALL | {"num_key_value_heads": 1, "head_dim": 8},
    "gpt2": {"n_embd": 16, "n_layer": 1, "n_head": 2},
    "llama": SMALL | {"num_key_value_heads": 1},
    "qwen2": SMALL | {"num_key_value_heads": 1},
}
KINDS = WITH_BIAS | WITHOUT_BIAS
IDS = torch.tensor([[4, 9, 8, 7, 2], [4, 6, 5, 8, 2]])
BATCH = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
LABELS = torch.tensor([1020.0, 1100.0])


def build(kind: str) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **KINDS[kind], vocab_size=32, num_labels=1, problem_type="regression")
    for name, number in (("pad_token_id", 0), ("bos_token_id", 1), ("eos_token_id", 2)):
        setattr(config, name, number)
    return AutoModelForSequenceClassification.from_config(config).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_the_saved_model_alone_gives_the_outputs_of_training(kind: str, tmp_path: Path) -> None:
    model = build(kind)
    plain = model(**BATCH).logits
    names = set(model.state_dict())
    standardization.standardize(model, MEAN, STD, head_is_kept=False)
    outputs = model(**BATCH, labels=LABELS)
    shift, scale = (MEAN, STD) if kind in WITH_BIAS else (0.0, (MEAN**2 + STD**2) ** 0.5)
    assert torch.allclose(outputs.logits, plain * scale + shift, rtol=1e-5)
    assert torch.allclose(outputs.loss, mse_loss(plain[:, 0], (LABELS - shift) / scale), rtol=1e-4)
    outputs.loss.backward()

    standardization.fold(model)

    assert set(model.state_dict()) == names
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    for one in (loaded, model):
        assert torch.allclose(one(**BATCH).logits, outputs.logits, rtol=1e-5)


@pytest.mark.parametrize("kind", ["roberta", "gpt2"])
def test_a_head_that_gives_scores_already_goes_on_from_them(kind: str) -> None:
    model = build(kind)
    standardization.standardize(model, MEAN, STD, head_is_kept=False)
    standardization.fold(model)
    given = model(**BATCH).logits
    again = build(kind)
    again.load_state_dict(model.state_dict())

    standardization.standardize(again, 20.0, 4.0, head_is_kept=True)

    assert torch.allclose(again(**BATCH).logits, given, rtol=1e-4)
    assert again(**BATCH, labels=given[:, 0]).loss.item() == pytest.approx(0, abs=1e-5)


def test_in_bf16_scores_keep_their_last_digits() -> None:
    model = build("bert")
    standardization.standardize(model, MEAN, STD, head_is_kept=False)
    exact = model(**BATCH).logits
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(**BATCH, labels=LABELS)
    assert outputs.logits.dtype == outputs.loss.dtype == torch.float32
    assert torch.allclose(outputs.logits, exact, atol=0.02 * STD)  # bf16 has 4 between two numbers of this size


def test_a_head_that_is_not_linear_is_refused() -> None:
    model = build("bert")
    model.classifier = torch.nn.Identity()
    with pytest.raises(UserError, match="the head of bert is not a linear layer"):
        standardization.standardize(model, MEAN, STD, head_is_kept=False)
