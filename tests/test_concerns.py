"""What is known of the data, in words: each count that should be zero is one."""

from typing import Any

from finetrail.corpus.concerns import Concern, counted, leaked, unseen


def test_counts_that_are_zero_or_missing_are_no_concern() -> None:
    found: dict[str, Any] = {"train": {"empty": 0}, "test": {"empty": 1234, "other": 5}}
    assert [*map(str, counted(found, {"empty": "blank texts", "missing": "others"}))] == ["test: blank texts: 1,234"]


def test_what_splits_share_and_what_train_lacks() -> None:
    assert leaked({"train/validation": 0, "train/test": 2}, "texts that also occur in") == [
        Concern("test", "texts that also occur in train", 2)
    ]
    (concern,) = unseen({"validation": {}, "test": {"x ": 1, "y": 2000}})
    assert str(concern) == "test: labels that train lacks and no model will predict: 'x ' (1), y (2,000)"
