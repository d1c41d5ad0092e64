"""Turns data/corpus into features: data/tokenized."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from finetrail import layout, params, stage, tasks
from finetrail.encoding.engines import Batch, Features, OrderedMap, ordered_map
from finetrail.errors import UserError
from finetrail.schema import Tokenize

EXAMPLES_A_BATCH = 4096  # bounds memory, whatever the size of the corpus


def main() -> None:
    """Encode every table with the base model's tokenizer, and keep that as it was used."""
    declared = params.load("tokenize")
    task, settings = tasks.module(declared.task, "encoding"), declared.tokenize
    tokenizer = task.load_tokenizer(layout.BASE_TOKENIZER, settings, train)
    target = task.target(train(), settings)
    encoder = task.Encoder(tokenizer, target, settings)
    engine = ordered_map(settings.engine, settings.num_proc)
    with stage.outputs(layout.TOKENIZED) as [folder], engine as mapped:
        folder.mkdir()
        counts = {}
        for table, schema in encoder.tables.items():
            parts = part_rows(layout.table_file(layout.CORPUS, table))
            features = encoded(encoder, table, parts, settings.limit, mapped)
            columns = schema.append(pa.field(layout.PART, pa.string())) if parts else schema
            counts[table] = write(features, columns, folder / layout.features_file(table).name)
            numbers = (f"{count:,} {name.replace('_', ' ')}" for name, count in counts[table].items())
            stage.log(f"tokenize: {table}: {', '.join(numbers)}")
            if not counts[table].get("features", 1):
                raise UserError(f"tokenize: {table}: {encoder.nothing(counts[table])}")
        stage.write_json(folder / layout.TARGET.name, target)
        # Without the engine: the same features, so that nothing behind this stage runs again.
        used = settings.model_dump(exclude=set(Tokenize.model_fields))
        stage.write_json(folder / layout.TOKENIZED_COUNTS.name, {"settings": used, "splits": counts})
        tokenizer.save_pretrained(folder / layout.USED_TOKENIZER.name)


def train() -> Iterator[pa.Table]:
    """Read the whole train split, in batches."""
    return (examples for _, examples in read(layout.table_file(layout.CORPUS, "train"), None))


def part_rows(path: Path) -> dict[str, range]:
    """Return the rows of each part of a mixture, which stand together; none where the corpus is no mixture."""
    if layout.PART not in pq.read_schema(path).names:
        return {}
    found = pq.read_table(path, columns=[layout.PART])[layout.PART].value_counts()
    names, sizes = (found.field(field).to_pylist() for field in ("values", "counts"))
    ends = list(accumulate(sizes))
    return {name: range(end - size, end) for name, size, end in zip(names, sizes, ends, strict=True)}


def encoded(
    encoder: Any, table: str, parts: dict[str, range], limit: int | None, mapped: OrderedMap
) -> Iterator[Features]:
    """Yield features and counts of a table; of a mixture part by part, so that each is encoded as it is alone."""
    path = layout.table_file(layout.CORPUS, table).absolute()
    limit = limit if table in layout.SPLITS else None
    if not parts:
        yield from encoder.encode_table(table, Batches(path, limit, EXAMPLES_A_BATCH), mapped)
    for part, rows in parts.items():
        counts: Counter[str] = Counter()
        batches = Batches(path, limit, EXAMPLES_A_BATCH, rows)
        for features, of_batch in encoder.encode_table(table, batches, mapped):
            counts.update(of_batch)
            yield features.append_column(layout.PART, pa.array([part] * len(features), pa.string())), of_batch
        if not counts["examples"]:
            raise UserError(f"tokenize.limit: {limit} leaves no example of {part} in {table}; expected more, or null")
        if not counts.get("features", 1):
            raise UserError(f"tokenize: {table} of {part}: {encoder.nothing(counts)}")


def write(features: Iterable[Features], schema: pa.Schema, path: Path) -> dict[str, int]:
    """Write the features of one table as an Arrow stream, batch by batch, and return the sum of their counts."""
    counts: Counter[str] = Counter()
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for batch, of_batch in tqdm(features, desc=path.stem, unit="batch", disable=None, leave=False):
            writer.write_table(batch)
            counts.update(of_batch)
    return dict(counts)


@dataclass(frozen=True)
class Batches:
    """What read() yields; the path is absolute, because a Ray worker that reads them has another working folder."""

    path: Path
    limit: int | None
    size: int
    within: range | None = None

    def __iter__(self) -> Iterator[Batch]:
        return read(self.path, self.limit, self.size, self.within)


def read(path: Path, limit: int | None, size: int = EXAMPLES_A_BATCH, within: range | None = None) -> Iterator[Batch]:
    """Yield (row numbers, examples) of a table in batches: all of it, or `limit` rows spread evenly over it.

    Evenly, and not the first: corpora are often sorted by label or by document. Of these, those `within` a range.
    """
    file = pq.ParquetFile(path)
    total = file.metadata.num_rows
    kept = np.arange(total) if limit is None or limit >= total else np.arange(limit) * total // limit
    if within is not None:
        kept = kept[np.searchsorted(kept, within.start) : np.searchsorted(kept, within.stop)]
    start = 0
    for batch in file.iter_batches(size):
        rows = kept[np.searchsorted(kept, start) : np.searchsorted(kept, start + len(batch))]
        if len(rows):
            yield rows, pa.Table.from_batches([batch]).take(rows - start)
        start += len(batch)


if __name__ == "__main__":
    stage.run(main)
