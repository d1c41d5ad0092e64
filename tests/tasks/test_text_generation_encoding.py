"""Texts to blocks and completions: settings, corpus, tokenizers, packing, labels, and what is counted."""

import json
import os
import subprocess
import sys
from array import array
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, GPT2Config, PreTrainedTokenizerFast

from finetrail import schema
from finetrail.corpus.readers import Record
from finetrail.errors import UserError
from finetrail.labels import IGNORE_INDEX
from finetrail.model.base import copy_verified
from finetrail.sources import fetch, pin_hint
from finetrail.tasks.text_generation import concerns, corpus, encoding
from finetrail.tasks.text_generation.settings import Corpus, Evaluate, Samples, Tokenize, check

ROOT = Path(__file__).parents[2]
X = IGNORE_INDEX

# --- settings -------------------------------------------------------------------------------------------------------

TOKENIZE = {
    "engine": "local",
    "num_proc": 1,
    "block_size": 8,
    "join_documents": True,
    "remainder": "pad",
    "template": None,
    "eos_token": None,
    "chat": None,
    "limit": None,
}
SAMPLES = {"count": 2, "prompt_tokens": 3, "max_new_tokens": 5, "temperature": 0.8, "top_p": 0.9, "seed": 0}
BOOTSTRAP = {"samples": 100, "confidence": 0.9, "seed": 0}


def corpus_settings(*columns: str, bad_conversations: str | None = None) -> Corpus:
    return Corpus.model_validate(
        {
            "name": "toy",
            "source": {"kind": "file", "path": "toy.jsonl", "sha256": None},
            "splits": {
                "train": "toy.jsonl",
                "validation": 0.2,
                "test": 0.2,
                "seed": 0,
                "stratify": None,
                "group": None,
            },
            "license": None,
            "language": None,
            "bad_conversations": bad_conversations,
            "reader": {"format": "jsonl", "columns": {column: column for column in columns}, "encoding": "utf-8"},
        }
    )


def recipe(
    columns: tuple[str, ...] = ("text",), best_metric: str = "perplexity", samples: Any = None, **tokenize: Any
) -> Any:
    evaluate = Evaluate(
        batch_size=1,
        bootstrap=schema.Bootstrap(**BOOTSTRAP),
        worst_errors=3,
        samples=Samples(**(SAMPLES | (samples or {}))),
    )
    return SimpleNamespace(
        corpus=corpus_settings(*columns, bad_conversations="refuse" if "messages" in columns else None),
        tokenize=Tokenize(**(TOKENIZE | tokenize)),
        train=SimpleNamespace(best_metric=best_metric),
        evaluate=evaluate,
    )


PAIRS = ("prompt", "completion")
ALONE: dict[str, Any] = {"join_documents": False, "samples": {"prompt_tokens": None}}


def test_documents_and_completions_have_recipes_that_agree() -> None:
    assert list(check(recipe())) == []
    assert list(check(recipe(PAIRS, template="Q: {prompt}\nA:", **ALONE))) == []
    assert list(check(recipe(("id", "text"), best_metric="loss"))) == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"best_metric": "accuracy"}, "train.best_metric: 'accuracy'; expected one of loss, perplexity"),
        ({"columns": PAIRS, "samples": {"prompt_tokens": None}}, "expected join_documents false and remainder pad"),
        ({"columns": PAIRS, "join_documents": False}, "prompt_tokens: the corpus has prompts; expected null"),
        ({"template": "{prompt}"}, "tokenize.template: the corpus has no prompts; expected null"),
        ({"samples": {"prompt_tokens": None}}, "prompt_tokens: the corpus has no prompts; expected a number"),
        ({"block_size": 7}, "max_new_tokens 5 leaves no room for the prompt in tokenize.block_size 7"),
    ],
)
def test_sections_that_contradict_each_other_are_refused(changed: dict[str, Any], message: str) -> None:
    [problem] = check(recipe(**changed))
    assert message in problem


@pytest.mark.parametrize("template", ["no place", "{prompt} and {prompt}"])
def test_a_template_has_one_place_for_the_prompt(template: str) -> None:
    with pytest.raises(ValidationError, match=r"has \{prompt\} [02] times; expected it once"):
        Tokenize(**(TOKENIZE | {"template": template}))


@pytest.mark.parametrize("columns", [("prompt",), ("text", "completion"), ("document",), ()])
def test_columns_are_text_or_prompt_and_completion(columns: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError, match="expected text, or prompt and completion, or messages; and perhaps"):
        corpus_settings(*columns)


# --- corpus ---------------------------------------------------------------------------------------------------------


def read(settings: Corpus, *examples: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, corpus.Counts]]:
    counts = {split: corpus.Counts() for split in ("train", "validation", "test")}
    records = (Record(str(number), f"toy.jsonl:{number + 1}", values) for number, values in enumerate(examples))
    rows = [row for record in records for _, row in corpus.rows("train", record, settings, counts)]
    return rows, counts


def test_texts_and_completions_become_rows_empty_ones_counted() -> None:
    rows, counts = read(corpus_settings("text"), {"text": "One. "}, {"text": " \n"}, {"text": None}, {"text": "Two"})
    assert rows == [{"id": "0", "prompt": None, "text": "One. "}, {"id": "3", "prompt": None, "text": "Two"}]
    assert (counts["train"].examples, counts["train"].empty_examples, counts["train"].characters) == (2, 2, 8)

    rows, counts = read(corpus_settings(*PAIRS), {"prompt": "Q", "completion": "A"}, {"prompt": "", "completion": "A"})
    assert rows == [{"id": "0", "prompt": "Q", "text": "A"}]
    assert counts["train"].empty_examples == 1


def test_a_column_without_a_string_is_refused_with_its_place() -> None:
    with pytest.raises(UserError, match=r"toy.jsonl:1: example '0': text is \['a'\]; expected a string"):
        read(corpus_settings("text"), {"text": ["a"]})


def test_duplicates_and_leakage_are_of_prompt_and_text_together() -> None:
    settings = corpus_settings(*PAIRS)
    _, counts = read(settings, *({"prompt": q, "completion": a} for q, a in ("ab", "ab", "ac", "cb")))
    counts["test"].digests = array("Q", counts["train"].digests[2:3])
    counts["test"].examples = 1
    checks = corpus.checks(counts, settings)
    assert checks["splits"]["train"] == {"examples": 4, "characters": 8, "empty_examples": 0, "duplicates": 1}
    assert checks["leakage"] == {"train/validation": 0, "train/test": 1, "validation/test": 0}
    assert [*map(str, concerns.of_corpus(checks))] == [
        "train: examples that repeat an earlier one of their split: 1",
        "test: examples that also occur in train: 1",
    ]
    assert corpus.summary(counts["train"], settings) == "4 completions, 8 characters"
    assert corpus.summary(counts["train"], corpus_settings("text")) == "4 documents, 8 characters"


def test_the_tables_are_the_splits() -> None:
    assert list(corpus.tables(corpus_settings("text"))) == ["train", "validation", "test"]


# --- a new model and its tokenizer ----------------------------------------------------------------------------------

NEW = {
    "kind": "new",
    "config": {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 16},
    "tokenizer": {"kind": "byte_level_bpe", "vocab_size": 300, "min_frequency": 2},
}
POEM = ["the cat sat on the mat.", "the dog sat on the log.", "Zoë said: 안녕하세요 😀\n\nthe end"] * 3


def new_source(**config: Any) -> schema.NewSource:
    return schema.NewSource.model_validate(NEW | {"config": NEW["config"] | config})  # type: ignore[operator]


def lay_out(folder: Path, **config: Any) -> Path:
    """Write data/model of a new model as download@model does."""
    copy_verified(fetch(new_source(**config), "model", folder / "scratch"), folder / "model")
    return folder / "model"


def table(texts: list[str | None], prompts: list[str | None] | None = None) -> pa.Table:
    columns = [list(map(str, range(len(texts)))), prompts or [None] * len(texts), texts]
    return pa.table(columns, schema=corpus.SCHEMA)


def load(folder: Path, texts: list[str] = POEM, **settings: Any) -> Any:
    return encoding.load_tokenizer(folder, Tokenize(**(TOKENIZE | settings)), lambda: iter([table([*texts])]))


@pytest.fixture(scope="module")
def new_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lay_out(tmp_path_factory.mktemp("new"))


@pytest.fixture(scope="module")
def tokenizer(new_model: Path) -> Any:
    return load(new_model / "tokenizer")


def test_a_new_model_is_its_configuration_and_no_weights(new_model: Path) -> None:
    files = sorted(path.relative_to(new_model).as_posix() for path in new_model.rglob("*") if path.is_file())
    assert files == ["tokenizer/config.json", "tokenizer/tokenizer_to_train.json", "weights/config.json"]
    config = GPT2Config.from_pretrained(new_model / "weights")
    assert (config.vocab_size, config.n_layer, config.eos_token_id, config.pad_token_id) == (300, 2, 0, 0)


def test_a_new_model_is_recorded_and_pinned_by_its_settings(tmp_path: Path) -> None:
    first, second, other = (
        fetch(source, "model", tmp_path) for source in (new_source(), new_source(), new_source(n_layer=3))
    )
    assert first.provenance == second.provenance
    assert first.provenance["sha256"] != other.provenance["sha256"]
    assert first.provenance["kind"] == "new"
    assert first.provenance["source"] == {"config": NEW["config"], "tokenizer": NEW["tokenizer"]}
    assert pin_hint(first) is None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": None}, "config has no model_type; expected one that transformers knows"),
        ({"vocab_size": 300}, "config has vocab_size, which follows from the tokenizer"),
        ({"eos_token_id": 1}, "config has eos_token_id, which follows from the tokenizer"),
        ({"n_layer": [1]}, "valid"),
    ],
)
def test_an_overlong_or_incomplete_configuration_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        new_source(**config)


def test_only_a_model_can_be_new() -> None:
    with pytest.raises(ValidationError, match="new"):
        TypeAdapter(schema.Source).validate_python(NEW)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"n_layers": 2}, "model.source.config: gpt2 has no n_layers; expected keys of GPT2Config"),
        ({"model_type": "gpt"}, "transformers has no model_type 'gpt'; expected such as gpt2"),
        ({"n_layer": "two"}, "model.source.config: gpt2: .*n_layer.*expected int, got str"),
    ],
)
def test_a_configuration_transformers_would_misread_is_refused(
    tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load(lay_out(tmp_path, **config) / "tokenizer")


def test_a_trained_tokenizer_knows_every_text_and_its_end(new_model: Path, tokenizer: Any) -> None:
    assert len(tokenizer) == 300 == GPT2Config.from_pretrained(new_model / "weights").vocab_size
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == tokenizer.bos_token_id == 0
    for text in (*POEM, "  never\tseen: ∑ ", "<|endoftext|>"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_a_small_corpus_gives_a_smaller_vocabulary(new_model: Path) -> None:
    assert len(load(new_model / "tokenizer", ["ab"])) == 257


TRAIN = """
import sys, pyarrow as pa
from pathlib import Path
from finetrail.encoding.new_model import train_tokenizer
texts = [f"{a} {b} {c}" for a in "the a one my".split() for b in "cat dog bird".split() for c in "sat ran flew".split()]
train_tokenizer(Path(sys.argv[1]), iter(texts)).save_pretrained(sys.argv[2])
"""


def test_a_tokenizer_is_the_same_in_every_process(new_model: Path, tmp_path: Path) -> None:
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT), "RAYON_NUM_THREADS": seed}
        command = [sys.executable, "-c", TRAIN, str(new_model / "tokenizer"), str(tmp_path / seed)]
        subprocess.run(command, env=environment, check=True, capture_output=True)
    files = [{path.name: path.read_bytes() for path in (tmp_path / seed).iterdir()} for seed in "12"]
    assert files[0] == files[1] and {"tokenizer.json", "tokenizer_config.json"} <= files[0].keys()


def test_a_trained_tokenizer_comes_back_as_it_was_saved(tokenizer: Any, new_model: Path, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    alone = AutoTokenizer.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_bytes((new_model / "weights/config.json").read_bytes())
    for loaded in (alone, AutoTokenizer.from_pretrained(tmp_path)):
        assert loaded(POEM)["input_ids"] == tokenizer(POEM)["input_ids"]
        assert (loaded.eos_token_id, loaded.pad_token_id) == (0, 0)


# --- tokenizers of base models --------------------------------------------------------------------------------------


def korean(folder: Path, size: int = 64) -> Path:
    """Write what KoGPT2's repository has: a tokenizer.json alone, with pieces like ▁a, beside a GPT-2's config."""
    specials = ["<s>", "</s>", "<usr>", "<pad>", "<sys>", "<unk>"]
    characters = sorted(set("▁안녕하세요또만나"))
    pieces = [*specials, *characters, "▁안", "▁안녕", "하세", "하세요", "▁또"]
    merges = [("▁", "안"), ("▁안", "녕"), ("하", "세"), ("하세", "요"), ("▁", "또")]
    numbers = {piece: number for number, piece in enumerate(pieces)}
    backend = Tokenizer(models.BPE(numbers, merges, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.add_special_tokens([AddedToken(token, special=True) for token in specials])
    folder.mkdir(exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    config = {"model_type": "gpt2", "vocab_size": size, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 3}
    (folder / "config.json").write_text(json.dumps(config | {"n_positions": 16}))
    return folder


def test_a_tokenizer_beside_a_gpt2_is_taken_as_its_file_says(tmp_path: Path) -> None:
    folder = korean(tmp_path / "tokenizer")
    # What AutoTokenizer makes of it, as long as it does: byte-level BPE, which knows none of these characters.
    assert AutoTokenizer.from_pretrained(folder).tokenize("안녕하세요") == []
    loaded = load(folder, eos_token="</s>")
    assert loaded.tokenize("안녕하세요 또") == ["▁안녕", "하세요", "▁또"]
    assert (loaded.eos_token_id, loaded.pad_token_id) == (1, 1)
    loaded.save_pretrained(tmp_path / "saved")
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").tokenize("안녕하세요 또") == ["▁안녕", "하세요", "▁또"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({}, "the tokenizer has no eos_token; expected one in tokenize.eos_token"),
        ({"eos_token": "<end>"}, "tokenize.eos_token: '<end>' is not in the vocabulary; expected a token"),
        ({"eos_token": "</s>", "block_size": 17}, "tokenize.block_size: 17 is above the 16 positions of the base"),
    ],
)
def test_a_tokenizer_that_does_not_serve_is_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(korean(tmp_path / "tokenizer"), **changed)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="2. tokens in the tokenizer; expected the model's 19"):
        load(korean(tmp_path / "tokenizer", size=19), eos_token="</s>")


def test_a_tokenizer_that_is_missing_or_damaged_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is missing; expected the output of download@model"):
        load(tmp_path / "tokenizer")
    folder = korean(tmp_path / "tokenizer")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="the tokenizer does not load"):
        load(folder)


# --- packing --------------------------------------------------------------------------------------------------------


def encoded(
    tokenizer: Any, examples: pa.Table, cuts: tuple[int, ...] = (), **settings: Any
) -> tuple[Any, dict[str, int]]:
    """Encode a table in the batches that the cuts make of it; return the features and their summed counts."""
    chosen = Tokenize(**(TOKENIZE | settings))
    encoder = encoding.Encoder(tokenizer, encoding.target(iter([]), chosen), chosen)
    ends = [*cuts, len(examples)]
    batches = ((np.arange(a, b), examples.slice(a, b - a)) for a, b in zip([0, *cuts], ends, strict=True))
    tables, counts = [], {}
    for features, counted in encoder.encode_table("train", batches):
        assert features.schema == encoder.tables["train"]
        tables.append(features)
        counts = {key: counts.get(key, 0) + counted.get(key, 0) for key in {**counts, **counted}}
    return pa.concat_tables(tables), counts


@pytest.fixture(scope="module")
def words() -> Any:
    """A tokenizer whose tokens are words: their ids can be read off a text of numbers from 1 to 30."""
    numbers = {"[END]": 0} | {str(number): number for number in range(1, 31)} | {"?": 31}
    backend = Tokenizer(models.WordLevel(numbers, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="[END]", pad_token="[END]", unk_token="?")


DOCUMENTS = st.lists(st.lists(st.integers(1, 30), max_size=12), min_size=1, max_size=8)


@settings(max_examples=60)
@given(DOCUMENTS, st.integers(2, 9), st.sampled_from(["drop", "pad"]), st.data())
def test_joined_documents_are_cut_without_gaps(
    words: Any, documents: list[list[int]], size: int, remainder: str, data: st.DataObject
) -> None:
    texts = table([" ".join(map(str, document)) for document in documents])
    cuts = tuple(sorted(data.draw(st.sets(st.integers(1, len(documents) - 1))) if len(documents) > 1 else []))
    features, counts = encoded(words, texts, cuts, block_size=size, remainder=remainder)
    stream = [token for document in documents for token in (*document, 0)]
    owner = [number for number, document in enumerate(documents) for _ in (*document, 0)]
    starts = [start for start in range(0, len(stream), size) if remainder == "pad" or start + size <= len(stream)]
    blocks = [stream[start : start + size] for start in starts]
    assert features["input_ids"].to_pylist() == blocks
    assert features["labels"].to_pylist() == [[X, *block[1:]] for block in blocks]
    assert features["example"].to_pylist() == [owner[start] for start in starts]
    kept = sum(map(len, blocks))
    assert (counts["examples"], counts["features"], counts["tokens"]) == (len(documents), len(blocks), kept)
    assert counts["tokens_dropped"] == len(stream) - kept


@settings(max_examples=60)
@given(DOCUMENTS, st.integers(2, 9), st.sampled_from(["drop", "pad"]))
def test_documents_that_are_not_joined_share_no_block(
    words: Any, documents: list[list[int]], size: int, remainder: str
) -> None:
    texts = table([" ".join(map(str, document)) for document in documents])
    features, counts = encoded(words, texts, block_size=size, remainder=remainder, join_documents=False)
    expected = []
    for number, document in enumerate(documents):
        tokens = [*document, 0]
        blocks = [tokens[start : start + size] for start in range(0, len(tokens), size)]
        expected += [(number, block) for block in blocks if remainder == "pad" or len(block) == size]
    assert list(zip(features["example"].to_pylist(), features["input_ids"].to_pylist(), strict=True)) == expected
    assert counts["tokens"] + counts["tokens_dropped"] == sum(len(document) + 1 for document in documents)


def test_completion_loss_covers_only_the_completion_and_end(words: Any) -> None:
    features, counts = encoded(words, table(["3 4", "5"], ["1 2", "2"]), join_documents=False, template="9 {prompt} 10")
    assert features["input_ids"].to_pylist() == [[9, 1, 2, 10, 3, 4, 0], [9, 2, 10, 5, 0]]
    assert features["labels"].to_pylist() == [[X, X, X, X, 3, 4, 0], [X, X, X, 5, 0]]
    assert features["example"].to_pylist() == [0, 1]
    assert (counts["examples_truncated"], counts["tokens_truncated"]) == (0, 0)


def test_long_examples_lose_prompt_starts_then_completion_ends(words: Any) -> None:
    prompts: list[str | None] = ["1 2 3 4 5 6", "1 2", "1"]
    features, counts = encoded(words, table(["7 8", "3 4 5 6 7 8", "2"], prompts), block_size=5, join_documents=False)
    assert features["input_ids"].to_pylist() == [[5, 6, 7, 8, 0], [2, 3, 4, 5, 6], [1, 2, 0]]
    assert features["labels"].to_pylist() == [[X, X, 7, 8, 0], [X, 3, 4, 5, 6], [X, 2, 0]]
    assert (counts["examples_truncated"], counts["tokens_truncated"]) == (2, 4 + 4)
    assert (counts["completions_truncated"], counts["completion_tokens_truncated"]) == (1, 3)


NUMBERS = st.lists(st.integers(1, 30), min_size=1, max_size=25)


@settings(max_examples=60)
@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=6), st.integers(2, 20))
def test_a_completion_starts_where_learning_does(
    words: Any, pairs: list[tuple[list[int], list[int]]], size: int
) -> None:
    prompts, texts = ([" ".join(map(str, part)) for part in column] for column in zip(*pairs, strict=True))

    features, counts = encoded(words, table([*texts], [*prompts]), block_size=size, join_documents=False)

    lost = [0, 0]
    rows = zip(pairs, features["input_ids"].to_pylist(), features["labels"].to_pylist(), strict=True)
    for (prompt, completion), ids, labels in rows:
        kept, whole = labels.count(X), [*completion, 0]
        assert ids == prompt[-kept:] + whole[: len(ids) - kept]
        assert labels == [X] * kept + ids[kept:]
        assert kept >= min(len(prompt), max(1, size // 4)) and len(ids) == min(size, len(prompt) + len(whole))
        # A completion is cut only where its prompt has its least.
        assert len(ids) - kept == len(whole) or kept <= max(1, size // 4)
        lost = [lost[0] + len(prompt) - kept, lost[1] + len(whole) - len(ids) + kept]
    assert counts["tokens_truncated"] == sum(lost)
    assert counts.get("completion_tokens_truncated", 0) == lost[1]


def test_a_prompt_without_a_text_is_for_the_model_to_continue(words: Any) -> None:
    examples = table([None, None, "4 5 6"], ["1 2 3", " ", ""])
    features, _ = encoded(words, examples, block_size=3, remainder="drop")
    # A prompt without tokens becomes the end of a text before it; a text on its own is cut on its own.
    assert features["input_ids"].to_pylist() == [[1, 2, 3], [0], [4, 5, 6], [0]]
    assert features["labels"].to_pylist() == [[X, X, X], [X], [X, 5, 6], [X]]
    assert features["example"].to_pylist() == [0, 1, 2, 2]


def test_special_token_names_are_tokens_in_templates_only(tokenizer: Any) -> None:
    end, size = "<|endoftext|>", {"block_size": 64, "join_documents": False}
    features, _ = encoded(tokenizer, table([f"cat {end} dog"]), **size)
    tokens = features["input_ids"][0].as_py()
    assert tokenizer.decode(tokens[:-1]) == f"cat {end} dog" and tokens.index(0) == len(tokens) - 1
    features, _ = encoded(tokenizer, table(["cat"], ["dog"]), template=f"{end}{{prompt}}{end}", **size)
    dog, cat = (tokenizer(word)["input_ids"] for word in ("dog", "cat"))
    assert features["input_ids"].to_pylist() == [[0, *dog, 0, *cat, 0]]


@pytest.mark.parametrize("kind", ["new", "korean"])
def test_bytes_are_those_that_the_labels_stand_for(kind: str, tokenizer: Any, tmp_path: Path) -> None:
    of_text = tokenizer if kind == "new" else load(korean(tmp_path), eos_token="</s>")
    texts = ["안녕하세요 또", "또 만나요 안녕"]
    features, _ = encoded(of_text, table([*texts]), block_size=64, join_documents=False)
    for text, ids, size in zip(texts, features["input_ids"].to_pylist(), features["bytes"].to_pylist(), strict=True):
        first = of_text.convert_ids_to_tokens(ids[0])
        before = len(first) if kind == "new" else len(first.removeprefix("▁").encode())
        assert size == len(text.encode()) - before


def test_the_same_table_gives_the_same_features(tokenizer: Any) -> None:
    first, second = (encoded(tokenizer, table([*POEM]), cuts)[0] for cuts in ((), (1, 2)))
    assert first.combine_chunks().equals(second.combine_chunks())
