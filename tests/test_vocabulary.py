"""A base model with a bare vocab.txt has BERT's tokenizer, with the ids of transformers' own."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import real
from transformers import BertConfig, BertTokenizer, ElectraConfig, GPT2Config, PretrainedConfig, RobertaConfig

from finetrail.encoding.tokenizer import load_tokenizer
from finetrail.encoding.vocabulary import is_cased
from finetrail.errors import UserError

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
UNCASED = [*SPECIAL, "hello", "world", "##s", ",", "don", "'", "t", "中"]
CASED = [*SPECIAL, "Hello", "안녕", "World", "##s", ",", "don", "'", "t", "hello", "중"]
TEXTS = ["Hello, Worlds", "안녕 hello don't", "Wörld 中中", "[MASK] worlds", "\u00a0hello\tworld", ""]
MODELS = (BertConfig, ElectraConfig, RobertaConfig)


def write(folder: Path, tokens: list[str], config: type[PretrainedConfig], declared: object = None) -> Path:
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    config(vocab_size=len(tokens)).save_pretrained(folder)
    if declared is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(declared))
    return folder


@pytest.mark.parametrize("config", MODELS)
@pytest.mark.parametrize("tokens", [UNCASED, CASED])
def test_ids_are_those_of_transformers_own(tmp_path: Path, tokens: list[str], config: type[PretrainedConfig]) -> None:
    found = load_tokenizer(write(tmp_path / "base", tokens, config), 32)
    own = BertTokenizer(vocab={token: n for n, token in enumerate(tokens)}, do_lower_case=tokens is UNCASED)
    for text in TEXTS:
        assert found(text)["input_ids"] == own(text)["input_ids"]
    assert found.is_fast and found.mask_token_id == 4 and len(found) == len(tokens)
    words = {"is_split_into_words": True}
    for pre_split in (False, True):
        tagger = load_tokenizer(tmp_path / "base", 32, pre_split=pre_split)
        assert tagger(["Worlds", "don't"], **words)["input_ids"] == own(["Worlds", "don't"], **words)["input_ids"]


@pytest.mark.parametrize("lower", [True, False])
def test_what_the_files_declare_is_kept(tmp_path: Path, lower: bool) -> None:
    found = load_tokenizer(write(tmp_path / "base", CASED, RobertaConfig, {"do_lower_case": lower}), 32)
    assert found.tokenize("Hello") == (["hello"] if lower else ["Hello"])


def test_a_saved_tokenizer_loads_the_same(tmp_path: Path) -> None:
    found = load_tokenizer(write(tmp_path / "base", CASED, RobertaConfig), 32)
    found.save_pretrained(tmp_path / "saved")
    shutil.copy(tmp_path / "base/config.json", tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved", 32)
    assert [again(text)["input_ids"] for text in TEXTS] == [found(text)["input_ids"] for text in TEXTS]


@pytest.mark.parametrize(
    ("tokens", "config"), [(["a 1", "b 2"], RobertaConfig), (["a", "b"], GPT2Config), (CASED[5:], RobertaConfig)]
)
def test_a_tokenizer_without_words_is_refused(
    tmp_path: Path, tokens: list[str], config: type[PretrainedConfig]
) -> None:
    folder = write(tmp_path / "base", tokens, config)
    config(vocab_size=100).save_pretrained(folder)
    with pytest.raises(
        UserError, match="the tokenizer has only special tokens; expected tokens of words|does not load"
    ):
        load_tokenizer(folder, 32)


@pytest.mark.parametrize(("name", "cased"), [("bert_uncased_tiny", False), ("koelectra_v1", True)])
def test_real_vocabularies_are_told_apart(tmp_path: Path, name: str, cased: bool) -> None:
    path = real(f"tokenizers/{name}/vocab.txt")
    tokens = path.read_text(encoding="utf-8").splitlines()
    assert is_cased(tokens) == cased
    found = load_tokenizer(write(tmp_path / "base", tokens, BertConfig), 32)
    own = BertTokenizer(vocab=str(path), do_lower_case=not cased)
    text = "Hello Wörld, 재미있는 영화였다! 中国"
    assert found(text)["input_ids"] == own(text)["input_ids"]
    assert not cased or found.unk_token_id not in found("재미있는 영화였다")["input_ids"]
