"""The sentence by which `make run` explains that scores are not those of Git."""

import copy
from typing import Any

import pytest

from finetrail.reporting.committed import difference

COMMITTED: dict[str, Any] = {
    "task": "token_classification",
    "recipe": "wnut16",
    "seed": 42,
    "model": {"sha256": "a"},
    "corpus": {"sha256": "b", "examples": {"train": 3}},
    "tokenize": {"max_length": 128},
    "train": {"lr": 3e-4, "precision": "bf16", "best_value": 0.4, "updates": 540},
    "machine": {"numerics": "fast", "cpu": "one", "instructions": "avx512_bf16", "threads": 2, "torch": "2.13.0"},
    "headline": "f1",
    "test": {"f1": 0.473, "f1_low": 0.403, "f1_high": 0.537},
}


def changed(**changes: Any) -> dict[str, Any]:
    """Return COMMITTED with other values: key of a part -> value, or part__key=value."""
    now = copy.deepcopy(COMMITTED)
    for name, value in changes.items():
        part, _, key = name.partition("__")
        if key:
            now[part] = now.get(part, {}) | {key: value}
        else:
            now[part] = value
    return now


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "the same scores, in every digit"),
        ({"schema_version": 8}, "the same scores, in every digit"),
        (
            {"test__f1": 0.504, "machine__instructions": "amx_bf16"},
            "f1 differs from Git's 0.473 by +0.031, inside its interval: "
            "other CPU instructions (avx512_bf16 there, amx_bf16 here)",
        ),
        (
            {"test__f1": 0.3, "machine__threads": 4, "train__lr": 1e-4},
            "f1 differs from Git's 0.473 by -0.173, outside its interval: "
            "other train.lr (0.0003 there, 0.0001 here), other threads (2 there, 4 here)",
        ),
        (
            {"test__f1": 0.5, "train__best_value": 0.5, "train__updates": 90},
            "f1 differs from Git's 0.473 by +0.027, inside its interval: "
            "nothing that is recorded differs: code, or another library",
        ),
        (
            {"test__f1_low": 0.1, "machine_of_evaluation": COMMITTED["machine"] | {"device_name": "H200"}},
            "f1 is the same (0.473), other values differ: "
            "other numerics of the evaluation (not recorded there, fast here), "
            "other CPU of the evaluation (not recorded there, one here), "
            "other CPU instructions of the evaluation (not recorded there, avx512_bf16 here), "
            "and 3 more (dvc metrics diff --targets metrics/record.json)",
        ),
        ({"recipe": "mine"}, None),
        ({"headline": "accuracy"}, None),
        ({"test": {}}, None),
    ],
)
def test_a_difference_is_told_with_its_causes(changes: dict[str, Any], told: str | None) -> None:
    assert difference(COMMITTED, changed(**changes)) == told


def test_a_record_of_before_machines_were_recorded_is_compared() -> None:
    committed = {key: value for key, value in COMMITTED.items() if key != "machine"}
    told = difference(committed, changed(test__f1=0.48))
    assert told is not None and "other numerics (not recorded there, fast here)" in told
