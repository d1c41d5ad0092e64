"""Measures the latency of a model on single inputs, with torch or ONNX."""

from time import perf_counter

import numpy as np
import pyarrow as pa

from finetrail.evaluation import inference
from finetrail.evaluation.inference import Forward

INPUTS = 100  # that are measured, evenly spaced in the split
WARM_UP = 5  # runs before: libraries plan and allocate in the first runs
SECONDS = 20.0  # per form; then it ends with fewer inputs

Inputs = list[dict[str, np.ndarray]]


def inputs(features: pa.Table, pad_token_id: int) -> Inputs:
    """Return features from the whole split, each a batch of its own as [1, length], the longest first."""
    rows = np.unique(np.linspace(0, len(features) - 1, INPUTS).round().astype(int))
    return [batch for _, batch in inference.batches(features.take(rows), pad_token_id, 1)]


def tokens(given: Inputs) -> int:
    """Return the median length."""
    return int(np.median([batch["input_ids"].shape[1] for batch in given]))


def measure(forward: Forward, given: Inputs) -> dict[str, float]:
    """Return the median and the 90th percentile of the milliseconds that one input takes."""
    for batch in given[:WARM_UP]:
        forward(batch)
    # In random order, so that the first inputs are representative if the time runs out.
    order = np.random.default_rng(0).permutation(len(given))
    times: list[float] = []
    began = perf_counter()
    for place in order:
        start = perf_counter()
        forward(given[place])
        times.append(1000 * (perf_counter() - start))
        if start - began > SECONDS:
            break
    return {"ms": round(float(np.median(times)), 3), "ms_90": round(float(np.quantile(times, 0.9)), 3)}
