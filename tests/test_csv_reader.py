"""The csv reader: what a writer wrote comes back, real corpora have their counts, and mistakes their place."""

import csv
import io
from collections import Counter

import pytest
from conftest import CORPORA, real
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from finetrail.corpus import readers
from finetrail.errors import UserError
from finetrail.schema import CsvReader


def reader(quoting="minimal", delimiter=",", encoding="utf-8", **columns):
    return CsvReader(
        format="csv", columns=columns or {"text": "t"}, delimiter=delimiter, quoting=quoting, encoding=encoding
    )


def read(root, reader, content):
    (root / "a").write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(readers.read(root, [root / "a"], reader))


def values(records):
    return [record.values for record in records]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(st.lists(st.lists(st.text('ab",;\t é\n\u2028'), min_size=2, max_size=2)), st.sampled_from(",;\t"))
def test_what_the_csv_module_wrote_comes_back(tmp_path, rows, delimiter):
    written = io.StringIO()
    csv.writer(written, delimiter=delimiter, lineterminator="\n").writerows([["t", "u"], *rows])
    records = read(tmp_path, reader(delimiter=delimiter, text="t", other="u"), written.getvalue())
    assert [list(value.values()) for value in values(records)] == rows


@pytest.mark.parametrize("content", ["t\nx\ny\n", "\ufefft\r\nx\r\ny", 't\n"x"\n\ny\n\n'], ids=["lf", "bom", "blank"])
def test_rows_are_the_same_however_the_file_was_saved(tmp_path, content):
    assert values(read(tmp_path, reader(), content)) == [{"text": "x"}, {"text": "y"}]


def test_quoted_fields_hold_newlines_and_rows_keep_their_line(tmp_path):
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
        (reader(), "", "a: an empty file; expected a row for each example"),
        (reader(), "x,y\n1,2\n", "a:1: no column 't'; the columns there are 'x', 'y'"),
        (reader(), "t,x,t\n1,2,3\n", "a:1: more than one column 't'; the columns there are 't', 'x', 't'"),
        (reader(), "t,x\n1,2\n1,2,3\n", "a:3: 3 fields; expected 2 as in the header, or reader.quoting: none"),
        (reader("none"), 't,x\n"1,2",3\n', "a:2: 3 fields; expected 2 as in the header"),
        (reader(), 't\nx\n"y\nz\n', "a:3: not CSV: a field in quotes never ends; expected its quote before the"),
        (reader(), 't\n"x" y\n', "a:2: not CSV: a field in quotes does not end where it should, in line 2"),
        (
            reader(),
            't\nx\n"y\n"z"\n',
            "a:3: not CSV: a field in quotes does not end where it should, in line 4; expected",
        ),
        (reader(), "t\nx\ry\n", "a:2: not CSV: a carriage return alone in line 2, outside quotes; expected it in"),
        (reader(id="i"), "i\n7\n7\n", "a:3: the id '7' occurs a second time here"),
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
    path = real(name)
    records = list(readers.read(CORPORA, [path], reader("none", "\t", **columns)))
    lines = path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    assert [record.where for record in records] == [f"{name}:{number + 1}" for number in range(1, len(lines))]
    assert all(record.values["text"] in line for record, line in zip(records, lines[1:], strict=True))
    found = Counter(record.values["label"] for record in records)
    assert found == labels if labels else set(found) == {"0", "1"}


def test_a_file_without_a_header_is_read_by_column_numbers(tmp_path):
    content = '"1","Oil, up","Prices rose"\n"2","A win",""\n"1",""," "\n'
    records = read(tmp_path, reader(label=0, text=[1, 2], last=-1), content)
    assert records[0] == ("0", "a:1", {"label": "1", "text": "Oil, up Prices rose", "last": "Prices rose"})
    assert [value["text"] for value in values(records)] == ["Oil, up Prices rose", "A win", ""]
    assert values(read(tmp_path, reader("none", "\t", text=1), "\n0\tx\n1\ty")) == [{"text": "x"}, {"text": "y"}]


def test_several_columns_with_names_are_joined_into_one_text(tmp_path):
    records = read(tmp_path, reader(text=["title", "body"], title="title"), "title,body\nOil,Up\n,Down\n")
    assert values(records) == [{"text": "Oil Up", "title": "Oil"}, {"text": "Down", "title": ""}]


@pytest.mark.parametrize(
    ("content", "is_data"),
    [
        ("1,one\n2,two\n", True),
        ("good,pos\nbad,pos\n", True),
        (f"{'a long text ' * 6},pos\n", True),
        (" t,label\nx,pos\n", False),
        ("x\n", False),
    ],
)
def test_a_file_that_seems_to_have_no_header_line_is_told_so(tmp_path, content, is_data):
    with pytest.raises(UserError) as error:
        read(tmp_path, reader(), content)
    assert str(error.value).startswith("a:1: no column 't'; the columns there are '")
    hint = "; this file seems to have no header line: name columns by their numbers, from 0"
    assert str(error.value).endswith(hint if is_data else "'")


@pytest.mark.parametrize(
    ("reader", "content", "message"),
    [
        (reader(text=2), "a,b\n", "a:1: no column 2; expected numbers from 0 to 1, or from -1 to -2 from the end, for"),
        (reader(text=-3), "a,b\n", "a:1: no column -3; expected numbers from 0 to 1"),
        (reader(text=0), "a,b\nc\n", "a:2: 1 fields; expected 2 as in the first row, or reader.quoting: none"),
        (reader(text=0), "", "a: an empty file; expected a row for each example"),
        (reader(), ",".join(map(str, range(30))), "a:1: no column 't'; the columns there are '0', "),
    ],
)
def test_a_wrong_number_is_told_with_its_place(tmp_path, reader, content, message):
    with pytest.raises(UserError) as error:
        read(tmp_path, reader, content)
    assert str(error.value).startswith(message)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("column", [1.5, None, [], [["a"]], True])
def test_a_column_is_a_name_a_number_or_a_list_of_either(column):
    with pytest.raises(ValidationError) as error:
        reader(text=column)
    (problem,) = error.value.errors()
    assert problem["msg"].startswith("Value error, expected the name of a column, or its number from 0 in files")


def test_names_and_numbers_do_not_mix():
    with pytest.raises(ValidationError, match="columns has names and numbers: 'x', 0; expected names where the file"):
        reader(text=["x", 0])
