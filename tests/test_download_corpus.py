"""The stage download@corpus, from toy files and from the embedded corpus to canonical Parquet."""

import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter

from finetrail.corpus import readers
from finetrail.errors import UserError
from finetrail.schema import Mixture, sliced
from finetrail.stage import read_json
from finetrail.tasks.token_classification.settings import Corpus
from stages import download_corpus

PROJECT = Path(__file__).parents[1]
TOY = {
    "train": "EU B-ORG\nsays O\n\nRome I-LOC\n",
    "dev": "EU B-ORG\nsays O\n",
    "test": "Bonn B-LOC\n",
}


def section(**changes):
    return {
        "name": "toy",
        "source": {"kind": "file", "path": "toy", "sha256": None},
        "splits": {"train": "train", "validation": "dev", "test": "test", "seed": 0, "stratify": None, "group": None},
        "license": "CC0-1.0",
        "language": "en",
        "reader": {
            "format": "conll",
            "separator": None,
            "token_column": 0,
            "label_column": 1,
            "comment": None,
            "encoding": "utf-8",
        },
        "tags": {"scheme": "iob2", "impossible_transitions": "repair", "unseen_labels": "keep"},
    } | changes


@pytest.fixture
def download(tmp_path, monkeypatch):
    """Return a function that runs the stage on a corpus section, in an empty project with a folder toy."""
    monkeypatch.chdir(tmp_path)
    Path("toy").mkdir()

    def run(files=None, **changes):
        for name, content in (files or {}).items():
            Path("toy", name).write_text(content, encoding="utf-8")
        corpus = TypeAdapter(sliced(Corpus)).validate_python(section(**changes))
        params = SimpleNamespace(task="token_classification", corpus=corpus)
        monkeypatch.setattr(download_corpus, "load", {"download@corpus": params}.__getitem__)
        download_corpus.main()
        return {path.name: path.read_bytes() for path in sorted(Path("data/corpus").iterdir())}

    return run


def rows(split):
    return pq.read_table(f"data/corpus/{split}.parquet").to_pylist()


def test_given_splits_become_parquet_with_checks_and_provenance(download, capsys):
    written = download(TOY)
    assert list(written) == ["checks.json", "provenance.json", "test.parquet", "train.parquet", "validation.parquet"]
    assert rows("train") == [
        {"id": "0", "tokens": ["EU", "says"], "labels": ["B-ORG", "O"]},
        {"id": "1", "tokens": ["Rome"], "labels": ["B-LOC"]},
    ]
    assert rows("validation") == [{"id": "0", "tokens": ["EU", "says"], "labels": ["B-ORG", "O"]}]
    assert read_json(Path("data/corpus/checks.json"))["leakage"]["train/validation"] == 1
    provenance = read_json(Path("data/corpus/provenance.json"))
    assert {key: provenance[key] for key in ("name", "license", "language", "kind")} == {
        "name": "toy",
        "license": "CC0-1.0",
        "language": "en",
        "kind": "file",
    }
    assert {file["path"]: file["sha256"] for file in provenance["files"]} == {
        name: sha256(content.encode()).hexdigest() for name, content in TOY.items()
    }
    assert capsys.readouterr().err.splitlines() == [
        "download@corpus: train 2 sentences, 3 tokens, 2 entity types",
        "download@corpus: validation 1 sentences, 2 tokens, 1 entity types",
        "download@corpus: test 1 sentences, 1 tokens, 1 entity types",
        "download@corpus: DVC does not notice when this source changes; pin it in the recipe: "
        f"sha256: {provenance['sha256']}",
        "download@corpus: warning: train: impossible tag transitions, repaired: 1",
        "download@corpus: warning: validation: sentences that also occur in train: 1",
    ]


def test_files_of_one_split_with_repeated_ids_are_joined(download, capsys):
    word = "# sent_id = {}\n1\tw\t_\tNOUN" + "\t_" * 6 + "\n\n"
    files = {f"{name}.{language}": word.format("1") + word.format(2) for name in ("train", "dev") for language in "de"}
    splits = {"train": "train.*", "validation": "dev.*", "test": 0.25, "seed": 0, "stratify": None, "group": None}
    reader = {"format": "conllu", "label": "upos", "encoding": "utf-8"}
    tags = {"scheme": "none", "impossible_transitions": "repair", "unseen_labels": "keep"}

    download(files, splits=splits, reader=reader, tags=tags)

    ids = [row["id"] for split in ("train", "test") for row in rows(split)]
    assert sorted(ids) == ["1", "2", "train.e:1", "train.e:2"]
    assert [row["id"] for row in rows("validation")] == ["1", "2", "dev.e:1", "dev.e:2"]
    checks = read_json(Path("data/corpus/checks.json"))["splits"]
    assert sum(checks[split].get("ids_with_file_name", 0) for split in ("train", "test")) == 2
    assert checks["validation"]["ids_with_file_name"] == 2
    told = "download@corpus: warning: validation: ids that occur in an earlier file too, and got their file's name: 2"
    assert told in capsys.readouterr().err.splitlines()


def test_bilou_with_types_first_and_blanks_is_stored_as_iob2(download):
    scheme = {"name": "bilou", "shape": "TYPE_B", "strip": True}
    tags = {"scheme": scheme, "impossible_transitions": "refuse", "unseen_labels": "keep"}
    files = {"train": "New\tLOC_B\u00a0\nYork\tLOC_L\nis\tO\u00a0\n", "dev": "Rome\tLOC_U\n", "test": "so\tO\n"}
    download(files, tags=tags)
    assert rows("train")[0]["labels"] == ["B-LOC", "I-LOC", "O"]
    assert rows("validation")[0]["labels"] == ["B-LOC"]
    tags |= {"scheme": {"name": "none", "shape": None, "strip": True}}
    download(files, tags=tags)
    assert rows("train")[0]["labels"] == ["LOC_B", "LOC_L", "O"]
    assert read_json(Path("data/corpus/checks.json"))["scheme"] == "none"


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        ("klingon", "should be 'iob1', 'iob2', 'iobes', 'bilou', 'io' or 'none'"),
        ({"name": "iob2", "shape": "TYPEB", "strip": False}, "String should match pattern"),
        ({"name": "iob2", "shape": None, "strip": False}, "shape is None with the name iob2; expected such as B-TYPE"),
        ({"name": "none", "shape": "B-TYPE", "strip": False}, "shape is 'B-TYPE' with the name none; expected null"),
    ],
)
def test_a_scheme_that_is_none_is_refused(scheme, message):
    tags = {"scheme": scheme, "impossible_transitions": "refuse", "unseen_labels": "keep"}
    with pytest.raises(ValueError, match=message):
        Corpus.model_validate(section(tags=tags))


def test_row_groups_are_of_fixed_size(download, monkeypatch):
    monkeypatch.setattr(download_corpus, "ROW_GROUP", 4)
    download({**TOY, "train": "x O\n\n" * 8, "dev": "x O\n\n" * 9})
    metadata = {split: pq.ParquetFile(f"data/corpus/{split}.parquet").metadata for split in ("train", "validation")}
    sizes = {
        split: [of_split.row_group(group).num_rows for group in range(of_split.num_row_groups)]
        for split, of_split in metadata.items()
    }
    assert sizes == {"train": [4, 4], "validation": [4, 4, 1]}
    assert metadata["train"].row_group(0).column(0).compression == "ZSTD"
    assert [row["id"] for row in rows("validation")] == [str(number) for number in range(9)]


class Counts:
    """What a task made here counts."""

    def __init__(self):
        self.rows = 0


TABLES = {
    "train": pa.schema([("id", pa.string())]),
    "validation": pa.schema([("id", pa.string())]),
    "test": pa.schema([("id", pa.string())]),
    "documents": pa.schema([("id", pa.string()), ("text", pa.string())]),
}


def each_token_is_a_document(table, record, settings, counts):
    """Yield a row of the split, and one for each token of a table that the splits share; without tokens, nothing."""
    tokens = record.values["tokens"]
    for row in [{"id": record.id}] if "skip" not in tokens else []:
        counts[table].rows += 1
        yield table, row
        for token in tokens:
            counts["documents"].rows += 1
            yield "documents", {"id": f"{table}-{record.id}", "text": token}


def test_a_record_may_give_rows_of_several_tables_or_none(download, monkeypatch, capsys):
    task = SimpleNamespace(
        tables=lambda settings: TABLES,
        Counts=Counts,
        records=None,
        rows=each_token_is_a_document,
        checks=lambda counts, settings: {table: of_table.rows for table, of_table in counts.items()},
        summary=lambda counts, settings: f"has {counts.rows}",
        of_corpus=lambda checks: [f"{sum(checks.values())} in all"],
    )
    monkeypatch.setattr(download_corpus.tasks, "module", lambda *_: task)
    monkeypatch.setattr(download_corpus, "ROW_GROUP", 2)
    download({**TOY, "train": "a O\nb O\nc O\n\nskip O\n\nd O\n"})
    assert {table: rows(table) for table in TABLES} == {
        "train": [{"id": "0"}, {"id": "2"}],
        "validation": [{"id": "0"}],
        "test": [{"id": "0"}],
        "documents": [
            {"id": place, "text": text}
            for place, text in (
                ("train-0", "a"),
                ("train-0", "b"),
                ("train-0", "c"),
                ("train-2", "d"),
                ("validation-0", "EU"),
                ("validation-0", "says"),
                ("test-0", "Bonn"),
            )
        ],
    }
    assert pq.ParquetFile("data/corpus/documents.parquet").metadata.num_row_groups == 4
    assert {table: pq.read_schema(f"data/corpus/{table}.parquet") for table in TABLES} == TABLES
    assert read_json(Path("data/corpus/checks.json")) == {"train": 2, "validation": 1, "test": 1, "documents": 7}
    lines = capsys.readouterr().err.splitlines()
    assert lines[:4] == [
        "download@corpus: train has 2",
        "download@corpus: validation has 1",
        "download@corpus: test has 1",
        "download@corpus: documents has 7",
    ]
    assert lines[-1] == "download@corpus: warning: 11 in all"


def test_a_task_may_scan_the_records_of_a_split_before_its_rows(download, monkeypatch):
    def records(read, settings):
        several = sum(1 for _ in read()) > 1
        return (one._replace(id=f"{one.id} of several") if several else one for one in read())

    task = download_corpus.tasks.module("token_classification", "corpus")
    monkeypatch.setattr(task, "records", records, raising=False)
    download(TOY)
    assert [[row["id"] for row in rows(split)] for split in ("train", "test")] == [
        ["0 of several", "1 of several"],
        ["0"],
    ]


def test_carved_splits_hold_each_sentence_once_with_its_number(download):
    download(
        {"train": "".join(f"w{number} O\n\n" for number in range(20))},
        splits={"train": "train", "validation": 0.2, "test": 0.25, "seed": 1, "stratify": None, "group": None},
    )
    found = {split: rows(split) for split in ("train", "validation", "test")}
    assert [len(of_split) for of_split in found.values()] == [11, 4, 5]
    assert all(row["tokens"] == [f"w{row['id']}"] for of_split in found.values() for row in of_split)
    assert len({row["id"] for of_split in found.values() for row in of_split}) == 20


def test_a_glob_reads_its_files_in_sorted_order(download):
    splits = {"train": "train*", "validation": "dev", "test": "test", "seed": 0, "stratify": None, "group": None}
    download({**TOY, "train2": "second O\n", "train10": "first O\n"}, splits=splits)
    assert [row["tokens"][0] for row in rows("train")] == ["EU", "Rome", "first", "second"]


def test_a_part_of_speech_corpus_goes_through_jsonl(download):
    line = '{"n": "%s", "words": ["a", "b"], "pos": ["DT", "NN"]}\n'
    download(
        {name: line % name for name in TOY},
        reader={"format": "jsonl", "columns": {"id": "n", "tokens": "words", "labels": "pos"}, "encoding": "utf-8"},
        tags={"scheme": "none", "impossible_transitions": "repair", "unseen_labels": "keep"},
    )
    assert rows("test") == [{"id": "test", "tokens": ["a", "b"], "labels": ["DT", "NN"]}]
    assert read_json(Path("data/corpus/checks.json"))["scheme"] == "none"


def with_columns(*lines, slices=("source",)):
    reader = {"tokens": "t", "labels": "l", "source": "from.name"}
    changes = {"reader": {"format": "jsonl", "columns": reader, "encoding": "utf-8"}, "slices": list(slices)}
    text = "".join(f'{{"t": ["EU"], "l": ["B-ORG"], "from": {{"name": {value}}}}}\n' for value in lines)
    return changes, dict.fromkeys(TOY, text)


def test_the_columns_of_slices_are_kept_as_texts(download):
    changes, files = with_columns('"web "', "2019", "true", "null", '""')
    download(files, **changes)
    assert [row["slice_source"] for row in rows("test")] == ["web", "2019", "true", None, None]
    assert rows("train")[0] == {"id": "0", "tokens": ["EU"], "labels": ["B-ORG"], "slice_source": "web"}


def test_what_is_no_single_value_is_refused(download):
    changes, files = with_columns('"web"', '["a"]')
    with pytest.raises(UserError, match=r"^train:2: corpus.slices: source is \['a'\]; expected a single value$"):
        download(files, **changes)
    commented = section()["reader"] | {"comment": "#"}
    with pytest.raises(UserError, match=r"^train:1: corpus.slices: no column 'date'; the columns there are 'domain'$"):
        download({name: f"# domain=web\n{text}" for name, text in TOY.items()}, reader=commented, slices=["date"])
    half = readers.Record("0", "train:1", {"source": "\ud83d"})
    with pytest.raises(UserError, match=r"^train:1: corpus.slices: source: a lone surrogate such as"):
        download_corpus.slices(half, SimpleNamespace(sliced_by=["source"]))


def test_each_table_of_a_split_has_the_slices_of_all_parts():
    reader = {"format": "jsonl", "columns": {"tokens": "t", "labels": "l", "source": "s"}, "encoding": "utf-8"}
    one = TypeAdapter(sliced(Corpus)).validate_python(section(reader=reader, slices=["source"]))
    mixture = Mixture.model_construct(parts={"one": one, "two": Corpus.model_validate(section())})
    columns = pa.schema([("id", pa.string())])
    assert download_corpus.with_more("test", columns, mixture).names == ["id", "slice_source", "part"]
    assert download_corpus.with_more("documents", columns, one).names == ["id"]


@pytest.mark.parametrize(
    ("changes", "files", "message"),
    [
        ({}, {"test": "Bonn\n"}, r"^test:1: 1 column, label_column 1 needs at least 2"),
        ({}, {"dev": "\n"}, r"^splits.validation: there is no example in 'dev'"),
        (
            {"reader": {"format": "jsonl", "columns": {"tokens": "t", "labels": "l"}, "encoding": "utf-8"}},
            dict.fromkeys(TOY, '{"t": [], "l": []}\n'),
            r"^splits.train: every example of it is left out, as empty or unusable; expected at least one$",
        ),
        (
            {"tags": {"scheme": "iob2", "impossible_transitions": "refuse", "unseen_labels": "keep"}},
            {},
            r"^train:4: example '1': label 0 is 'I-LOC'",
        ),
        (
            {"tags": {"scheme": "iob2", "impossible_transitions": "repair", "unseen_labels": "refuse"}},
            {"test": "Bo B-PER\n"},
            r"^test: example '0' has the label 'B-PER', which train lacks",
        ),
    ],
)
def test_a_refused_corpus_leaves_the_earlier_one_untouched(download, changes, files, message):
    before = download(TOY)
    with pytest.raises(UserError, match=message):
        download(files, **changes)
    assert {path.name: path.read_bytes() for path in sorted(Path("data/corpus").iterdir())} == before
    assert [path.name for path in Path("data").iterdir()] == ["corpus"]


def test_an_empty_table_that_splits_share_is_named_as_one(tmp_path):
    columns = pa.schema([("id", pa.string())])
    rows = [(split, {"id": "0"}) for split in ("train", "validation", "test")]
    with pytest.raises(UserError, match=r"^corpus: the table documents: every example of it is left out"):
        download_corpus.write_tables(
            rows, dict.fromkeys(("train", "validation", "test", "documents"), columns), tmp_path
        )


PROGRAM = """
import sys
from stages.download_corpus import main
main()
heavy = {"torch", "transformers", "datasets", "dvc"} & sys.modules.keys()
sys.exit(f"imported {heavy}" if heavy else 0)
"""


def test_the_embedded_corpus_has_the_same_bytes_without_torch(tmp_path):
    hashes = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        for name in ("dvc.yaml", "params.yaml"):
            shutil.copy(PROJECT / name, folder)
        shutil.copytree(PROJECT / "recipes", folder / "recipes")
        environment = os.environ | {"PYTHONPATH": str(PROJECT), "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", PROGRAM], cwd=folder, env=environment, check=True)
        files = sorted((folder / "data/corpus").iterdir())
        hashes.append({path.name: sha256(path.read_bytes()).hexdigest() for path in files})
    assert hashes[0] == hashes[1]
    checks = read_json(tmp_path / "1/data/corpus/checks.json")
    assert [of_split["sentences"] for of_split in checks["splits"].values()] == [1436, 479, 479]
    assert sum(of_split["tokens"] for of_split in checks["splits"].values()) == 46_469
    assert checks["unseen_labels"] == {"validation": {}, "test": {}}
