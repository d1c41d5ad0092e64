"""Collators from Arrow: the tensors of transformers' collators, or of naive lists, however the features are stored."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer, DataCollatorForTokenClassification, DataCollatorWithPadding

from finetrail import tasks
from finetrail.encoding import padding
from finetrail.encoding.masking import mask, masking
from finetrail.labels import IGNORE_INDEX
from finetrail.tasks.masked_lm import encoding as masked_lm
from finetrail.tasks.retrieval import encoding as retrieval

Rows = list[dict[str, Any]]
DRAW = np.random.default_rng(0)
IDS = pa.list_(pa.int32())


def ints(length: int, most: int = 100) -> list[int]:
    return DRAW.integers(1, most, length).tolist()


def table(count: int, schema: list[tuple[str, pa.DataType]], row: Callable[[int], dict[str, Any]]) -> pa.Table:
    rows = [row(int(DRAW.integers(1, 12))) for _ in range(count)]
    return pa.Table.from_pylist(rows, pa.schema(schema))


LAYOUTS = {
    "whole": lambda features: features,
    "chunked": lambda features: pa.concat_tables([features.slice(0, 1), features.slice(1, 4), features.slice(5)]),
    "sliced": lambda features: features.slice(3, 4),
    "a slice of chunks": lambda features: pa.concat_tables([features.slice(0, 5), features.slice(5)]).slice(2, 5),
    "in another order": lambda features: features.take([7, 0, 3, 3, 6]),
    "alone": lambda features: features.slice(4, 1),
}


@pytest.fixture(params=LAYOUTS)
def stored(request: pytest.FixtureRequest) -> Callable[[pa.Table], pa.Table]:
    return LAYOUTS[request.param]


@pytest.fixture(params=["right", "left"])
def tokenizer(request: pytest.FixtureRequest, tiny_wordpiece: Path) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(tiny_wordpiece, padding_side=request.param)
    tokenizer.add_special_tokens({"pad_token": "[SEP]"})  # 0 would be what new arrays hold
    tokenizer._pad_token_type_id = 3
    return tokenizer


def same(found: dict[str, torch.Tensor], expected: Any) -> None:
    assert found.keys() == dict(expected).keys()
    for name, tensor in found.items():
        assert tensor.dtype == expected[name].dtype, name
        assert torch.equal(tensor, expected[name]), name
        assert tensor.is_contiguous()


def collated(task: str, tokenizer: Any, features: pa.Table, settings: Any = None) -> dict[str, torch.Tensor]:
    return dict(tasks.module(task, "modeling").build_collator(tokenizer, settings)(features))


@pytest.mark.parametrize("task", ["token_classification", "text_generation"])
def test_labels_of_tokens_are_padded_as_by_transformers(task: str, tokenizer: Any, stored: Any) -> None:
    schema = [("input_ids", IDS), ("labels", IDS)]
    features = stored(table(8, schema, lambda n: {"input_ids": ints(n), "labels": [IGNORE_INDEX, *ints(n)][:n]}))
    expected = DataCollatorForTokenClassification(tokenizer, label_pad_token_id=IGNORE_INDEX)(features.to_pylist())
    same(collated(task, tokenizer, features), expected)


@pytest.mark.parametrize("types", [True, False])
@pytest.mark.parametrize(
    ("labels", "draw"),
    [
        (pa.int32(), lambda: int(DRAW.integers(9))),
        (pa.list_(pa.float32()), lambda: DRAW.integers(0, 2, 5).astype(float).tolist()),
        (pa.float32(), lambda: float(DRAW.normal())),
        (pa.float64(), lambda: float(DRAW.normal())),
    ],
    ids=["one label", "several", "a number", "a double"],
)
def test_texts_and_their_labels_are_those_of_transformers(
    tokenizer: Any, stored: Any, labels: pa.DataType, draw: Callable[[], Any], types: bool
) -> None:
    schema = [("input_ids", IDS), *[("token_type_ids", IDS)] * types, ("labels", labels)]
    features = stored(table(8, schema, lambda n: {"input_ids": ints(n), "token_type_ids": ints(n), "labels": draw()}))
    same(collated("text_classification", tokenizer, features), DataCollatorWithPadding(tokenizer)(features.to_pylist()))


def test_several_labels_without_positive_ones_or_attention_mask(tokenizer: Any) -> None:
    tokenizer.model_input_names = ["input_ids"]
    features = pa.table({"input_ids": [[5], [5, 6]], "labels": pa.array([[0.0], [0.0]], pa.list_(pa.float32()))})
    found = collated("text_classification", tokenizer, features)
    same(found, DataCollatorWithPadding(tokenizer)(features.to_pylist()))
    assert "attention_mask" not in found


@pytest.mark.parametrize("types", [True, False])
def test_questions_and_their_places_are_those_of_transformers(tokenizer: Any, stored: Any, types: bool) -> None:
    places = [("start_positions", pa.int32()), ("end_positions", pa.int32())]

    def row(n: int) -> dict[str, Any]:
        return {"input_ids": ints(n), "token_type_ids": ints(n), "start_positions": 0, "end_positions": n - 1}

    features = stored(table(8, [("input_ids", IDS), *[("token_type_ids", IDS)] * types, *places], row))
    same(collated("question_answering", tokenizer, features), DataCollatorWithPadding(tokenizer)(features.to_pylist()))


def padded(rows: list[Any], fill: int) -> torch.Tensor:
    return pad_sequence([torch.as_tensor(row) for row in rows], batch_first=True, padding_value=fill)


class Masks:
    mask_probability, whole_word = 0.3, True


@pytest.mark.parametrize("frozen", ["none", "some", "all"])
def test_masks_are_those_of_each_block_alone(tiny_wordpiece: Path, stored: Any, frozen: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_wordpiece)
    how = masking(tokenizer, Masks)

    def row(n: int) -> dict[str, Any]:
        keeps = frozen == "all" or (frozen == "some" and DRAW.random() < 0.5)
        pieces = [1, *DRAW.integers(0, 3, n - 1).tolist()]
        labels = [IGNORE_INDEX, *ints(n)][:n] if keeps else None
        return {"input_ids": ints(n), "pieces": pieces, "labels": labels, "row_seed": int(DRAW.integers(2**62))}

    columns = [masked_lm.FEATURES.field(name) for name in ("input_ids", "pieces", "labels")]
    features = stored(table(8, [*columns, ("row_seed", pa.int64())], row))
    ids, labels = [], []
    for feature in features.to_pylist():
        pair = feature["input_ids"], feature["labels"]
        if feature["labels"] is None:
            generator = np.random.default_rng(feature["row_seed"])
            pair = mask(np.array(feature["input_ids"]), np.array(feature["pieces"]), how, generator)
        ids.append(pair[0])
        labels.append(pair[1])
    expected = {
        "input_ids": padded(ids, tokenizer.pad_token_id),
        "attention_mask": padded([[1] * len(row) for row in ids], 0),
        "labels": padded(labels, IGNORE_INDEX),
    }
    same(collated("masked_lm", tokenizer, features, Masks), expected)
    if frozen == "all":  # features of validation have no draw
        same(collated("masked_lm", tokenizer, features.drop_columns("row_seed"), Masks), expected)


def test_missing_documents_are_padded_with_the_relevant_one(tiny_wordpiece: Path, stored: Any) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_wordpiece)
    tokenizer.add_special_tokens({"pad_token": "[SEP]"})

    def row(n: int) -> dict[str, Any]:
        texts = [ints(int(DRAW.integers(1, 9))) for _ in range(1 + n % 4)]
        keys = {"documents": [2**40 + key for key in ints(len(texts))], "relevant": ints(1 + n % 3)}
        return {"input_ids": ints(n), "document_input_ids": texts, **keys}

    columns = ("input_ids", "document_input_ids", "documents", "relevant")
    features = stored(table(8, [retrieval.PAIRS.field(name) for name in columns], row))

    def repeated(name: str) -> list[Any]:
        rows = features[name].to_pylist()
        return [row + row[:1] * (max(map(len, rows)) - len(row)) for row in rows]

    ids, texts = features["input_ids"].to_pylist(), sum(repeated("document_input_ids"), [])
    shape = (len(ids), len(texts) // len(ids), -1)
    expected = {
        "input_ids": padded(ids, tokenizer.pad_token_id),
        "attention_mask": padded([[1] * len(row) for row in ids], 0),
        "document_input_ids": padded(texts, tokenizer.pad_token_id).view(shape),
        "document_attention_mask": padded([[1] * len(row) for row in texts], 0).view(shape),
        "documents": torch.tensor(repeated("documents")),
        "relevant": torch.tensor(repeated("relevant")),
        "labels": torch.arange(len(ids)),
    }
    same(collated("retrieval", tokenizer, features), expected)


@given(st.lists(st.one_of(st.none(), st.lists(st.integers(-5, 5), max_size=6)), max_size=20), st.booleans())
def test_runs_are_filled_up_on_either_side(rows: list[list[int] | None], left: bool) -> None:
    values, lengths = padding.runs(pa.array(rows, IDS))
    found = padding.filled(values, lengths, 7, left)
    known = [row or [] for row in rows]
    longest = max(map(len, known), default=0)
    fills = [[7] * (longest - len(row)) for row in known]
    expected = [fill + row if left else row + fill for row, fill in zip(known, fills, strict=True)]
    assert found.tolist() == expected and found.dtype == np.int64


def test_lists_of_lists_are_not_padded_silently() -> None:
    with pytest.raises((pa.ArrowInvalid, TypeError, ValueError)):
        padding.runs(pa.array([[[1, 2], [3]], [[4]]]))
