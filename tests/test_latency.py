"""What is timed, and that the times are those of the model."""

import time

import numpy as np
import pyarrow as pa
import pytest

from finetrail.exporting import latency


def test_inputs_are_single_ones_from_the_whole_split() -> None:
    lengths = [1 + place % 7 for place in range(1000)]
    features = pa.table({"input_ids": [list(range(length)) for length in lengths]})
    given = latency.inputs(features, 0)
    assert len(given) == latency.INPUTS
    assert all(
        batch["input_ids"].shape == batch["attention_mask"].shape == (1, n)
        for batch in given
        for n in [batch["input_ids"].size]
    )
    assert {batch["input_ids"].size for batch in given} == set(lengths) and latency.tokens(given) == 4
    assert len(latency.inputs(features.slice(0, 3), 0)) == 3


def test_the_median_is_of_the_inputs_and_not_of_the_first_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    given = [{"input_ids": np.full((1, 1), place)} for place in range(20)]
    calls: list[int] = []

    def forward(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        calls.append(int(inputs["input_ids"][0, 0]))
        time.sleep(0.02 if len(calls) <= latency.WARM_UP else 0.012 if calls[-1] >= 15 else 0.002)
        return {}

    found = latency.measure(forward, given)
    assert sorted(calls[latency.WARM_UP :]) == list(range(20))
    assert 2 <= found["ms"] < 10 <= found["ms_90"]
    calls.clear()
    monkeypatch.setattr(latency, "SECONDS", 0.0)
    latency.measure(forward, given)
    assert len(calls) == latency.WARM_UP + 1
