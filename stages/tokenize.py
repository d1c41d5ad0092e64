"""Encodes data/corpus into features: data/tokenized."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from finetrail import layout, params, stage, tasks
from finetrail.encoding.engines import Batch, Features, OrderedMap, ordered_map
from finetrail.errors import UserError
from finetrail.progress import Bar, working

if TYPE_CHECKING:
    from finetrail.tasks.contract import Encoding, TableEncoder

# Bounds of memory, for any size of the corpus and of its texts.
EXAMPLES_A_BATCH = 4096
BYTES_A_BATCH = 1 << 26


def main() -> None:
    """Encode every table with the base model's tokenizer, and save the tokenizer as it was used."""
    declared = params.load("tokenize")
    task, settings = tasks.module(declared.task, "encoding"), declared.tokenize
    with working("look through train"):
        tokenizer = task.load_tokenizer(layout.BASE_TOKENIZER, settings, train)
        target = task.target(train(), settings)
        encoder = task.Encoder(tokenizer, target, settings)
        if encoder.survey is not None:
            encoder.survey(lambda table: pq.read_table(layout.table_file(layout.CORPUS, table)))
    engine = ordered_map(settings.engine, settings.num_proc)
    with stage.outputs(layout.TOKENIZED) as [folder], engine as mapped:
        folder.mkdir()
        counts = {}
        for table, schema in encoder.tables.items():
            path = layout.table_file(layout.CORPUS, table).absolute()
            rows = kept_rows(table, settings.limit, task)
            parts = part_rows(path, rows)
            features = encoded(encoder, table, Batches(path, rows, batch_size(path)), parts, mapped)
            columns = schema.append(pa.field(layout.PART, pa.string())) if parts else schema
            examples = row_count(path) if rows is None else len(rows)
            counts[table] = write(features, columns, folder / layout.features_file(table).name, examples)
            if table not in layout.SPLITS and rows is not None and (left_out := row_count(path) - len(rows)):
                counts[table]["left_out_by_limit"] = left_out
            log_counts(table, counts[table])
            if encoder.nothing is not None and not counts[table].get("features", 1):
                raise UserError(f"tokenize: {table}: {encoder.nothing(counts[table])}")
        stage.write_json(folder / layout.TARGET.name, target)
        stage.write_json(folder / layout.TOKENIZED_COUNTS.name, {"settings": settings.of_features(), "splits": counts})
        tokenizer.save_pretrained(folder / layout.USED_TOKENIZER.name)
    for concern in tasks.module(declared.task, "concerns").of_features(counts):
        stage.log(f"tokenize: warning: {concern}")


def train() -> Iterator[pa.Table]:
    """Read the whole train split, in batches."""
    return (examples for _, examples in read(layout.table_file(layout.CORPUS, "train"), None))


def part_rows(path: Path, kept: np.ndarray | None) -> dict[str, np.ndarray]:
    """Return the kept rows of each part of a mixture, which are contiguous; empty if the corpus is not a mixture."""
    if layout.PART not in pq.read_schema(path).names:
        return {}
    found = pq.read_table(path, columns=[layout.PART])[layout.PART].value_counts()
    names, sizes = (found.field(field).to_pylist() for field in ("values", "counts"))
    ends = list(accumulate(sizes))
    kept = np.arange(ends[-1]) if kept is None else kept
    return dict(zip(names, np.split(kept, np.searchsorted(kept, ends[:-1])), strict=True))


def encoded(
    encoder: "TableEncoder", table: str, batches: "Batches", parts: dict[str, np.ndarray], mapped: OrderedMap
) -> Iterator[Features]:
    """Yield features and counts of a table; for a mixture part by part, so that each is encoded as on its own."""
    if not parts:
        yield from encoder.encode_table(table, batches, mapped)
    for part, rows in parts.items():
        if not len(rows):
            raise UserError(
                f"tokenize.limit: it leaves no example of {part} in {table}; expected a larger one, or null"
            )
        counts: Counter[str] = Counter()
        for features, of_batch in encoder.encode_table(table, replace(batches, kept=rows), mapped):
            counts.update(of_batch)
            yield features.append_column(layout.PART, pa.array([part] * len(features), pa.string())), of_batch
        if encoder.nothing is not None and not counts.get("features", 1):
            raise UserError(f"tokenize: {table} of {part}: {encoder.nothing(counts)}")


def write(features: Iterable[Features], schema: pa.Schema, path: Path, examples: int) -> dict[str, int]:
    """Write the features of so many examples as an Arrow stream, batch by batch, and return the sum of their counts."""
    counts: Counter[str] = Counter()
    bar = Bar(total=examples, desc=path.stem, unit="examples")
    with bar, pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for batch, of_batch in features:
            writer.write_table(batch)
            counts.update(of_batch)
            bar.update(of_batch["examples"])
    return dict(counts)


def log_counts(table: str, counts: dict[str, int]) -> None:
    """Log the counts of one table."""
    numbers = (f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items())
    stage.log(f"tokenize: {table}: {', '.join(numbers)}")


@dataclass(frozen=True)
class Batches:
    """Batches of read(); the path is absolute, because a Ray worker that reads them has another working folder."""

    path: Path
    kept: np.ndarray | None
    size: int

    def __iter__(self) -> Iterator[Batch]:
        return read(self.path, self.kept, self.size)


def kept_rows(table: str, limit: int | None, task: "Encoding") -> np.ndarray | None:
    """Return the rows of a table that a limit keeps, in order; None for all.

    For a split, `limit` rows, or whole groups of rows that belong together (task.TOGETHER). For a shared table, all
    rows whose ids the kept rows of the splits name (task.needed), and `limit` others.
    """
    path = layout.table_file(layout.CORPUS, table)
    if limit is None:
        return None
    if table in layout.SPLITS:
        return evenly_grouped(path, limit, task.TOGETHER)
    if (needed := task.needed) is None:
        return None
    splits = ((layout.table_file(layout.CORPUS, split), kept_rows(split, limit, task)) for split in layout.SPLITS)
    named = {given for path, rows in splits for _, examples in read(path, rows) for given in needed(examples)}
    ids = pq.read_table(path, columns=["id"])["id"].to_pylist()
    is_named = np.fromiter((given in named for given in ids), bool, len(ids))
    return np.union1d(np.flatnonzero(is_named), evenly(np.flatnonzero(~is_named), limit))


def evenly_grouped(path: Path, limit: int, column: tuple[str, str] | None) -> np.ndarray:
    """Return about `limit` rows of a table, in whole groups of rows that agree in this field of a column, if any.

    Rows of a group are contiguous. At least one group is kept.
    """
    rows = np.arange(row_count(path))
    if column is None or column[0] not in pq.read_schema(path).names:
        return evenly(rows, limit)
    read = pq.ParquetFile(path).read(columns=[".".join(column)])
    values = pc.struct_field(read[column[0]], column[1]).to_numpy()
    group = np.cumsum(np.append(False, values[1:] != values[:-1]))
    kept = evenly(np.unique(group), max(1, limit * (group[-1] + 1) // len(rows)))
    return rows[np.isin(group, kept)]


def evenly(rows: np.ndarray, limit: int) -> np.ndarray:
    """Return `limit` rows at equal distances. Not the first, because corpora are often sorted by label or document."""
    return rows if limit >= len(rows) else rows[np.arange(limit) * len(rows) // limit]


def row_count(path: Path) -> int:
    """Return the number of rows of a table."""
    return int(pq.read_metadata(path).num_rows)


def batch_size(path: Path) -> int:
    """Return the number of examples per batch of a table: fewer if they are long."""
    file = pq.read_metadata(path)
    size = sum(file.row_group(number).total_byte_size for number in range(file.num_row_groups))
    return max(1, min(EXAMPLES_A_BATCH, BYTES_A_BATCH * file.num_rows // max(size, 1)))


def read(path: Path, kept: np.ndarray | None, size: int | None = None) -> Iterator[Batch]:
    """Yield (row numbers, examples) of a table in batches: all of it, or the kept rows, which are in order."""
    file, size = pq.ParquetFile(path), size or batch_size(path)
    kept = np.arange(file.metadata.num_rows) if kept is None else kept
    start = 0
    for batch in file.iter_batches(size):
        rows = kept[np.searchsorted(kept, start) : np.searchsorted(kept, start + len(batch))]
        if len(rows):
            yield rows, pa.Table.from_batches([batch]).take(rows - start)
        start += len(batch)


if __name__ == "__main__":
    stage.run(main)
