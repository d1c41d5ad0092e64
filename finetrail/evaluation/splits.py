"""Reads the examples of a table of the corpus together with their features."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from finetrail import layout


class Encoded(NamedTuple):
    """Examples and their features, which are in the order of the examples."""

    examples: pa.Table
    features: pa.Table


def load(table: str) -> Encoded:
    """Return the examples of data/corpus that have features (tokenize.limit may drop some), and these features."""
    with pa.memory_map(str(layout.features_file(table))) as file:
        features = pa.ipc.open_stream(file).read_all()
    examples = pq.read_table(layout.table_file(layout.CORPUS, table))
    encoded = np.zeros(len(examples), dtype=bool)
    encoded[features["example"].to_numpy()] = True
    if encoded.all():
        return Encoded(examples, features)
    # Not take(), which joins the chunks of a column: one chunk cannot hold more than 2 GiB of text.
    return Encoded(examples.filter(pa.array(encoded)), features)


def parts(split: Encoded) -> dict[str, Encoded]:
    """Return the parts of a split of a mixture, each as it is alone; {} if the corpus is not a mixture."""
    if layout.PART not in split.examples.column_names:
        return {}
    names = split.examples[layout.PART].unique().to_pylist()
    return {name: Encoded(*(of_part(table, name) for table in split)) for name in names}


def of_part(table: pa.Table, name: str) -> pa.Table:
    """Return the rows of one part of a mixture."""
    return table.filter(pc.equal(table[layout.PART], name))


def slice_columns(examples: pa.Table) -> dict[str, pa.ChunkedArray]:
    """Return the columns of corpus.slices, which predictions copy."""
    return {name: examples[name] for name in examples.column_names if name.startswith(layout.SLICE)}


def predict(split: Encoded, of_one: Callable[[Encoded], pa.Table]) -> pa.Table:
    """Predict a split; a mixture part by part, so that each part is predicted as it is alone, with a column `part`."""
    found = {name: of_one(part) for name, part in parts(split).items()}
    named = [table.append_column(layout.PART, [[name] * len(table)]) for name, table in found.items()]
    return pa.concat_tables(named) if named else of_one(split)


def load_shared() -> dict[str, Encoded]:
    """Return the tables that all splits share, such as the documents that queries are searched in."""
    names = sorted(path.stem for path in layout.TOKENIZED.glob("*.arrow"))
    return {name: load(name) for name in names if name not in layout.SPLITS}
