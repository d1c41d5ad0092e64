"""Turns a pinned source into the canonical corpus: one Parquet file a table, checks and provenance."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from finetrail import layout, schema, tasks
from finetrail.corpus import readers, splits
from finetrail.dependencies import watch_read
from finetrail.errors import UserError
from finetrail.params import load
from finetrail.sources import Fetched, fetch, find, moving
from finetrail.stage import log, outputs, run, write_json

ROW_GROUP = 10_000


def canonical_rows(
    fetched: Fetched, corpus: Any, task: ModuleType, counts: dict[str, Any], renamed: Counter[str]
) -> Iterator[tuple[str, Any]]:
    """Yield (table, row) for all that the task keeps of the source; `counts` take up what passes.

    `renamed` counts by table the ids that an earlier file has too.
    """
    new_ids: set[str] = set()

    def read(pattern: str) -> Iterator[readers.Record]:
        again = partial(readers.read, fetched.root, find(fetched, pattern), corpus.reader, new_ids)
        return task.records(again, corpus) if hasattr(task, "records") else again()

    records = splits.assemble(corpus.splits, read)
    for table, record in tqdm(records, desc="read", unit=" examples", disable=None, leave=False):
        renamed[table] += record.id in new_ids
        yield from task.rows(table, record, corpus, counts)


def write_tables(rows: Iterable[tuple[str, Any]], tables: dict[str, pa.Schema], folder: Path) -> None:
    """Write one Parquet file a table, ROW_GROUP rows at a time; UserError where a table gets none."""
    waiting: dict[str, list[Any]] = {table: [] for table in tables}
    written = dict.fromkeys(tables, 0)
    with ExitStack() as files:
        writers = {
            table: files.enter_context(pq.ParquetWriter(layout.table_file(folder, table), columns, compression="zstd"))
            for table, columns in tables.items()
        }

        def write(table: str) -> None:
            writers[table].write_table(pa.Table.from_pylist(waiting[table], tables[table]))
            written[table] += len(waiting[table])
            waiting[table] = []

        for table, row in rows:
            waiting[table].append(row)
            if len(waiting[table]) == ROW_GROUP:
                write(table)
        for table in tables:
            if waiting[table]:
                write(table)
    if empty := [table for table in tables if not written[table]]:
        where = f"splits.{empty[0]}" if empty[0] in layout.SPLITS else f"corpus: the table {empty[0]}"
        raise UserError(f"{where}: every example of it is left out, as empty or unusable; expected at least one")


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
    tables = task.tables(corpus)
    counts = {table: task.Counts() for table in tables}
    renamed: Counter[str] = Counter()
    unchanged = watch_read((fetched.root / name for name in fetched.files), "download@corpus")
    with outputs(layout.CORPUS) as [folder]:
        folder.mkdir()
        write_tables(canonical_rows(fetched, corpus, task, counts, renamed), tables, folder)
        unchanged()
        checks = task.checks(counts, corpus)
        for table, count in (+renamed).items():
            checks["splits"][table]["ids_with_file_name"] = count
        write_json(folder / layout.CORPUS_CHECKS.name, checks)
        write_json(folder / layout.CORPUS_PROVENANCE.name, provenance(fetched, corpus))
    for table in tables:
        log(f"download@corpus: {table} {task.summary(counts[table], corpus)}")
    if hint := moving(fetched):
        log(f"download@corpus: {hint}")
    for table, count in (+renamed).items():
        log(f"download@corpus: {table}: ids that stand in an earlier file too, and got their file's name: {count:,}")
    for line in task.warnings(checks):
        log(f"download@corpus: warning: {line}")


if __name__ == "__main__":
    run(main)
