"""Every task's corpus may have one more column, by which examples stay together, and which goes no further."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from conftest import Sentence, toy_recipe
from pydantic import ValidationError
from toys import write

from finetrail import layout, tasks
from finetrail.corpus import readers, splits


@pytest.fixture(params=tasks.names())
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def section(task: str, toy_sentences: list[Sentence], tmp_path: Path) -> dict[str, Any]:
    """The recipe's corpus: each example of a toy corpus names one of twenty documents that it is of."""
    sentences = [" ".join(tokens) for tokens, _ in toy_sentences]
    corpus: dict[str, Any] = write(task, toy_recipe(tmp_path, tmp_path), sentences, tmp_path)["corpus"]
    file = tmp_path / "toy.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    lines = [json.dumps(row | {"of": f"d{number % 20}"}) for number, row in enumerate(rows)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    corpus["reader"] = corpus["reader"] | {"columns": corpus["reader"]["columns"] | {"document_of": "of"}}
    return corpus


def test_examples_of_a_document_are_carved_together(task: str, section: dict[str, Any], tmp_path: Path) -> None:
    of_task = tasks.module(task, "corpus")
    section["splits"]["group"] = "document_of"
    settings = tasks.module(task, "settings").Corpus.model_validate(section)
    tables = of_task.tables(settings)
    counts = {table: of_task.Counts() for table in tables}
    documents: dict[str, set[str]] = {split: set() for split in layout.SPLITS}
    rows: dict[str, list[dict[str, Any]]] = {table: [] for table in tables}

    for split, record in splits.assemble(
        settings.splits, lambda pattern: readers.read(tmp_path, [tmp_path / pattern], settings.reader)
    ):
        documents[split].add(record.values["document_of"])
        for table, row in of_task.rows(split, record, settings, counts):
            rows[table].append(row)

    assert sum(map(len, documents.values())) == len(set.union(*documents.values())) == 20
    assert all(documents.values())
    for table, found in rows.items():
        assert found and set(found[0]) == set(tables[table].names)
        assert pa.Table.from_pylist(found, tables[table]).to_pylist() == found


def test_a_column_that_nothing_takes_is_refused(task: str, section: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"document_of.*, that of splits\.group and those of slices"):
        tasks.module(task, "settings").Corpus.model_validate(section)
