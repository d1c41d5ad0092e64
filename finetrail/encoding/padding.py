"""Pads list columns of features to arrays."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def model_inputs(features: pa.Table, tokenizer: Any) -> dict[str, np.ndarray]:
    """Return input_ids, and attention_mask and token_type_ids if the model takes them, padded as the tokenizer does.

    int64 [features, longest].
    """
    left = tokenizer.padding_side == "left"
    ids, lengths = runs(features["input_ids"])
    arrays = {"input_ids": filled(ids, lengths, tokenizer.pad_token_id, left)}
    if "token_type_ids" in features.column_names:
        types, _ = runs(features["token_type_ids"])
        arrays["token_type_ids"] = filled(types, lengths, tokenizer.pad_token_type_id, left)
    if "attention_mask" in tokenizer.model_input_names:
        arrays["attention_mask"] = filled(np.ones_like(ids), lengths, 0, left)
    return arrays


def runs(column: pa.ChunkedArray | pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return the flat values of a list column, and the length of each row; that of a null is 0.

    Integers are int64, floats float32, as in torch tensors of Python numbers. Lists of lists are an error.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return numbers(array.flatten()), numbers(pc.fill_null(pc.list_value_length(array), 0))


def numbers(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Return a column of numbers as a new array: integers as int64, floats as float32."""
    values = column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(zero_copy_only=False)
    return values.astype(np.int64 if pa.types.is_integer(column.type) else np.float32)


def filled(values: np.ndarray, lengths: np.ndarray, fill: int, left: bool = False) -> np.ndarray:
    """Return runs of these lengths as the rows of an array, padded on the right, or on the left."""
    longest = lengths.max(initial=0)
    positions = np.arange(longest)
    taken = positions >= longest - lengths[:, None] if left else positions < lengths[:, None]
    array = np.full(taken.shape, fill, dtype=values.dtype)
    array[taken] = values
    return array
