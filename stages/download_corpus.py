"""Turns a pinned source into the canonical corpus: one Parquet file per table, checks and provenance."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from finetrail import layout, schema, tasks
from finetrail.corpus import readers, splits
from finetrail.corpus.raw import listed, require_text
from finetrail.dependencies import watch_read
from finetrail.errors import UserError
from finetrail.params import load
from finetrail.progress import Bar
from finetrail.sources import Fetched, fetch, find, pin_hint
from finetrail.sources.provenance import digest
from finetrail.stage import log, outputs, run, write_json

if TYPE_CHECKING:
    from finetrail.tasks.contract import Corpus

# Limits of what is kept in memory, as Python objects, before it is written.
ROW_GROUP = 10_000
VALUES_WAITING = 1 << 26  # characters of texts, and items of lists


def canonical_rows(
    fetched: Fetched, corpus: Any, task: "Corpus", counts: dict[str, Any], renamed: Counter[str]
) -> Iterator[tuple[str, Any]]:
    """Yield (table, row) of all examples that the task keeps, and update `counts`.

    `renamed` counts, by table, the ids that also occur in an earlier file.
    """
    new_ids: set[str] = set()

    def read(pattern: str) -> Iterator[readers.Record]:
        again = partial(readers.read, fetched.root, find(fetched, pattern), corpus.reader, new_ids)
        return task.records(again, corpus) if task.records else again()

    records = splits.assemble(corpus.splits, read)
    for table, record in Bar(records, desc="read", unit="examples"):
        renamed[table] += record.id in new_ids
        kept = slices(record, corpus)
        for of_table, row in task.rows(table, record, corpus, counts):
            yield of_table, row | kept if of_table in layout.SPLITS else row


def slices(record: readers.Record, corpus: schema.Corpus) -> dict[str, str | None]:
    """Return the columns of corpus.slices as strings, or None if empty; UserError for lists and objects."""
    found: dict[str, str | None] = {}
    for name in corpus.sliced_by:
        if name not in record.values:
            there = listed(key for key, value in record.values.items() if isinstance(value, str | int | float))
            raise UserError(f"{record.where}: corpus.slices: no column {name!r}; the columns there are {there}")
        value = record.values[name]
        if isinstance(value, dict | list):
            raise UserError(f"{record.where}: corpus.slices: {name} is {value!r:.60}; expected a single value")
        if isinstance(value, bool):
            value = json.dumps(value)
        require_text(value, f"{record.where}: corpus.slices: {name}")
        found[f"{layout.SLICE}{name}"] = None if value is None else str(value).strip() or None
    return found


def beside_rows(
    beside: dict[str, tuple[Any, Fetched]], corpus: schema.Corpus, task: "Corpus", counts: dict[str, Any]
) -> Iterator[tuple[str, Any]]:
    """Yield (table, row) of the tables that have a source of their own; each is (section, its files)."""
    for table, (section, fetched) in beside.items():
        for record in readers.read(fetched.root, find(fetched, "."), section.reader):
            yield from task.rows(table, record, corpus, counts)


def write_tables(rows: Iterable[tuple[str, Any]], tables: dict[str, pa.Schema], folder: Path) -> None:
    """Write one Parquet file per table, in groups of ROW_GROUP rows, or fewer long ones; UserError if one is empty."""
    waiting: dict[str, list[Any]] = {table: [] for table in tables}
    size = dict.fromkeys(tables, 0)
    written = dict.fromkeys(tables, 0)
    with ExitStack() as files:
        writers = {
            table: files.enter_context(pq.ParquetWriter(layout.table_file(folder, table), columns, compression="zstd"))
            for table, columns in tables.items()
        }

        def write(table: str) -> None:
            writers[table].write_table(pa.Table.from_pylist(waiting[table], tables[table]))
            written[table] += len(waiting[table])
            waiting[table], size[table] = [], 0

        for table, row in rows:
            waiting[table].append(row)
            size[table] += sum(len(value) for value in row.values() if isinstance(value, str | list))
            if len(waiting[table]) == ROW_GROUP or size[table] >= VALUES_WAITING:
                write(table)
        for table in tables:
            if waiting[table]:
                write(table)
    if empty := [table for table in tables if not written[table]]:
        where = f"splits.{empty[0]}" if empty[0] in layout.SPLITS else f"corpus: the table {empty[0]}"
        raise UserError(f"{where}: every example of it is left out, as empty or unusable; expected at least one")


def mixed_rows(
    fetched: dict[str | None, Fetched],
    parts: dict[str | None, Any],
    task: "Corpus",
    counts: dict[str, Any],
    renamed: Counter[str],
) -> Iterator[tuple[str, Any]]:
    """Yield (table, row) of one part after the other, with the name of the part as a column and as a prefix of the id.

    UserError, with the name of the part, if a part gives no row of a table.
    """
    for part, corpus in parts.items():
        if part is None:
            yield from canonical_rows(fetched[part], corpus, task, counts, renamed)
            continue
        found = dict.fromkeys(counts, 0)
        try:
            for table, row in canonical_rows(fetched[part], corpus, task, counts, renamed):
                found[table] += 1
                yield table, row | {"id": f"{part}/{row['id']}", layout.PART: part}
            if empty := [table for table in found if not found[table]]:
                raise UserError(f"splits.{empty[0]}: every example of it is left out; expected at least one")
        except UserError as error:
            raise UserError(f"corpus.parts.{part}: {error}") from None
        log(f"download@corpus: {part}: {', '.join(f'{table} {count:,}' for table, count in found.items())}")


def mixed_provenance(parts: dict[str | None, dict[str, Any]], corpus: schema.Corpus | schema.Mixture) -> dict[str, Any]:
    """Return the provenance of a corpus; for a mixture, with that of each part, and a hash of their hashes."""
    if not isinstance(corpus, schema.Mixture):
        return parts[None]
    licenses = {part["license"] for part in parts.values()}
    hashed = [file | {"path": f"{name}/{file['path']}"} for name, part in parts.items() for file in part["files"]]
    return {
        "name": corpus.name,
        "license": corpus.license or (licenses.pop() if len(licenses) == 1 else None),
        "language": corpus.language,
        "kind": "parts",
        "source": {},
        "resolved": {},
        "sha256": digest([{"sha256": part["sha256"], "path": name} for name, part in parts.items()]),
        "bytes": sum(part["bytes"] for part in parts.values()),
        "parts": {name: {key: part[key] for key in part if key != "files"} for name, part in parts.items()},
        "files": hashed,
    }


def provenance(fetched: Fetched, corpus: schema.Corpus) -> dict[str, Any]:
    """Return the provenance of a corpus: its name, license, language and source."""
    source = fetched.provenance
    return {
        "name": corpus.name,
        "license": corpus.license or source.get("license"),
        "language": corpus.language,
    } | {key: value for key, value in source.items() if key != "license"}


def main() -> None:
    params = load("download@corpus")
    corpus, parts = params.corpus, schema.parts_of(params.corpus)
    task = tasks.module(params.task, "corpus")
    one = next(iter(parts.values()))  # the settings that checks and columns depend on are the same in all parts
    fetched = {part: fetch(of_part.source, "dataset", layout.SCRATCH) for part, of_part in parts.items()}
    beside = {name: (more, fetch(more.source, "dataset", layout.SCRATCH)) for name, more in one.beside().items()}
    all_fetched = [*fetched.values(), *(of_table for _, of_table in beside.values())]
    tables = {name: with_more(name, columns, corpus) for name, columns in task.tables(one).items()}
    counts = {table: task.Counts() for table in tables}
    renamed: Counter[str] = Counter()
    read = (source.root / name for source in all_fetched for name in source.files)
    unchanged = watch_read(read, "download@corpus")
    with outputs(layout.CORPUS) as [folder]:
        folder.mkdir()
        rows = chain(mixed_rows(fetched, parts, task, counts, renamed), beside_rows(beside, one, task, counts))
        write_tables(rows, tables, folder)
        unchanged()
        checks = task.checks(counts, one)
        for table, count in (+renamed).items():
            checks["splits"][table]["ids_with_file_name"] = count
        write_json(folder / layout.CORPUS_CHECKS.name, checks)
        origins = {part: provenance(fetched[part], of_part) for part, of_part in parts.items()}
        origin = mixed_provenance(origins, corpus)
        origin |= {"beside": {name: source.provenance for name, (_, source) in beside.items()}} if beside else {}
        write_json(folder / layout.CORPUS_PROVENANCE.name, origin)
    for table in tables:
        log(f"download@corpus: {table} {task.summary(counts[table], one)}")
    for hint in filter(None, map(pin_hint, all_fetched)):
        log(f"download@corpus: {hint}")
    for concern in tasks.module(params.task, "concerns").of_corpus(checks):
        log(f"download@corpus: warning: {concern}")


def with_more(table: str, columns: pa.Schema, corpus: schema.Corpus | schema.Mixture) -> pa.Schema:
    """Return the columns of a table, with those of slices for a split, and with the part for a mixture."""
    names = [name for part in schema.parts_of(corpus).values() for name in part.sliced_by]
    more = [f"{layout.SLICE}{name}" for name in dict.fromkeys(names) if table in layout.SPLITS]
    more += [layout.PART] if isinstance(corpus, schema.Mixture) else []
    for name in more:
        columns = columns.append(pa.field(name, pa.string()))
    return columns


if __name__ == "__main__":
    run(main)
