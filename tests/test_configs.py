"""Configuration files of an exported folder, as transformers 4, transformers 5 and transformers.js read them."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, GPT2Config, GPT2LMHeadModel

from finetrail.exporting.configs import open_everywhere, tokenizer_config


@pytest.mark.parametrize(
    ("given", "positions", "chat", "found"),
    [
        ({"tokenizer_class": "TokenizersBackend"}, None, None, {"tokenizer_class": "PreTrainedTokenizerFast"}),
        ({"tokenizer_class": "BertTokenizer"}, None, None, {"tokenizer_class": "BertTokenizer"}),
        ({"model_max_length": 10**30}, 128, None, {"model_max_length": 128}),
        ({"model_max_length": 64}, 128, None, {"model_max_length": 64}),
        ({}, 128, None, {"model_max_length": 128}),
        ({"model_max_length": 10**30}, None, None, {"model_max_length": 10**30}),
        ({"extra_special_tokens": ["<|im_end|>"]}, None, None, {"additional_special_tokens": ["<|im_end|>"]}),
        ({"extra_special_tokens": {"image": "<i>"}}, None, None, {"extra_special_tokens": {"image": "<i>"}}),
        ({}, None, "{{ messages }}", {"chat_template": "{{ messages }}"}),
    ],
)
def test_a_tokenizer_has_a_transformers_4_name_and_model_length(
    given: dict[str, Any], positions: int | None, chat: str | None, found: dict[str, Any]
) -> None:
    assert tokenizer_config(given, positions, chat) == found


@pytest.mark.parametrize(("positions", "length"), [(48, 48), (1024, 1024), (1025, None)])
def test_a_continuation_ends_at_the_last_position_by_default(
    positions: int, length: int | None, tiny_bpe: Path, tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_bpe)
    tokenizer.chat_template = "{{ messages[0].content }}"
    tokenizer.save_pretrained(tmp_path)
    ids = {"vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 0}
    model = GPT2LMHeadModel(GPT2Config(n_positions=positions, n_layer=1, n_head=1, n_embd=4, use_cache=False, **ids))
    model.save_pretrained(tmp_path)
    open_everywhere(tmp_path, model)
    assert AutoConfig.from_pretrained(tmp_path).use_cache
    assert GenerationConfig.from_pretrained(tmp_path).max_length == length
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.model_max_length == min(positions, 64)  # the tokenizer's own is 64
    assert again.chat_template == json.loads((tmp_path / "tokenizer_config.json").read_text())["chat_template"]
    text = "Anna lives in Oslo"
    assert again(text).input_ids == tokenizer(text).input_ids
