"""The tokenizer of an exported folder without transformers: the same as theirs, and nothing heavy is imported."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from finetrail import saved_tokenizer, tasks
from finetrail.encoding import tokenizer as tokenizers
from finetrail.errors import UserError

ROOT = Path(__file__).parent.parent
KINDS = ["tiny_wordpiece", "tiny_bpe", "tiny_sentencepiece", "tiny_sentencepiece_first"]
TEXTS = ["unbelievable tokenization , señor", "  한국어  문장도 [MASK] <mask> "]


@pytest.mark.parametrize("pre_split", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_transformers_tokenizer(kind: str, pre_split: bool, request: Any, tmp_path: Path) -> None:
    theirs = tokenizers.load_tokenizer(request.getfixturevalue(kind), 64, pre_split)
    theirs.add_special_tokens({"extra_special_tokens": ["<one>"]})
    theirs.save_pretrained(tmp_path)
    assert saved_tokenizer.is_enough(tmp_path)
    ours = saved_tokenizer.load(tmp_path, ["input_ids"])
    for name in ("pad_token_id", "eos_token", "eos_token_id", "unk_token_id", "mask_token_id"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert sorted(ours.all_special_ids) == sorted(theirs.all_special_ids)
    assert ours.get_vocab() == theirs.get_vocab()
    assert ours.get_added_vocab() == theirs.get_added_vocab()
    ids = range(len(theirs) + 2)
    assert ours.convert_ids_to_tokens(ids) == theirs.convert_ids_to_tokens(list(ids))
    for text in TEXTS:
        given, options = (text.split(), {"is_pretokenized": True}) if pre_split else (text, {})
        one, other = (tokens.backend_tokenizer.encode(given, **options) for tokens in (ours, theirs))
        assert (one.ids, one.offsets, one.word_ids) == (other.ids, other.offsets, other.word_ids)


def test_special_tokens_may_stand_there_with_what_is_around_them(tiny_wordpiece: Path, tmp_path: Path) -> None:
    AutoTokenizer.from_pretrained(tiny_wordpiece).save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"pad_token": {"content": "[PAD]", "lstrip": False, "__type": "AddedToken"}}))
    assert saved_tokenizer.load(tmp_path, []).pad_token_id == 0


def test_a_chat_template_tokenizer_is_left_to_transformers(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the tokenizer does not load: .*; expected what export wrote$"):
        saved_tokenizer.load(tmp_path, [])
    (tmp_path / "chat_template.jinja").write_text("")
    assert not saved_tokenizer.is_enough(tmp_path)


def test_onnx_answers_import_neither_torch_nor_scoring() -> None:
    parts = [f"finetrail.tasks.{task}.{part}" for task in tasks.names() for part in ("encoding", "scoring", "serving")]
    modules = ["finetrail.serve", "finetrail.service", "onnxruntime", *parts]
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "datasets", "sklearn", "onnx"} & set(done.stdout.split())
