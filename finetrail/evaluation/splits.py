"""Reads the examples of a split together with their features."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from finetrail import layout


def load(split: str) -> tuple[pa.Table, pa.Table]:
    """Return the examples of data/corpus that have features (tokenize.limit may leave some out), and these features."""
    with pa.memory_map(str(layout.features_file(split))) as file:
        features = pa.ipc.open_stream(file).read_all()
    examples = pq.read_table(layout.split_file(layout.CORPUS, split))
    return examples.take(np.unique(features["example"].to_numpy())), features
