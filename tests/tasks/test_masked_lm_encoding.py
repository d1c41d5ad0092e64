"""Blocks against a naive stream of token lists; word pieces against the library's word_ids; frozen masks."""

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetrail.encoding.masking import FIRST, LATER, SPECIAL
from finetrail.errors import UserError
from finetrail.labels import IGNORE_INDEX
from finetrail.stage import read_json, write_json
from finetrail.tasks.masked_lm import encoding, serving
from finetrail.tasks.masked_lm.settings import Tokenize

ROOT = Path(__file__).parents[2]
KINDS = ("tiny_wordpiece", "tiny_bpe", "tiny_sentencepiece", "tiny_sentencepiece_first")

PROPERTY = settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])


def tokenize(**changes: Any) -> Tokenize:
    values = {
        "block_size": 12, "join_documents": True, "remainder": "pad", "mask_probability": 0.15, "whole_word": False,
        "mask_seed": 0, "limit": None, "engine": "local", "num_proc": 1,
    }  # fmt: skip
    return Tokenize(**(values | changes))


LOADED: dict[Path, Any] = {}


def load(folder: Path) -> Any:
    if folder not in LOADED:
        LOADED[folder] = encoding.load_tokenizer(folder, tokenize(), lambda: iter(()))
    return LOADED[folder]


def encode(tokenizer: Any, name: str, how: Tokenize, *batches: list[str]) -> tuple[pa.Table, Counter[str]]:
    """Encode texts that come in these batches; their rows in the corpus are 10, 11, ..."""
    tables, row = [], 10
    for texts in batches:
        tables.append((np.arange(row, row + len(texts)), pa.table({"text": pa.array(texts, pa.string())})))
        row += len(texts)
    counts: Counter[str] = Counter()
    parts = []
    for features, of_part in encoding.Encoder(tokenizer, None, how).encode_table(name, iter(tables)):
        parts.append(features)
        counts.update(of_part)
    return pa.concat_tables([encoding.FEATURES.empty_table(), *parts]), counts


words = st.one_of(
    st.sampled_from(["a", "Berlin", "unaffable", "tokenization", "학교에서", "[SEP]", "[MASK]", "<mask>", "<unk>"]),
    st.sampled_from(["##ing", "naïve", "don't", "!?", "🙂", "\u200b", "▁a▁b", "Ġa", "abc123", "3.5%", "\n", "  "]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
documents = st.lists(st.lists(words, max_size=25).map(" ".join), min_size=1, max_size=6)


def naive_blocks(tokenizer: Any, texts: list[str], how: Tokenize) -> tuple[list[tuple[int, list[int]]], int]:
    """Return (row, input_ids) of each block, token by token, and the number of tokens that none holds."""
    empty = tokenizer("")["input_ids"]
    frame = empty[: len(empty) // 2], empty[len(empty) // 2 :]
    streams: list[list[tuple[int, int]]] = [[]]
    for row, text in enumerate(texts, start=10):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if not how.join_documents:
            streams.append([])
        elif ids and streams[-1]:
            streams[-1] += [(row, token) for token in frame[1]]
        streams[-1] += [(row, token) for token in ids]
    blocks, dropped = [], 0
    size = how.block_size - len(empty)
    for stream in streams:
        for start in range(0, len(stream), size):
            block = stream[start : start + size]
            ids = [token for _, token in block]
            if set(ids) <= set(tokenizer.all_special_ids) or (how.remainder == "drop" and len(ids) < size):
                dropped += len(ids)
            else:
                blocks.append((block[0][0], [*frame[0], *ids, *frame[1]]))
    return blocks, dropped


@pytest.mark.parametrize("kind", KINDS)
@PROPERTY
@given(texts=documents, join=st.booleans(), remainder=st.sampled_from(["drop", "pad"]), data=st.data())
def test_equals_the_naive_algorithm_however_the_texts_come(
    kind: str, request: pytest.FixtureRequest, texts: list[str], join: bool, remainder: str, data: st.DataObject
) -> None:
    tokenizer = load(request.getfixturevalue(kind))
    how = tokenize(join_documents=join, remainder=remainder, block_size=data.draw(st.integers(8, 20)))
    cut = data.draw(st.integers(0, len(texts)))

    found, counts = encode(tokenizer, "train", how, texts[:cut], texts[cut:])

    expected, dropped = naive_blocks(tokenizer, texts, how)
    assert list(zip(found["example"].to_pylist(), found["input_ids"].to_pylist(), strict=True)) == expected
    assert found["labels"].null_count == len(found)
    assert counts["examples"] == len(texts)
    assert counts["features"] == len(expected)
    assert counts["tokens"] == sum(len(ids) for _, ids in expected)
    assert counts["tokens_dropped"] == dropped


@pytest.mark.parametrize("kind", KINDS)
@PROPERTY
@given(texts=documents)
def test_pieces_are_those_of_the_library_s_word_ids(
    kind: str, request: pytest.FixtureRequest, texts: list[str]
) -> None:
    tokenizer = load(request.getfixturevalue(kind))
    found = encoding.Encoder(tokenizer, None, tokenize()).encode(pa.table({"text": texts}), np.arange(len(texts)))

    for text, pieces in zip(texts, found["pieces"].to_pylist(), strict=True):
        encoded = tokenizer(text, add_special_tokens=False)
        expected, before = [], None
        for token, word in zip(encoded["input_ids"], encoded.word_ids(), strict=True):
            expected.append(SPECIAL if token in tokenizer.all_special_ids else LATER if word == before else FIRST)
            before = word
        assert pieces == expected


def test_a_vocabulary_marker_tells_words_only_where_it_is_sure(
    tiny_wordpiece: Path, tiny_bpe: Path, tiny_sentencepiece: Path
) -> None:
    def tells(folder: Path) -> bool:
        tokenizer = load(folder)
        return encoding.beginnings(tokenizer.backend_tokenizer, len(tokenizer)) is not None

    assert tells(tiny_wordpiece)
    # "(" parts words without a sign in these.
    assert not tells(tiny_bpe)
    assert not tells(tiny_sentencepiece)


@pytest.mark.parametrize("whole_word", [False, True])
@PROPERTY
@given(texts=documents, join=st.booleans(), data=st.data())
def test_frozen_masks_are_independent_of_batches_and_reversible(
    tiny_wordpiece: Path, whole_word: bool, texts: list[str], join: bool, data: st.DataObject
) -> None:
    tokenizer = load(tiny_wordpiece)
    how = tokenize(join_documents=join, whole_word=whole_word, mask_probability=0.3)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(texts)), max_size=3)))
    parts = [texts[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(texts)], strict=True)]

    whole, _ = encode(tokenizer, "test", how, texts)
    found, _ = encode(tokenizer, "test", how, *parts)
    plain, _ = encode(tokenizer, "train", how, texts)

    assert found.to_pylist() == whole.to_pylist()
    for masked, block in zip(whole.to_pylist(), plain.to_pylist(), strict=True):
        labels = np.array(masked["labels"])
        assert np.where(labels == IGNORE_INDEX, masked["input_ids"], labels).tolist() == block["input_ids"]
        assert (labels != IGNORE_INDEX).any()
        assert not set(labels) & set(tokenizer.all_special_ids)
        assert masked["pieces"] == block["pieces"]


def test_each_block_and_each_seed_has_masks_of_its_own(tiny_wordpiece: Path, toy_text: list[str]) -> None:
    def positions(**how: Any) -> list[list[bool]]:
        found, _ = encode(load(tiny_wordpiece), "validation", tokenize(mask_probability=0.3, **how), toy_text)
        return [[label != IGNORE_INDEX for label in labels] for labels in found["labels"].to_pylist()]

    first = positions()
    assert len({tuple(block) for block in first[:-1]}) > len(first) / 2
    assert positions(mask_seed=1) != first
    assert positions() == first


# Transformers takes seconds to import: what the encoder asks of its tokenizer, without it.
IN_ANOTHER_PROCESS = """
import sys
import numpy as np, pyarrow as pa
from tokenizers import Tokenizer
from finetrail.tasks.masked_lm import encoding
from finetrail.tasks.masked_lm.settings import Tokenize

class Light:
    def __init__(self, backend):
        self.backend_tokenizer, self.get_vocab = backend, backend.get_vocab
        special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
        *_, self.mask_token_id = self.all_special_ids = [backend.token_to_id(token) for token in special]

    def __len__(self):
        return len(self.get_vocab())

encoder = encoding.Encoder(Light(Tokenizer.from_file(sys.argv[1])), None, Tokenize.model_validate_json(sys.argv[2]))
batches = iter([(np.arange(len(sys.argv) - 3), pa.table({"text": sys.argv[3:]}))])
print(pa.concat_tables([part for part, _ in encoder.encode_table("test", batches)])["input_ids"].to_pylist())
"""


def test_masks_are_the_same_in_another_process_and_hash_seed(tiny_wordpiece: Path, toy_text: list[str]) -> None:
    arguments = [str(tiny_wordpiece / "tokenizer.json"), tokenize().model_dump_json(), *toy_text]
    environment = {**os.environ, "PYTHONHASHSEED": "1" if os.environ.get("PYTHONHASHSEED") == "0" else "0"}
    done = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS, *arguments],
        cwd=ROOT, check=True, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    found, _ = encode(load(tiny_wordpiece), "test", tokenize(), toy_text)
    assert done.stdout.strip() == str(found["input_ids"].to_pylist())


def test_an_empty_table_gives_no_blocks(tiny_wordpiece: Path) -> None:
    assert encode(load(tiny_wordpiece), "train", tokenize()) == (encoding.FEATURES.empty_table(), Counter())


# --- what people ask ----------------------------------------------------------------------------------------------


def ask(tokenizer: Any, how: Tokenize, *inputs: dict[str, Any]) -> list[dict[str, Any]]:
    examples = serving.examples([{"id": str(number)} | given for number, given in enumerate(inputs)])
    parts = encoding.Encoder(tokenizer, None, how).encode_table("test", iter([(np.arange(len(examples)), examples)]))
    return [feature for features, _ in parts for feature in features.to_pylist()]


@pytest.mark.parametrize("join", [False, True])
def test_each_asked_text_has_its_own_blocks_and_masks(tiny_wordpiece: Path, join: bool) -> None:
    tokenizer, how = load(tiny_wordpiece), tokenize(join_documents=join, remainder="drop")
    long = "nobody was at home . " * 4 + "[MASK] lives in [MASK] ."

    short, *blocks = ask(tokenizer, how, {"text": "we saw [MASK] ."}, {"text": long})

    assert short["input_ids"] == tokenizer("we saw [MASK] .")["input_ids"]
    assert short["labels"] == [token if token == tokenizer.mask_token_id else -100 for token in short["input_ids"]]
    assert [block["example"] for block in blocks] == [1] * 3
    inside = [token for block in blocks for token in block["input_ids"][1:-1]]
    assert inside == tokenizer(long, add_special_tokens=False)["input_ids"]
    assert sum(block["labels"].count(tokenizer.mask_token_id) for block in blocks) == 2


def test_a_block_of_ids_is_taken_as_it_is(tiny_wordpiece: Path) -> None:
    tokenizer = load(tiny_wordpiece)
    ids = tokenizer("nobody [MASK] at home")["input_ids"]
    mask = tokenizer.mask_token_id

    at_masks, at_positions = ask(tokenizer, tokenize(), {"input_ids": ids}, {"input_ids": ids, "positions": [1, 3]})

    assert at_masks["input_ids"] == at_positions["input_ids"] == ids
    assert at_masks["labels"] == [-100, -100, mask, -100, -100, -100]
    assert at_positions["labels"] == [-100, mask, -100, mask, -100, -100]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"text": "nobody was here"}, r"input '0': no \[MASK\] in its text; expected one"),
        ({"text": ""}, r"input '0': no \[MASK\]"),
        ({"input_ids": [5] * 13}, "input '0': 13 input_ids; expected 1 to 12"),
        ({"input_ids": []}, "input '0': 0 input_ids"),
        ({"input_ids": [5, 100_000]}, "input '0': an id that is no token; expected input_ids from 0 to"),
        ({"input_ids": [5, -1]}, "input '0': an id that is no token"),
        ({"input_ids": [5, 6]}, "input '0': nothing to predict; expected positions, or mask tokens"),
        ({"input_ids": [5, 6], "positions": []}, "input '0': nothing to predict"),
        ({"input_ids": [5, 6], "positions": [1, 2]}, "input '0': position 2 of 2 input_ids; expected 0 to 1"),
        ({"input_ids": [5, 6], "positions": [-1]}, "input '0': position -1 of 2 input_ids"),
    ],
)
def test_a_question_that_is_none_is_refused(tiny_wordpiece: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ask(load(tiny_wordpiece), tokenize(), given)


def test_a_tokenizer_without_a_mask_token_is_refused(tiny_wordpiece: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_wordpiece, tmp_path / "tokenizer")
    config = read_json(folder / "tokenizer_config.json")
    del config["mask_token"]
    write_json(folder / "tokenizer_config.json", config)
    with pytest.raises(UserError, match="no mask token; expected that of a masked language model"):
        encoding.load_tokenizer(folder, tokenize(), lambda: iter(()))
