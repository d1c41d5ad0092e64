"""Alignment against the naive per-sentence way: the transformers tokenizer called on one sentence after the other."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoConfig, AutoTokenizer, RobertaConfig

from finetrail.encoding.tokenizer import load_tokenizer, model_positions
from finetrail.errors import UserError
from finetrail.labels import IGNORE_INDEX
from finetrail.tasks.token_classification import encoding
from finetrail.tasks.token_classification.settings import NO_SCHEME, Tokenize

KINDS = ("tiny_wordpiece", "tiny_bpe", "tiny_sentencepiece", "tiny_sentencepiece_first")
LABELS = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]


def tokenize(max_length: int = 64, stride: int = 0, label_subwords: str = "first") -> Tokenize:
    return Tokenize.model_construct(max_length=max_length, stride=stride, label_subwords=label_subwords, limit=None)


def table(sentences: list[list[str]], labels: list[list[str]] | None = None) -> pa.Table:
    strings = pa.list_(pa.string())
    labels = labels or [["O"] * len(sentence) for sentence in sentences]
    return pa.table({"tokens": pa.array(sentences, strings), "labels": pa.array(labels, strings)})


def encode(tokenizer: Any, sentences: pa.Table, how: Tokenize) -> list[dict[str, Any]]:
    return encoding.Encoder(tokenizer, LABELS, how).encode(sentences, np.arange(len(sentences))).to_pylist()


def naive(tokenizer: Any, words: list[str], labels: list[str], how: Tokenize, example: int) -> list[dict[str, Any]]:
    """Encode one sentence as run_ner.py does, with the library's own overflowing windows, and align token by token."""
    whole = tokenizer(words, is_split_into_words=True, add_special_tokens=False)
    starts: dict[int, int] = {}
    for index, word in enumerate(whole.word_ids(0)):
        starts.setdefault(word, index)
    encoded = tokenizer(
        words, is_split_into_words=True, truncation=True, max_length=how.max_length, stride=how.stride,
        return_overflowing_tokens=True,
    )  # fmt: skip
    features, offset = [], 0
    for window, input_ids in enumerate(encoded["input_ids"]):
        word_ids = encoded.word_ids(window)
        inside = [word is not None for word in word_ids]
        first, size = inside.index(True) if any(inside) else 1, sum(inside)
        aligned = []
        for position, word in enumerate(word_ids):
            if word is None:
                aligned.append(IGNORE_INDEX)
            elif offset + position - first == starts[word]:
                aligned.append(LABELS.index(labels[word]))
            elif how.label_subwords == "first":
                aligned.append(IGNORE_INDEX)
            else:
                aligned.append(LABELS.index(labels[word].replace("B-", "I-")))
        features.append({"example": example, "input_ids": input_ids, "labels": aligned, "words": [], "positions": []})
        features[-1]["span"] = (offset, offset + size, first)
        offset += size - how.stride
    for word, token in sorted(starts.items()):
        best, best_context = None, -1.0
        for feature in features:
            start, stop, first = feature["span"]
            if start <= token < stop:
                left = float("inf") if start == 0 else token - start
                right = float("inf") if stop == len(whole["input_ids"]) else stop - 1 - token
                if min(left, right) > best_context:
                    best, best_context = feature, min(left, right)
        assert best is not None
        best["words"].append(word)
        best["positions"].append(token - best["span"][0] + best["span"][2])
    return [{key: value for key, value in feature.items() if key != "span"} for feature in features]


words = st.one_of(
    st.sampled_from(
        ["", " ", "a", "Berlin", "unaffable", "playing", "학교에서", "[SEP]", "\u200b", "naïve", "!?", "🙂", "a b"]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
)
sentences = st.lists(
    st.lists(st.tuples(words, st.sampled_from(LABELS)), min_size=1, max_size=30), min_size=1, max_size=5
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_equals_the_naive_algorithm(kind: str, request: pytest.FixtureRequest, data: st.DataObject) -> None:
    tokenizer = load(request.getfixturevalue(kind))
    max_length = data.draw(st.integers(4, 24), "max_length")
    capacity = max_length - tokenizer.num_special_tokens_to_add()
    stride = data.draw(st.integers(0, capacity - 1), "stride")
    how = tokenize(max_length, stride, data.draw(st.sampled_from(["first", "all"]), "label_subwords"))
    drawn = data.draw(sentences, "sentences")
    tokens, labels = ([[pair[side] for pair in sentence] for sentence in drawn] for side in (0, 1))

    found = encode(tokenizer, table(tokens, labels), how)

    expected = [naive(tokenizer, *pair, how, row) for row, pair in enumerate(zip(tokens, labels, strict=True))]
    assert found == [feature for features in expected for feature in features]


LOADED: dict[Path, Any] = {}


def load(folder: Path) -> Any:
    if folder not in LOADED:
        LOADED[folder] = load_tokenizer(folder, 16, pre_split=True)
    return LOADED[folder]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_word_with_subwords_is_scored_exactly_once(
    kind: str, request: pytest.FixtureRequest, data: st.DataObject
) -> None:
    tokenizer = load(request.getfixturevalue(kind))
    drawn = data.draw(st.lists(st.lists(words, min_size=1, max_size=60), min_size=1, max_size=4), "sentences")
    max_length = data.draw(st.integers(6, 16))
    how = tokenize(max_length, data.draw(st.integers(0, max_length - 4)))

    features = encode(tokenizer, table(drawn), how)

    scored = sorted((feature["example"], word) for feature in features for word in feature["words"])
    seen = [
        (row, word)
        for row, sentence in enumerate(drawn)
        for word, text in enumerate(sentence)
        if tokenizer([text], is_split_into_words=True, add_special_tokens=False)["input_ids"]
    ]
    # A word that has no subwords alone may have some after another word (SentencePiece's ▁), never fewer.
    assert set(seen) <= set(scored)
    assert len(scored) == len(set(scored))
    assert all(len(feature["input_ids"]) <= max_length for feature in features)
    counts = encoding.Encoder(tokenizer, LABELS, how).count(
        table(drawn), encoding.Encoder(tokenizer, LABELS, how).encode(table(drawn), np.arange(len(drawn)))
    )
    assert counts["words_without_subwords"] == sum(map(len, drawn)) - len(scored)
    assert counts["words"] == sum(map(len, drawn))


def test_labels_by_hand(tiny_wordpiece: Path) -> None:
    tokenizer = load(tiny_wordpiece)
    sentence, labels = ["Berlin", "zzzqx", ""], ["B-LOC", "B-PER", "O"]
    pieces = [len(tokenizer.tokenize(word)) for word in sentence]
    assert pieces[2] == 0

    first, all_of_it = (
        encode(tokenizer, table([sentence], [labels]), tokenize(label_subwords=kind))[0]["labels"]
        for kind in ("first", "all")
    )

    ignored = [IGNORE_INDEX]
    assert first == ignored + [1] + ignored * (pieces[0] - 1) + [3] + ignored * (pieces[1] - 1) + ignored
    assert all_of_it == ignored + [1] + [2] * (pieces[0] - 1) + [3] + [4] * (pieces[1] - 1) + ignored


def test_a_label_that_train_lacks_is_ignored_in_training(tiny_wordpiece: Path) -> None:
    features = encode(load(tiny_wordpiece), table([["a", "a"]], [["B-NEW", "O"]]), tokenize())

    assert features[0]["labels"] == [IGNORE_INDEX, IGNORE_INDEX, 0, IGNORE_INDEX]
    assert features[0]["words"] == [0, 1]


def test_batches_and_a_full_cache_change_nothing(tiny_wordpiece: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, drawn = load(tiny_wordpiece), [[f"w{i}", "a", f"x{i % 7}"] for i in range(50)]
    whole = encode(tokenizer, table(drawn), tokenize())
    monkeypatch.setattr(encoding, "MAX_CACHED_WORDS", 10)
    encoder = encoding.Encoder(tokenizer, LABELS, tokenize())

    parts = [encoder.encode(table(drawn).slice(i, 7), np.arange(i, min(i + 7, 50))) for i in range(0, 50, 7)]

    assert pa.concat_tables(parts).to_pylist() == whole
    assert len(encoder.subwords.starts) < 40


def test_a_table_gives_the_features_and_counts_of_its_batches(tiny_wordpiece: Path) -> None:
    encoder = encoding.Encoder(load(tiny_wordpiece), LABELS, tokenize(max_length=8))
    batches = [(np.array([0, 4]), table([["a"], ["a"] * 9])), (np.array([7]), table([["Berlin", ""]]))]

    found = list(encoder.encode_table("train", iter(batches)))

    assert list(encoder.tables) == ["train", "validation", "test"]
    assert [features.schema for features, _ in found] == [encoder.tables["train"]] * 2
    assert [features["example"].to_pylist() for features, _ in found] == [[0, 4, 4], [7]]
    for (rows, sentences), (features, _) in zip(batches, found, strict=True):
        assert features == encoder.encode(sentences, rows)
    ids = [sum(map(len, features["input_ids"].to_pylist())) for features, _ in found]
    assert [counts for _, counts in found] == [
        {
            "examples": 2,
            "words": 10,
            "features": 3,
            "tokens": ids[0],
            "examples_in_windows": 1,
            "words_without_subwords": 0,
        },
        {
            "examples": 1,
            "words": 2,
            "features": 1,
            "tokens": ids[1],
            "examples_in_windows": 0,
            "words_without_subwords": 1,
        },
    ]


@pytest.mark.parametrize("label_subwords", ["first", "all"])
def test_sentences_without_labels_are_encoded_alike(tiny_wordpiece: Path, label_subwords: str) -> None:
    tokenizer, how = load(tiny_wordpiece), tokenize(max_length=8, stride=2, label_subwords=label_subwords)
    sentences = [["Berlin", "zzzqx", ""], ["a"] * 12]
    nothing = pa.array([None] * 2, pa.list_(pa.string()))
    unlabelled = table(sentences).set_column(1, "labels", nothing)

    found = encode(tokenizer, unlabelled, how)

    for feature in (expected := encode(tokenizer, table(sentences), how)):
        feature["labels"] = [IGNORE_INDEX] * len(feature["labels"])
    assert found == expected


def test_saved_truncation_and_padding_are_not_applied(tiny_wordpiece: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_wordpiece)
    tokenizer.backend_tokenizer.enable_truncation(4)
    tokenizer.backend_tokenizer.enable_padding(length=30)

    features = encode(tokenizer, table([["a"] * 20]), tokenize())

    assert len(features[0]["input_ids"]) == 22


def test_label_names_are_ordered_and_complete() -> None:
    batches = [table([["a", "b"]], [["I-PER", "B-LOC"]]), table([["c"]], [["O"]])]

    assert encoding.target(iter(batches), tokenize()) == ["O", "B-LOC", "I-PER"]
    assert encoding.target(iter(batches), tokenize(label_subwords="all")) == ["O", "B-LOC", "I-LOC", "I-PER"]
    speech = table([["a", "b"]], [["VB", "NN"]])
    assert encoding.target(iter([speech]), tokenize(label_subwords="all")) == ["NN", "VB"]
    with pytest.raises(UserError, match="train: 'O' is its only label; expected two or more"):
        encoding.target(iter([table([["a"]], [["O"]])]), tokenize())


def test_integer_labels_and_types_are_sorted_as_numbers() -> None:
    numbers = [str(number) for number in range(12)]
    assert encoding.target(iter([table([numbers], [numbers[::-1]])]), tokenize()) == numbers
    tags = ["O", "B-2", "I-2", "B-10", "I-10"]
    assert encoding.target(iter([table([["a"] * 5], [tags[::-1]])]), tokenize()) == tags


def test_the_declared_scheme_makes_entities_not_the_labels_look(tiny_wordpiece: Path) -> None:
    labels = [["B-x", "I-y", "O"]]
    none = table([["Anna", "lives", "unbelievable"]], labels).replace_schema_metadata(NO_SCHEME)

    for label_subwords in ("first", "all"):
        how = tokenize(label_subwords=label_subwords)
        found = encoding.target(iter([none]), how)
        assert found == {"label_names": ["O", "B-x", "I-y"], "scheme": "none"}
    # Later subwords have their word's own label.
    tokenizer = load_tokenizer(tiny_wordpiece, 24, pre_split=True)
    words = table([["unbelievable", "Anna"]], [["B-x", "O"]])
    feature = encoding.Encoder(tokenizer, found, how).encode(words, np.array([0])).to_pylist()[0]
    assert feature["labels"][1:-2] == [1] * (len(feature["labels"]) - 3) and len(feature["labels"]) > 5
    # Other labels tell by themselves that they are no tags.
    speech = table([["a", "b"]], [["VB", "B-NN"]]).replace_schema_metadata(NO_SCHEME)
    assert encoding.target(iter([speech]), how) == ["B-NN", "VB"]


def test_max_length_above_the_models_positions_is_refused(tiny_wordpiece: Path, tiny_bpe: Path) -> None:
    for folder in (tiny_wordpiece, tiny_bpe):
        positions = model_positions(AutoConfig.from_pretrained(folder))
        assert positions is not None
        load_tokenizer(folder, positions, pre_split=True)
        with pytest.raises(UserError, match=f"{positions + 1} tokens exceed the {positions} positions"):
            load_tokenizer(folder, positions + 1, pre_split=True)


def test_roberta_has_fewer_positions_than_embeddings() -> None:
    assert model_positions(RobertaConfig(max_position_embeddings=514)) == 512


def test_a_task_loads_its_tokenizer_and_trains_none(tiny_wordpiece: Path) -> None:
    def train() -> Any:
        pytest.fail("the train split is read")

    assert encoding.load_tokenizer(tiny_wordpiece, tokenize(66), train).is_fast
    with pytest.raises(UserError, match="67 tokens exceed the 66 positions"):
        encoding.load_tokenizer(tiny_wordpiece, tokenize(67), train)


@pytest.mark.parametrize("kind", ["RobertaTokenizer", "PreTrainedTokenizerFast", "in a sequence"])
def test_only_words_get_a_space_before_in_byte_level_bpe(tiny_bpe: Path, tmp_path: Path, kind: str) -> None:
    """As GPT-2's, RoBERTa's and ModernBERT's, which see the first word of a text without one."""
    shutil.copytree(tiny_bpe, tmp_path / "given")
    parts = json.loads((tmp_path / "given/tokenizer.json").read_text())
    parts["pre_tokenizer"]["add_prefix_space"] = False
    if kind == "in a sequence":
        split = {"type": "Digits", "individual_digits": True}
        parts["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, parts["pre_tokenizer"]]}
    (tmp_path / "given/tokenizer.json").write_text(json.dumps(parts))
    config = json.loads((tmp_path / "given/tokenizer_config.json").read_text())
    config |= {"add_prefix_space": False}
    if kind == "RobertaTokenizer":
        config["tokenizer_class"] = kind
    (tmp_path / "given/tokenizer_config.json").write_text(json.dumps(config))
    texts = ["lives in Paris", " lives", "naïve façade", "a  b", "\n"]

    given, loaded, of_words = (
        AutoTokenizer.from_pretrained(tmp_path / "given"),
        load_tokenizer(tmp_path / "given", 16),
        load_tokenizer(tmp_path / "given", 16, pre_split=True),
    )
    of_words.save_pretrained(tmp_path / "saved")

    assert loaded(texts)["input_ids"] == given(texts)["input_ids"]
    assert given("lives in")["input_ids"] != given(" lives in")["input_ids"]
    for tokenizer in (of_words, AutoTokenizer.from_pretrained(tmp_path / "saved")):
        ids = tokenizer(["lives", "in"], is_split_into_words=True)["input_ids"]
        assert ids == given(" lives in")["input_ids"]


SPLIT = {"type": "Split", "pattern": {"Regex": " ?[a-z]+|'[a-z]+| ?[0-9]+|."}, "behavior": "Isolated", "invert": False}


@pytest.mark.parametrize("kind", ["split before bytes", "blanks as letters"])
def test_a_lone_word_has_the_tokens_that_it_has_in_a_text(tiny_bpe: Path, tmp_path: Path, kind: str) -> None:
    """As Llama 3's and Gemma's, where a blank belongs to a word as a whole and not to each part of it."""
    shutil.copytree(tiny_bpe, tmp_path, dirs_exist_ok=True)
    parts = json.loads((tmp_path / "tokenizer.json").read_text())
    if kind == "split before bytes":
        of_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        parts["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [SPLIT, of_bytes]}
    else:
        parts["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "Ġ"}
        parts["pre_tokenizer"] = None
    (tmp_path / "tokenizer.json").write_text(json.dumps(parts))

    tokenizer = load_tokenizer(tmp_path, 16, pre_split=True)

    words = ["lives", "don't", "in", "2023!"]
    text = load_tokenizer(tmp_path, 16)(" " + " ".join(words), add_special_tokens=False)["input_ids"]
    assert tokenizer(words, is_split_into_words=True, add_special_tokens=False)["input_ids"] == text


def test_texts_are_normalized_as_the_tokenizers_own_file_says(tmp_path: Path) -> None:
    """A cased BERT whose settings do not say so: of Korean its class would leave nothing known."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "영화", "##가", "Paris", "ca", "##fé"]
    backend = Tokenizer(models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    (tmp_path / "config.json").write_text('{"model_type": "bert", "vocab_size": 10}')

    tokenizer = load_tokenizer(tmp_path, 16)
    tokenizer.save_pretrained(tmp_path / "saved")

    for loaded in (tokenizer, AutoTokenizer.from_pretrained(tmp_path / "saved")):
        ids = loaded("영화가 Paris café", add_special_tokens=False)["input_ids"]
        assert loaded.convert_ids_to_tokens(ids) == ["영화", "##가", "Paris", "ca", "##fé"]
        assert (loaded.cls_token, loaded.pad_token, loaded.unk_token) == ("[CLS]", "[PAD]", "[UNK]")


def test_a_tokenizer_without_padding_pads_with_its_last_token(tiny_bpe: Path, tmp_path: Path) -> None:
    """As GPT-2's, which has neither a padding token nor a side for it."""
    shutil.copytree(tiny_bpe, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del config["pad_token"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"padding_side": "left"}))

    tokenizer = load_tokenizer(tmp_path, 16, pre_split=True)

    assert (tokenizer.pad_token, tokenizer.padding_side) == ("</s>", "right")


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tiny_bpe: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bpe, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"vocab_size": config["vocab_size"] - 1}))

    size = config["vocab_size"]
    with pytest.raises(UserError, match=f"{size} tokens in the tokenizer; expected the model's {size - 1}"):
        load_tokenizer(tmp_path, 16, pre_split=True)


def test_a_folder_without_a_tokenizer_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the tokenizer does not load"):
        load_tokenizer(tmp_path, 16, pre_split=True)
    with pytest.raises(UserError, match="nowhere is missing; expected the output of download@model: run `dvc repro`"):
        load_tokenizer(tmp_path / "nowhere", 16, pre_split=True)


def test_a_stride_that_leaves_no_room_is_refused(tiny_wordpiece: Path) -> None:
    how = Tokenize.model_construct(max_length=10, stride=8, label_subwords="first", limit=None)
    with pytest.raises(UserError, match="stride: 8 leaves windows of 8 subwords no room"):
        encoding.Encoder(load(tiny_wordpiece), LABELS, how)
