"""Features against the tokenizers themselves, one text at a time, and by hand."""

import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, BertTokenizer

from finetrail import stage
from finetrail.errors import UserError
from finetrail.labels import IGNORE_INDEX
from finetrail.tasks.text_classification import encoding
from finetrail.tasks.text_classification.settings import Tokenize

SINGLE = {"problem": "single_label", "label_names": ["bad", "good"]}
WORDS = ["Oslo", "is", "far", "tokenization", "unable", "café", "서울", "a", ".", "uncommon", "x-y", "🙂"]
text = st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join)
TOKENIZERS = ["tiny_wordpiece", "tiny_bpe", "tiny_sentencepiece", "typed"]
several = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


def tokenize(**changes: Any) -> Tokenize:
    values = {"max_length": 12, "overflow": "head", "head_tokens": None, "stride": None, "limit": None}
    return Tokenize(**{"engine": "local", "num_proc": 1} | values | changes)


@lru_cache
def loaded(folder: Path) -> Any:
    return encoding.load_tokenizer(folder, tokenize(), lambda: iter([]))


def encoder(folder: Path, target: dict[str, Any] = SINGLE, **changes: Any) -> encoding.Encoder:
    chosen = tokenize(**changes)
    return encoding.Encoder(loaded(folder), target, chosen)


def features(made: encoding.Encoder, **columns: list[Any]) -> list[dict[str, Any]]:
    rows = np.arange(len(next(iter(columns.values()))))
    return made.encode(pa.table(columns), rows).to_pylist()


@pytest.fixture(params=TOKENIZERS)
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.fixture
def library(folder: Path) -> Any:
    """The tokenizer as transformers runs it."""
    return AutoTokenizer.from_pretrained(folder, add_prefix_space=True)


@pytest.fixture(scope="module")
def typed(tiny_wordpiece: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The WordPiece as a BertTokenizer, which gives token types."""
    folder = tmp_path_factory.mktemp("typed")
    BertTokenizer(vocab=AutoTokenizer.from_pretrained(tiny_wordpiece).get_vocab()).save_pretrained(folder)
    shutil.copy(tiny_wordpiece / "config.json", folder)
    return folder


# --- against the library ------------------------------------------------------------------------------------------


@several
@given(texts=st.lists(text, min_size=1, max_size=4), max_length=st.integers(5, 20))
@pytest.mark.parametrize("overflow", ["head", "tail"])
def test_a_text_is_cut_as_the_library_cuts_it(
    folder: Path, library: Any, overflow: str, texts: list[str], max_length: int
) -> None:
    library.truncation_side = "right" if overflow == "head" else "left"
    expected = [library(one, truncation=True, max_length=max_length)["input_ids"] for one in texts]
    made = features(encoder(folder, max_length=max_length, overflow=overflow), text=texts, label=["good"] * len(texts))
    assert [row["input_ids"] for row in made] == expected
    assert [row["example"] for row in made] == list(range(len(texts)))


@several
@given(pairs=st.lists(st.tuples(text, text), min_size=1, max_size=4), max_length=st.integers(7, 24))
@pytest.mark.parametrize("overflow", ["head", "tail"])
def test_a_pair_is_framed_and_truncated_as_the_library_does(
    folder: Path, library: Any, overflow: str, pairs: list[tuple[str, str]], max_length: int
) -> None:
    library.truncation_side = "right" if overflow == "head" else "left"
    first, second = (list(side) for side in zip(*pairs, strict=True))
    made = features(encoder(folder, max_length=max_length, overflow=overflow), text=first, text_pair=second)
    for row, one, two in zip(made, first, second, strict=True):
        # In lists: an empty second text alone would be none to the library.
        expected = library([one], [two], truncation="longest_first", max_length=max_length)
        assert row["input_ids"] == expected["input_ids"][0]
        assert [row.get("token_type_ids")] == expected.get("token_type_ids", [None])


@several
@given(texts=st.lists(text, min_size=1, max_size=4), stride=st.integers(0, 5))
def test_windows_are_those_of_overflowing_tokens(folder: Path, library: Any, texts: list[str], stride: int) -> None:
    made = features(encoder(folder, max_length=9, overflow="windows", stride=stride), text=texts)
    expected = library(texts, truncation=True, max_length=9, stride=stride, return_overflowing_tokens=True)
    assert [row["input_ids"] for row in made] == expected["input_ids"]
    assert [row["example"] for row in made] == expected["overflow_to_sample_mapping"]


@several
@given(texts=st.lists(text, min_size=2, max_size=6), cut=st.integers(1, 5))
@pytest.mark.parametrize(
    "changes", [{}, {"overflow": "windows", "stride": 2}, {"overflow": "head_tail", "head_tokens": 3}]
)
def test_a_partition_of_the_texts_does_not_show(
    tiny_wordpiece: Path, changes: dict[str, Any], texts: list[str], cut: int
) -> None:
    made, table = encoder(tiny_wordpiece, **changes), pa.table({"text": texts, "label": ["good"] * len(texts)})
    rows = np.arange(len(texts)) + 100
    cut = min(cut, len(texts))
    parts = [made.encode(table[:cut], rows[:cut]), made.encode(table[cut:], rows[cut:])]
    assert pa.concat_tables(parts) == made.encode(table, rows)


def test_more_texts_than_one_call_takes_stay_in_order(tiny_wordpiece: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"Oslo {'far ' * (number % 7)}" for number in range(23)]
    whole = features(encoder(tiny_wordpiece), text=texts)
    monkeypatch.setattr(encoding, "TEXTS_A_CALL", 4)
    assert features(encoder(tiny_wordpiece), text=texts) == whole


# --- by hand ------------------------------------------------------------------------------------------------------


def test_head_and_tail_of_a_long_text_are_kept(tiny_wordpiece: Path) -> None:
    made = encoder(tiny_wordpiece, max_length=8, overflow="head_tail", head_tokens=2)
    tokenizer = AutoTokenizer.from_pretrained(tiny_wordpiece)
    long, fits = "a b c d e f g h i", "a b c d e f"
    [(table, counts)] = made.encode_table("train", iter([(np.arange(2), pa.table({"text": [long, fits]}))]))
    words = [tokenizer.convert_ids_to_tokens(ids) for ids in table["input_ids"].to_pylist()]
    assert words == [["[CLS]", *"abfghi", "[SEP]"], ["[CLS]", *"abcdef", "[SEP]"]]
    assert counts == {"examples": 2, "features": 2, "tokens": 16, "examples_truncated": 1, "tokens_truncated": 3}


def test_what_is_cut_of_a_pair_is_counted(typed: Path) -> None:
    made, pair = encoder(typed, max_length=9), pa.table({"text": ["a b c d e f"], "text_pair": ["g h"]})
    [(table, counts)] = made.encode_table("test", iter([(np.array([7]), pair)]))
    assert table["token_type_ids"].to_pylist() == [[0] * 6 + [1] * 3]
    assert counts == {"examples": 1, "features": 1, "tokens": 9, "examples_truncated": 1, "tokens_truncated": 2}


def test_windows_lose_nothing_and_are_counted(tiny_wordpiece: Path) -> None:
    made, table = (
        encoder(tiny_wordpiece, max_length=6, overflow="windows", stride=1),
        pa.table({"text": ["a b c d e", "a"]}),
    )
    [(_, counts)] = made.encode_table("train", iter([(np.arange(2), table)]))
    assert counts == {"examples": 2, "features": 3, "tokens": 6 + 4 + 3, "examples_in_windows": 1}


def test_an_empty_text_still_gives_a_feature(tiny_wordpiece: Path) -> None:
    assert [len(row["input_ids"]) for row in features(encoder(tiny_wordpiece), text=["", "\u200b"])] == [2, 2]


def test_types_are_left_to_models_that_have_two(typed: Path, tiny_bpe: Path, tmp_path: Path) -> None:
    assert "token_type_ids" in encoder(typed).schema.names
    assert "token_type_ids" not in encoder(tiny_bpe).schema.names
    # As klue/roberta-base: BERT's tokenizer, and one type in the model.
    folder = shutil.copytree(typed, tmp_path / "model")
    stage.write_json(folder / "config.json", stage.read_json(folder / "config.json") | {"type_vocab_size": 1})
    assert "token_type_ids" not in encoder(folder).schema.names
    loaded(folder).save_pretrained(tmp_path / "saved")
    assert "token_type_ids" not in AutoTokenizer.from_pretrained(tmp_path / "saved")("a", "b")


# --- labels -------------------------------------------------------------------------------------------------------


def test_a_label_is_its_number_and_unseen_ones_are_ignored(tiny_wordpiece: Path) -> None:
    made = features(encoder(tiny_wordpiece), text=["a", "b", "c"], label=["good", "bad", "odd"])
    assert [row["labels"] for row in made] == [1, 0, IGNORE_INDEX]


def test_several_labels_are_ones_and_every_window_has_them(tiny_wordpiece: Path) -> None:
    target = {"problem": "multi_label", "label_names": ["x", "y", "z"]}
    made = encoder(tiny_wordpiece, target, max_length=5, overflow="windows", stride=0)
    rows = features(made, text=["a b c d", "a"], labels=[["z", "x", "odd"], []])
    assert [row["labels"] for row in rows] == [[1, 0, 1], [1, 0, 1], [0, 0, 0]]


def test_a_score_is_itself(tiny_wordpiece: Path) -> None:
    made = features(encoder(tiny_wordpiece, {"problem": "regression", "label_names": []}), text=["a"], score=[2.5])
    assert made[0]["labels"] == 2.5


@pytest.mark.parametrize(
    ("problem", "names", "column", "kind"),
    [
        ("single_label", ["x", "y"], "label", pa.string()),
        ("multi_label", ["x", "y"], "labels", pa.list_(pa.string())),
        ("regression", [], "score", pa.float64()),
    ],
)
def test_texts_without_a_target_encode_with_or_without_a_column(
    tiny_wordpiece: Path, problem: str, names: list[str], column: str, kind: pa.DataType
) -> None:
    made = encoder(tiny_wordpiece, {"problem": problem, "label_names": names})
    bare = pa.table({"text": ["a b", "c"]})
    null = bare.append_column(column, pa.nulls(2, kind))
    one, other = (made.encode(table, np.arange(2)) for table in (bare, null))
    assert str(one.to_pylist()) == str(other.to_pylist()) and one.schema == made.tables["test"]


@pytest.mark.parametrize(
    ("batches", "expected"),
    [
        ([{"label": ["b", "a"]}, {"label": ["c", "a"]}], {"problem": "single_label", "label_names": ["a", "b", "c"]}),
        ([{"labels": [["b"], []]}, {"labels": [["a", "b"]]}], {"problem": "multi_label", "label_names": ["a", "b"]}),
        (
            [{"score": [1000.0, 1010.0]}, {"score": [1110.0]}],
            {"problem": "regression", "label_names": [], "mean": 1040.0, "std": (7400 / 3) ** 0.5},
        ),
    ],
)
@pytest.mark.parametrize("texts", [["text"], ["text", "text_pair"]])
def test_the_target_comes_from_the_columns_of_train(
    batches: list[Any], expected: dict[str, Any], texts: list[str]
) -> None:
    rows = [len(next(iter(batch.values()))) for batch in batches]
    tables = [pa.table({name: ["a"] * n for name in texts} | batch) for n, batch in zip(rows, batches, strict=True)]
    expected = {key: pytest.approx(value) if key == "std" else value for key, value in expected.items()}
    assert encoding.target(iter(tables), tokenize()) == expected | {"texts": texts}


def test_integer_labels_are_sorted_as_numbers() -> None:
    numbers = [str(number) for number in range(12)]
    single = pa.table({"text": numbers, "label": numbers[::-1]})
    several = pa.table({"text": ["a"], "labels": [numbers[::-1]]})
    for batch in (single, several):
        assert encoding.target(iter([batch]), tokenize())["label_names"] == numbers


def test_a_model_of_pairs_is_asked_for_pairs_and_another_is_not(tiny_wordpiece: Path) -> None:
    one, two = pa.table({"text": ["a"]}), pa.table({"text": ["a"], "text_pair": ["b"]})
    for texts, wrong in ((["text"], two), (["text", "text_pair"], one)):
        made = encoder(tiny_wordpiece, SINGLE | {"texts": texts})
        with pytest.raises(UserError, match=f"the model was trained on {' and '.join(texts)}; expected as much"):
            made.encode(wrong, np.arange(1))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (pa.table({"label": ["a", "a"]}), r"train: 'a' is its only label; expected two or more"),
        (pa.table({"labels": pa.array([[], []], pa.list_(pa.string()))}), "no text has a label; expected at least one"),
        (
            pa.table({"score": [1050.0, 1050.0]}),
            r"train: 1050 is the score of all its texts \(in 32 bits\)",
        ),
        (pa.table({"score": [1e9, 1e9 + 1]}), r"train: 1e\+09 is the score of all its texts"),
    ],
)
def test_nothing_to_learn_is_told(batch: pa.Table, message: str) -> None:
    with pytest.raises(UserError, match=message):
        encoding.target(iter([batch]), tokenize())


# --- settings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"overflow": "head_tail"}, "head_tokens is None with overflow head_tail; expected a number"),
        ({"overflow": "windows"}, "stride is None with overflow windows; expected a number"),
        ({"stride": 3}, "stride is 3 with overflow head; expected null: it is for windows"),
        ({"head_tokens": 3}, "head_tokens is 3 with overflow head; expected null: it is for head_tail"),
        ({"overflow": "windows", "stride": 10}, "stride 10 leaves no room in max_length 12"),
        ({"overflow": "head_tail", "head_tokens": 11}, "head_tokens 11 leaves no room in max_length 12"),
    ],
)
def test_settings_of_overflow_go_together(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tokenize(**changes)


def test_a_length_without_room_for_both_texts_is_refused(tiny_wordpiece: Path) -> None:
    with pytest.raises(
        UserError, match="max_length: 4 with 3 special tokens leaves 1 for the text; expected at least 2"
    ):
        features(encoder(tiny_wordpiece, max_length=4), text=["a"], text_pair=["b"])


def test_a_length_above_the_models_positions_is_refused(tiny_wordpiece: Path) -> None:
    with pytest.raises(UserError, match="67 tokens exceed the 66 positions"):
        encoding.load_tokenizer(tiny_wordpiece, tokenize(max_length=67), lambda: iter([]))
