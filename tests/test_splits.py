"""Splits: every record in exactly one, sizes as asked, and the same ones each time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetrail.corpus.readers import Record
from finetrail.corpus.splits import assemble, carve
from finetrail.errors import UserError
from finetrail.schema import Splits

# What seed 42 draws of 10 rows: other numbers mean other splits for everybody's recipes.
VALIDATION_42 = [4, 8]
TEST_42 = [1, 3, 9]
TRAIN_42 = [0, 2, 5, 6, 7]


def records(n, name="a"):
    return [Record(f"{name}{number}", f"{name}:{number}", {}) for number in range(n)]


def assembled(splits, files):
    """Return {split: ids}, from {pattern: records}."""
    found = {"train": [], "validation": [], "test": []}
    for split, record in assemble(splits, lambda pattern: iter(files[pattern])):
        found[split].append(record.id)
    return found


@given(st.integers(20, 3000), st.floats(0.05, 0.45), st.floats(0.05, 0.45), st.integers(0, 2**70))
def test_every_row_is_in_one_split_and_sizes_are_exact(n, validation, test, seed):
    parts = carve(n, {"validation": validation, "test": test}, seed)
    assert len(parts["validation"]) == round(n * validation)
    assert len(parts["test"]) == round(n * test)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(n))
    assert all((np.diff(rows) > 0).all() for rows in parts.values())


def test_the_draw_of_a_seed_never_changes():
    first = {split: rows.tolist() for split, rows in carve(10, {"validation": 0.2, "test": 0.3}, 42).items()}
    assert first == {"validation": VALIDATION_42, "test": TEST_42, "train": TRAIN_42}
    assert carve(1000, {"test": 0.5}, 1)["test"].tolist() != carve(1000, {"test": 0.5}, 2)["test"].tolist()


def test_the_draw_favours_no_part_of_the_file():
    drawn = np.concatenate([carve(100, {"test": 0.2}, seed)["test"] for seed in range(500)])
    # 500 * 20 draws over 4 quarters: 2500 each, standard deviation below 40.
    assert np.abs(np.histogram(drawn, bins=4, range=(0, 100))[0] - 2500).max() < 200


def test_splits_are_carved_in_the_order_of_the_file():
    found = assembled(Splits(train="all", validation=0.2, test=0.3, seed=42), {"all": records(10)})
    assert found["validation"] == [f"a{row}" for row in VALIDATION_42]
    assert found["test"] == [f"a{row}" for row in TEST_42]
    assert found["train"] == [f"a{row}" for row in TRAIN_42]


def test_given_splits_are_taken_as_they_are():
    files = {"tr": records(3), "va": records(1, "b"), "te": records(2, "c")}
    found = assembled(Splits(train="tr", validation="va", test="te", seed=0), files)
    assert found == {"train": ["a0", "a1", "a2"], "validation": ["b0"], "test": ["c0", "c1"]}


def test_one_split_can_be_given_and_another_carved():
    files = {"tr": records(10), "te": records(2, "c")}
    found = assembled(Splits(train="tr", validation=0.3, test="te", seed=0), files)
    assert [len(ids) for ids in found.values()] == [7, 3, 2]
    assert sorted(found["train"] + found["validation"]) == [f"a{row}" for row in range(10)]
    assert found["test"] == ["c0", "c1"]


@pytest.mark.parametrize(
    ("splits", "counts", "message"),
    [
        (
            {"validation": "va", "test": "te"},
            {"tr": 1, "va": 0, "te": 1},
            "splits.validation: there is no example in 'va'",
        ),
        ({"validation": "va", "test": "te"}, {"tr": 0, "va": 1, "te": 1}, "splits.train: there is no example in 'tr'"),
        ({"validation": 0.1, "test": 0.5}, {"tr": 4}, "splits.validation: no example is left for it of the 4 in train"),
        ({"validation": 0.5, "test": 0.4}, {"tr": 0}, "splits.validation: no example is left for it of the 0 in train"),
        ({"validation": 0.48, "test": 0.48}, {"tr": 4}, "splits.train: no example is left for it of the 4 in train"),
    ],
)
def test_an_empty_split_is_refused(splits, counts, message):
    files = {pattern: records(n) for pattern, n in counts.items()}
    with pytest.raises(UserError, match=f"^{message}"):
        assembled(Splits(train="tr", seed=0, **splits), files)
