"""Predictions compared one by one: what differs is named, and what is a tie between two classes is few and excused."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetrail.exporting.parity import Compared, compare, continued


def table(predictions: list[Any], confidences: list[Any] | None = None) -> pa.Table:
    """Return predictions of the examples a, b, c, ..., or e0, e1, ... where they are many."""
    count = len(predictions)
    ids = list("abcdef"[:count]) if count <= 6 else [f"e{row}" for row in range(count)]
    columns = {"id": ids, "predictions": predictions}
    return pa.table(columns if confidences is None else columns | {"confidences": confidences})


WORDS = st.lists(st.lists(st.text(max_size=2), max_size=4), min_size=1, max_size=6)
NUMBERS = st.lists(st.floats(allow_nan=False), min_size=1, max_size=6)


@given(WORDS | NUMBERS | st.lists(st.text(max_size=2), min_size=1, max_size=6))
def test_a_table_equals_itself_and_all_predictions_are_counted(predictions: list[Any]) -> None:
    count = sum(len(value) if isinstance(value, list) else 1 for value in predictions)
    assert compare(table(predictions), table(predictions)) == Compared(count, [], 0)


def test_the_example_of_every_difference_is_named_in_order() -> None:
    words, others = table([["O", "B"], [], ["O"]]), table([["B", "O"], [], ["B"]])
    assert compare(words, others) == (3, ["a", "a", "c"], 0)
    assert compare(table(["x", "y", "z"]), table(["x", "q", "z"])) == (3, ["b"], 0)
    assert compare(table([1, 2, None]), table([1, 3, 4])) == (3, ["b", "c"], 0)


def test_lists_of_other_lengths_differ_in_what_the_other_lacks() -> None:
    short, long = table([["x"], ["y"]], [[0.5], [0.5]]), table([["x", "x", "x"], ["y"]], [[0.5] * 3, [0.5]])
    assert compare(short, long) == (4, ["a", "a"], 0)
    assert compare(long, short) == (4, ["a", "a"], 0)


@pytest.mark.parametrize(
    ("one", "other", "is_equal"),
    [
        (0.5, 0.50005, True),
        (0.5, 0.5002, False),
        (0.0, 5e-5, True),
        (0.0, 2e-4, False),
        (12345.0, 12346.0, True),
        (12345.0, 12347.0, False),
        (-1.0, 1.0, False),
        (float("inf"), float("inf"), True),
        (float("nan"), float("nan"), False),
    ],
)
def test_numbers_are_equal_within_one_in_ten_thousand(one: float, other: float, is_equal: bool) -> None:
    assert compare(table([one]), table([other])) == (1, [] if is_equal else ["a"], 0)
    assert compare(table([[7.0, one]]), table([[7.0, other]])) == (2, [] if is_equal else ["a"], 0)


def test_integers_are_classes_and_equal_only_exactly() -> None:
    assert compare(table([100_000]), table([100_001])) == (1, ["a"], 0)


@pytest.mark.parametrize(
    ("sure", "other_sure", "is_excused"),
    [
        (0.4, 0.4, True),
        (0.4, 0.40005, True),
        (0.4, 0.4002, False),
        (0.5, 0.5, True),
        (0.51, 0.51, False),
        (1.0, 1.0, False),
        (None, 0.4, False),
        (None, None, False),
    ],
)
@pytest.mark.parametrize("as_lists", [False, True])
def test_one_that_differs_with_the_same_confidence_is_a_near_tie(
    sure: float | None, other_sure: float | None, is_excused: bool, as_lists: bool
) -> None:
    def value(prediction: str, confidence: float | None) -> pa.Table:
        floats = pa.array([confidence, 0.9], pa.float64())
        if not as_lists:
            return table([prediction, "z"], floats)
        return table([[prediction], ["z"]], pa.ListArray.from_arrays([0, 1, 2], floats))

    expected = (2, [], 1) if is_excused else (2, ["a"], 0)
    assert compare(value("x", sure), value("y", other_sure)) == expected


def test_without_confidences_nothing_is_excused() -> None:
    assert compare(table(["x"]), table(["y"])) == (1, ["a"], 0)
    assert compare(table(["x"], [0.4]), table(["y"])) == (1, ["a"], 0)


@pytest.mark.parametrize(("total", "most"), [(10, 1), (999, 1), (1000, 2), (5000, 6)])
def test_near_ties_are_excused_up_to_one_in_a_thousand(total: int, most: int) -> None:
    def changed(count: int) -> pa.Table:
        return table(["y"] * count + ["x"] * (total - count), [0.4] * total)

    assert compare(changed(0), changed(most)) == (total, [], most)
    too_many = [f"e{row}" for row in range(most + 1)]
    assert compare(changed(0), changed(most + 1)) == (total, too_many, 0)


def test_scores_of_a_ranking_tie_wherever_they_are() -> None:
    def ranked(ids: list[str]) -> pa.Table:
        return pa.table({"id": ["a"], "predictions": [ids], "scores": [[0.98, 0.98, 0.4]]})

    assert compare(ranked(["x", "y", "z"]), ranked(["x", "y", "q"])) == (3, [], 1)
    assert compare(ranked(["x", "y", "z"]), ranked(["y", "y", "z"])) == (3, [], 1)


@pytest.mark.parametrize(
    ("of_y", "other_of_y", "found"),
    [
        (0.70003, 0.69998, (4, [], 1)),  # above the threshold by one, below by the other
        (0.71, 0.69, (4, ["a"], 0)),
        (0.71, 0.7, (4, [], 0)),
    ],
)
def test_each_of_several_labels_ties_at_the_threshold(of_y: float, other_of_y: float, found: Any) -> None:
    def chosen(probability: float) -> pa.Table:
        rows = [{"x": 0.9, "y": probability}, {"x": 0.1, "y": 0.2}]
        labels = [[label for label, value in row.items() if value >= 0.7] for row in rows]
        sure = [[value for value in row.values() if value >= 0.7] for row in rows]
        return table(labels, sure).append_column("probabilities", pa.array(rows))

    assert compare(chosen(of_y), chosen(other_of_y)) == found
    assert compare(chosen(other_of_y), chosen(of_y)) == found


def test_examples_are_named_in_order_whether_they_tie_or_not() -> None:
    expected = table(["x"] * 6, [0.4, 0.4, 0.4, 0.9, 0.4, 0.4])
    found = table(["y"] * 6, [0.4, 0.9, 0.4, 0.9, 0.4, 0.4])
    assert compare(expected, found) == (6, [*"abcdef"], 0)


def test_a_difference_stays_beside_near_ties() -> None:
    expected = table(["x", "x", "x"], [0.4, 0.4, 0.4])
    assert compare(expected, table(["x", "y", "y"], [0.4, 0.4, 0.9])) == (3, ["c"], 1)


def test_tables_of_other_examples_are_a_mistake_of_ours() -> None:
    words = table(["x", "y", "z"])
    for other in (words.slice(1), words.take([0, 2, 1])):
        with pytest.raises(ValueError, match="different examples; expected the same ids in the same order"):
            compare(words, other)


def counting(size: int, changed: dict[int, np.ndarray] | None = None) -> Any:
    """Return a decoder that predicts the token after the last one, and counts the tokens that it has read."""

    def read(tokens: list[int], kept: Any) -> tuple[np.ndarray, Any]:
        seen = (kept or 0) + len(tokens)
        logits = np.eye(size)[(tokens[-1] + 1) % size]
        return (changed or {}).get(seen, logits), seen

    return read


def test_continuations_are_compared_token_by_token() -> None:
    prompts = {"a": [1, 2], "b": [4]}
    assert continued(counting(9), counting(9), prompts, 3) == (6, [], 0)
    # One token differs: the following ones continue from the expected token, so that the difference counts once.
    assert continued(counting(9), counting(9, {3: np.eye(9)[1]}), prompts, 3) == (6, ["a", "b"], 0)
    assert continued(counting(9), counting(9, {4: np.eye(9)[1]}), prompts, 3) == (6, ["a"], 0)


@pytest.mark.parametrize(("surer", "found"), [(5e-5, (2, [], 1)), (5e-4, (2, ["a"], 0))])
def test_a_token_with_the_same_logit_is_a_near_tie(surer: float, found: Any) -> None:
    close = np.eye(9)[4] + np.eye(9)[8] * (1 + surer)
    # The expected decoder predicts 8 after 3 and continues with 0; the other one predicts 4.
    assert continued(counting(9, {3: close}), counting(9), {"a": [1, 2, 3]}, 2) == found
