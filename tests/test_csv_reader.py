"""The csv reader: what a writer wrote comes back, real corpora have their counts, and mistakes their place."""

import csv
import io
import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetrail.corpus import readers
from finetrail.errors import UserError
from finetrail.schema import CsvReader

CORPORA = Path(os.environ.get("FINETRAIL_CORPORA", Path(__file__).parents[1] / "../shared/corpora"))


def reader(quoting="minimal", delimiter=",", encoding="utf-8", **columns):
    return CsvReader(
        format="csv", columns=columns or {"text": "t"}, delimiter=delimiter, quoting=quoting, encoding=encoding
    )


def read(root, reader, content):
    (root / "a").write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(readers.read(root, [root / "a"], reader))


def values(records):
    return [record.values for record in records]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(st.lists(st.lists(st.text('ab",;\t é\n\u2028'), min_size=2, max_size=2)), st.sampled_from(",;\t"))
def test_what_the_csv_module_wrote_comes_back(tmp_path, rows, delimiter):
    written = io.StringIO()
    csv.writer(written, delimiter=delimiter, lineterminator="\n").writerows([["t", "u"], *rows])
    records = read(tmp_path, reader(delimiter=delimiter, text="t", other="u"), written.getvalue())
    assert [list(value.values()) for value in values(records)] == rows


@pytest.mark.parametrize("content", ["t\nx\ny\n", "\ufefft\r\nx\r\ny", 't\n"x"\n\ny\n\n'], ids=["lf", "bom", "blank"])
def test_rows_are_the_same_however_the_file_was_saved(tmp_path, content):
    assert values(read(tmp_path, reader(), content)) == [{"text": "x"}, {"text": "y"}]


def test_a_quoted_field_holds_line_ends_and_places_are_those_where_rows_begin(tmp_path):
    records = read(tmp_path, reader(id="i", text="t"), 'i,t\r\n7,"a\r\n""b"",\r\n\r\nc"\r\n\r\n8,5" disk\r\n')
    assert records == [("7", "a:2", {"text": 'a\n"b",\n\nc'}), ("8", "a:7", {"text": '5" disk'})]


def test_without_quoting_quotes_and_carriage_returns_are_text(tmp_path):
    records = read(tmp_path, reader("none", "\t", text="t", label="y"), '"y"\tt\ty\n1\t"a\t0\n2\tb\rc"\t1\n')
    assert values(records) == [{"text": '"a', "label": "0"}, {"text": 'b\rc"', "label": "1"}]


@pytest.mark.parametrize("quoting", ["minimal", "none"])
def test_a_field_may_be_larger_than_the_csv_module_s_limit(tmp_path, quoting):
    (record,) = read(tmp_path, reader(quoting), "t\n" + "x" * 3_000_000)
    assert len(record.values["text"]) == 3_000_000


@pytest.mark.parametrize("quoting", ["minimal", "none"])
def test_rows_are_read_as_they_are_asked_for(tmp_path, quoting):
    (tmp_path / "a").write_bytes(b"t\nx\n" + (b"y" * 99 + b"\n") * 20_000 + b"\xff")
    rows = readers.read(tmp_path, [tmp_path / "a"], reader(quoting))
    assert [next(rows).values, next(rows).values] == [{"text": "x"}, {"text": "y" * 99}]
    with pytest.raises(UserError, match=r"^a: the byte 0xff at offset 2000004 is not utf-8"):
        list(rows)


@pytest.mark.parametrize(
    ("reader", "content", "message"),
    [
        (reader(), "", "a: an empty file; expected a line with the names of the columns"),
        (reader(), "x,y\n1,2\n", "a:1: no column 't'; the columns there are x, y"),
        (reader(), "t,x,t\n1,2,3\n", "a:1: more than one column 't'; the columns there are t, x, t"),
        (reader(), "t,x\n1,2\n1,2,3\n", "a:3: 3 fields; expected 2 as in the header, or reader.quoting: none"),
        (reader("none"), 't,x\n"1,2",3\n', "a:2: 3 fields; expected 2 as in the header"),
        (reader(), 't\nx\n"y\nz\n', "a:3: not CSV: unexpected end of data; expected a field in quotes to end"),
        (reader(), 't\n"x" y\n', "a:2: not CSV: ',' expected after '\"'; expected a field in quotes to end with its"),
        (reader(id="i"), "i\n7\n7\n", "a:3: the id '7' stands here a second time"),
        (reader(encoding="klingon"), "t\nx\n", "reader.encoding: Python knows no encoding 'klingon'"),
        (reader(encoding="base64"), "t\nx\n", "reader.encoding: Python knows no encoding 'base64'"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path, reader, content, message):
    with pytest.raises(UserError) as error:
        read(tmp_path, reader, content)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("name", "columns", "labels"),
    [
        ("mrpc/msr_paraphrase_train.txt", {"label": "Quality", "text": "#1 String"}, {"1": 2753, "0": 1323}),
        ("mrpc/msr_paraphrase_test.txt", {"label": "Quality", "text": "#1 String"}, {"1": 1147, "0": 578}),
        ("nsmc/ratings_train_part.txt", {"id": "id", "text": "document", "label": "label"}, None),
        ("nsmc/ratings_test_part.txt", {"id": "id", "text": "document", "label": "label"}, None),
    ],
)
def test_real_corpora_without_quoting_give_a_record_a_line(name, columns, labels):
    path = CORPORA / name
    if not path.is_file():
        pytest.skip(f"no {name} in FINETRAIL_CORPORA")
    records = list(readers.read(CORPORA, [path], reader("none", "\t", **columns)))
    lines = path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    assert [record.where for record in records] == [f"{name}:{number + 1}" for number in range(1, len(lines))]
    assert all(record.values["text"] in line for record, line in zip(records, lines[1:], strict=True))
    found = Counter(record.values["label"] for record in records)
    assert found == labels if labels else set(found) == {"0", "1"}
