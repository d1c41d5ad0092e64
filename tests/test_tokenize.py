"""The tokenize stage on a task made here: every table of its encoder, which rows a limit keeps, counts, target."""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetrail import layout, schema
from finetrail.encoding.engines import Batch, Features, OrderedMap
from finetrail.errors import UserError
from finetrail.tasks import module
from finetrail.tasks.retrieval import concerns
from stages import tokenize

SIZES = {"train": 10, "validation": 5, "test": 3, "documents": 12}
# A table may have features of its own.
SCHEMAS = {name: pa.schema([("example", pa.int32()), (f"{name}_ids", pa.list_(pa.int32()))]) for name in SIZES}
ROW_GROUP = 4  # so that batches end inside of tables


class Encoder:
    tables = SCHEMAS
    survey = nothing = None

    def __init__(self, tokenizer: Any, target: Any, settings: Any) -> None:
        self.target = target

    def encode_table(self, name: str, batches: Iterable[Batch], ordered_map: OrderedMap) -> Iterator[Features]:
        return ordered_map(partial(part, name), batches)


def part(name: str, batch: Batch) -> Features:
    rows, examples = batch
    assert examples["id"].to_pylist() == [f"{name}-{row}" for row in rows]
    features = [{"example": row, f"{name}_ids": [row]} for row in rows.tolist()]
    return pa.Table.from_pylist(features, SCHEMAS[name]), {"examples": len(rows), "long_ones": 1000}


class Tokenizer:
    def save_pretrained(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "tokenizer.json").write_text("{}")


class Settings(schema.Tokenize):
    max_length: int
    limit: int | None


Run = Callable[..., list[str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Return the function that runs the stage in tmp_path and returns its log lines."""
    monkeypatch.chdir(tmp_path)
    layout.CORPUS.mkdir(parents=True)
    for name, size in SIZES.items():
        ids = pa.table({"id": [f"{name}-{row}" for row in range(size)]})
        pq.write_table(ids, layout.table_file(layout.CORPUS, name), row_group_size=ROW_GROUP)
    monkeypatch.setattr(tokenize, "EXAMPLES_A_BATCH", ROW_GROUP)

    def go(limit: int | None, target: Any = None, **more: Any) -> list[str]:
        def load_tokenizer(folder: Path, settings: Any, train: Callable[[], Iterator[pa.Table]]) -> Tokenizer:
            assert folder == layout.BASE_TOKENIZER
            assert ids_of(train()) == ids_of(train()) == [f"train-{row}" for row in range(10)]
            return Tokenizer()

        def find_target(train: Iterator[pa.Table], settings: Any) -> Any:
            assert ids_of(train) == [f"train-{row}" for row in range(10)], "the target is of the whole split"
            return target

        members = {"load_tokenizer": load_tokenizer, "target": find_target, "Encoder": Encoder}
        encoding = SimpleNamespace(**members | {"TOGETHER": None, "needed": None} | more)
        declared = SimpleNamespace(
            task="made-here", tokenize=Settings(engine="local", num_proc=1, max_length=8, limit=limit)
        )
        monkeypatch.setattr(tokenize.params, "load", {"tokenize": declared}.__getitem__)
        modules = {("made-here", "encoding"): encoding, ("made-here", "concerns"): concerns}
        monkeypatch.setattr(tokenize.tasks, "module", lambda *names: modules[names])
        tokenize.main()
        return [line for line in capfd.readouterr().err.splitlines() if line.startswith("tokenize:")]

    return go


def ids_of(tables: Iterator[pa.Table]) -> list[str]:
    return [name for table in tables for name in table["id"].to_pylist()]


def encoded(name: str) -> list[int]:
    with pa.memory_map(str(layout.features_file(name))) as file:
        table = pa.ipc.open_stream(file).read_all()
    assert table.schema == SCHEMAS[name]
    assert table[f"{name}_ids"].to_pylist() == [[row] for row in table["example"].to_pylist()]
    return table["example"].to_pylist()


def test_without_a_limit_every_row_is_encoded_once_in_order(run: Run) -> None:
    run(None)
    assert {name: encoded(name) for name in SIZES} == {name: list(range(size)) for name, size in SIZES.items()}


def test_a_limit_keeps_shared_rows_that_splits_name_and_others(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    named = {"train": [11], "validation": [3, 4], "test": [4]}
    seen: list[str] = []

    def needed(examples: pa.Table) -> list[str]:
        ids = examples["id"].to_pylist()
        seen.extend(ids)
        return [f"documents-{row}" for row in named[ids[0].split("-")[0]]]

    lines = run(2, needed=needed)

    others = [0, 1, 2, 5, 6, 7, 8, 9, 10]
    assert encoded("documents") == sorted([3, 4, 11, others[0], others[9 // 2]])
    assert sorted(seen) == ["test-0", "test-1", "train-0", "train-5", "validation-0", "validation-2"]  # those kept
    counts = json.loads(layout.TOKENIZED_COUNTS.read_text())["splits"]
    assert counts["documents"]["left_out_by_limit"] == 7 and "left_out_by_limit" not in counts["train"]
    assert lines[-2].startswith("tokenize: documents: 5 examples") and lines[-2].endswith(", 7 left out by limit")
    told = "documents left out by limit: scores are higher than among all documents: 7"
    assert lines[-1] == f"tokenize: warning: documents: {told}"

    run(9, needed=needed)
    assert encoded("documents") == list(range(12))
    assert "left_out_by_limit" not in json.loads(layout.TOKENIZED_COUNTS.read_text())["splits"]["documents"]
    run(None, needed=needed)
    assert encoded("documents") == list(range(12))


def test_a_limit_samples_each_split_and_keeps_shared_rows(run: Run) -> None:
    run(4)
    assert {name: encoded(name) for name in SIZES} == {
        "train": [0, 2, 5, 7],
        "validation": [0, 1, 2, 3],
        "test": [0, 1, 2],
        "documents": list(range(12)),
    }


@pytest.mark.parametrize("limit", [1, 3, 9, 10, 11])
def test_a_limit_keeps_so_many_rows_at_equal_distances(run: Run, limit: int) -> None:
    run(limit)
    rows = encoded("train")
    assert len(rows) == min(limit, 10)
    assert max(np.diff([*rows, 10])) - min(np.diff([*rows, 10])) <= 1


def test_counts_are_sums_over_batches_logged_per_table(run: Run) -> None:
    lines = run(4)
    counts = json.loads(layout.TOKENIZED_COUNTS.read_text())
    assert counts["settings"] == {"max_length": 8, "limit": 4}
    assert counts["splits"] == {
        "train": {"examples": 4, "long_ones": 2000},  # none of the last batch
        "validation": {"examples": 4, "long_ones": 1000},
        "test": {"examples": 3, "long_ones": 1000},
        "documents": {"examples": 12, "long_ones": 3000},
    }
    assert lines[0] == "tokenize: train: 4 examples, 2,000 long ones"
    assert [line.split(":")[1].strip() for line in lines] == list(SIZES)


@pytest.mark.parametrize("target", [None, ["O", "B-é"], {"labels": ["a"], "multi": False}])
def test_the_target_is_kept_as_it_is(run: Run, target: Any) -> None:
    run(None, target)
    assert json.loads(layout.TARGET.read_text()) == target
    assert (layout.USED_TOKENIZER / "tokenizer.json").is_file()


BLOCKS = {"engine": "local", "num_proc": 1, "block_size": 32, "limit": None}
MASKS = {"mask_probability": 0.15, "whole_word": False, "mask_seed": 0}


@pytest.mark.parametrize("short", ["train", "validation", "test"])
@pytest.mark.parametrize(
    ("task", "more", "changes"),
    [
        ("masked_lm", {"remainder": "drop", "join_documents": True, **MASKS}, "tokenize.remainder: pad"),
        (
            "text_generation",
            {"remainder": "drop", "join_documents": False, "template": None, "eos_token": "[SEP]", "chat": None},
            "tokenize.remainder: pad, tokenize.join_documents: true",
        ),
    ],
)
def test_a_split_that_fills_no_block_is_refused_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_wordpiece: Path,
    task: str,
    more: dict[str, Any],
    changes: str,
    short: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    layout.CORPUS.mkdir(parents=True)
    for split in layout.SPLITS:
        texts = ["Anna lives in Oslo ."] * 3 if split == short else ["Anna lives in Oslo . " * 12]
        table = pa.table({"id": list(map(str, range(len(texts)))), "prompt": pa.nulls(len(texts)), "text": texts})
        pq.write_table(table, layout.table_file(layout.CORPUS, split))
    shutil.copytree(tiny_wordpiece, layout.BASE_TOKENIZER)
    used = module(task, "settings").Tokenize.model_validate(BLOCKS | more)
    declared = SimpleNamespace(task=task, tokenize=used)
    monkeypatch.setattr(tokenize.params, "load", {"tokenize": declared}.__getitem__)

    with pytest.raises(UserError) as error:
        tokenize.main()

    message = str(error.value)
    assert message.startswith(f"tokenize: {short}: texts that fill no block of tokenize.block_size 32 (3 texts with ")
    assert message.endswith(f"tokens); expected a smaller one, {changes}, or more text in this split")
    assert "\n" not in message and not layout.TOKENIZED.exists()
