"""Turns a pinned source into the canonical corpus: one Parquet file a split, checks and provenance."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from finetrail import layout, schema, tasks
from finetrail.corpus import readers, splits
from finetrail.errors import UserError
from finetrail.params import load
from finetrail.sources import Fetched, fetch, find, moving
from finetrail.stage import log, output, run, write_json

ROW_GROUP = 10_000


def canonical_rows(
    fetched: Fetched, corpus: Any, task: ModuleType, counts: dict[str, Any]
) -> Iterator[tuple[str, Any]]:
    """Yield (split, row) for every example that the task keeps; `counts` of its split take up what passes."""

    def read(pattern: str) -> Iterator[readers.Record]:
        return readers.read(fetched.root, find(fetched, pattern), corpus.reader)

    records = splits.assemble(corpus.splits, read)
    for split, record in tqdm(records, desc="read", unit=" examples", disable=None, leave=False):
        row = task.canonical(record, corpus, counts[split])
        if row is not None:
            yield split, row


def write_splits(rows: Iterable[tuple[str, Any]], columns: pa.Schema, folder: Path) -> None:
    """Write one Parquet file a split, ROW_GROUP rows at a time; UserError where a split gets none."""
    waiting: dict[str, list[Any]] = {split: [] for split in layout.SPLITS}
    written = dict.fromkeys(layout.SPLITS, 0)
    with ExitStack() as files:
        writers = {
            split: files.enter_context(pq.ParquetWriter(layout.split_file(folder, split), columns, compression="zstd"))
            for split in layout.SPLITS
        }

        def write(split: str) -> None:
            writers[split].write_table(pa.Table.from_pylist(waiting[split], columns))
            written[split] += len(waiting[split])
            waiting[split] = []

        for split, row in rows:
            waiting[split].append(row)
            if len(waiting[split]) == ROW_GROUP:
                write(split)
        for split in layout.SPLITS:
            if waiting[split]:
                write(split)
    if empty := [split for split in layout.SPLITS if not written[split]]:
        raise UserError(f"splits.{empty[0]}: every example of it is empty; expected at least one that is not")


def provenance(fetched: Fetched, corpus: schema.Corpus) -> dict[str, Any]:
    """Return where the corpus comes from and what people must know to use it."""
    source = fetched.provenance
    return {
        "name": corpus.name,
        "license": corpus.license or source.get("license"),
        "language": corpus.language,
    } | {key: value for key, value in source.items() if key != "license"}


def main() -> None:
    params = load("download@corpus")
    corpus = params.corpus
    task = tasks.module(params.task, "corpus")
    fetched = fetch(corpus.source, "dataset", layout.SCRATCH)
    counts = {split: task.Counts() for split in layout.SPLITS}
    with output(layout.CORPUS) as folder:
        folder.mkdir()
        write_splits(canonical_rows(fetched, corpus, task, counts), task.SCHEMA, folder)
        checks = task.checks(counts, corpus)
        write_json(folder / layout.CORPUS_CHECKS.name, checks)
        write_json(folder / layout.CORPUS_PROVENANCE.name, provenance(fetched, corpus))
    for split in layout.SPLITS:
        log(f"download@corpus: {split} {task.summary(counts[split], corpus)}")
    if hint := moving(fetched):
        log(f"download@corpus: {hint}")
    for line in task.warnings(checks):
        log(f"download@corpus: warning: {line}")


if __name__ == "__main__":
    run(main)
