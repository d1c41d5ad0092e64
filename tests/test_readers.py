"""Readers: every format, what real files have in them, and every refusal with its place."""

import json
import re
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import CORPORA, real
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetrail.corpus import raw, readers
from finetrail.corpus.tags import to_iob2
from finetrail.errors import UserError
from finetrail.schema import ConllReader, ConlluReader, JsonLinesReader, JsonReader, ParquetReader


def conll(separator=None, token_column=0, label_column=-1, comment=None, encoding="utf-8"):
    return ConllReader(
        format="conll",
        separator=separator,
        token_column=token_column,
        label_column=label_column,
        comment=comment,
        encoding=encoding,
    )


def conllu(label="upos"):
    return ConlluReader(format="conllu", label=label, encoding="utf-8")


def jsonl(encoding="utf-8", **columns):
    return JsonLinesReader(format="jsonl", columns=columns, encoding=encoding)


def json_array(array=None, encoding="utf-8", **columns):
    return JsonReader(format="json", array=array, columns=columns, encoding=encoding)


def parquet(**columns):
    return ParquetReader(format="parquet", columns=columns)


def read(root, reader, **files):
    """Write the files (bytes, or text as UTF-8), read them in the order given."""
    for name, content in files.items():
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(readers.read(root, [root / name for name in files], reader))


def about(record):
    return {key: value for key, value in record.values.items() if key not in ("tokens", "labels")}


def sentences(records):
    return [(record.values["tokens"], record.values["labels"]) for record in records]


TWO = [(["EU", "rejects"], ["B-ORG", "O"]), (["Rome"], ["B-LOC"])]


@pytest.mark.parametrize(
    "content",
    [
        "EU B-ORG\nrejects O\n\nRome B-LOC\n",
        "EU B-ORG\nrejects O\n\nRome B-LOC",
        "EU B-ORG\r\nrejects O\r\n\r\nRome B-LOC\r\n",
        "\ufeffEU B-ORG\nrejects O\n\nRome B-LOC\n\n\n",
        "\n\nEU\t NNP \tB-ORG\n rejects VBZ O \n \t \n\nRome NNP B-LOC\n",
        "-DOCSTART- -X- O\n\nEU B-ORG\nrejects O\n\n-DOCSTART- -X- O\n\nRome B-LOC\n",
        "-DOCSTART- O\nEU B-ORG\nrejects O\n-DOCSTART- O\nRome B-LOC\n",
    ],
    ids=["plain", "no end", "crlf", "bom", "runs of blanks", "docstart", "docstart without blank lines"],
)
def test_conll_reads_the_same_sentences_from_any_encoding(tmp_path, content):
    assert sentences(read(tmp_path, conll(), a=content)) == TWO


@pytest.mark.parametrize(
    ("reader", "line", "expected"),
    [
        (conll("\t", 0, 1), "New York\tB-LOC", ("New York", "B-LOC")),
        (conll("\t", 0, 1), "\tO", ("", "O")),
        (conll(" ", 0, 3), "EU NNP I-NP I-ORG", ("EU", "I-ORG")),
        (conll(" ", 1, 0), "I-ORG EU NNP", ("EU", "I-ORG")),
        (conll(None, -3, -1), "1 EU NNP I-ORG", ("EU", "I-ORG")),
        (conll("|||", 0, 1), "EU|||I-ORG", ("EU", "I-ORG")),
        (conll(), "10\u00a0000 O", ("10\u00a0000", "O")),
        (conll(), "a\u2028b\u0085c\x1cd O", ("a\u2028b\u0085c\x1cd", "O")),
    ],
)
def test_conll_takes_the_columns_that_the_recipe_names(tmp_path, reader, line, expected):
    assert sentences(read(tmp_path, reader, a=line + "\n")) == [([expected[0]], [expected[1]])]


def test_conll_comments_are_left_out_only_with_a_declared_prefix(tmp_path):
    content = "# newdoc\n\n# text = a tweet\n#tag O\nx O\n"
    assert sentences(read(tmp_path, conll(comment="# "), a=content)) == [([], []), (["#tag", "x"], ["O", "O"])]
    with pytest.raises(UserError, match=r"^a:1: token_column and label_column are the same of 1 columns"):
        read(tmp_path, conll(token_column=-1), a="x\n")


def test_comments_stand_before_the_first_token_of_a_sentence(tmp_path):
    content = "# sent_id = 1\n# text = The # 1\nThe O\n# O\n1 B-RANK\n\n#a O\n#b O\n\nRome B-LOC\n"
    assert sentences(read(tmp_path, conll(comment="#"), a=content)) == [
        (["The", "#", "1"], ["O", "O", "B-RANK"]),
        ([], []),
        (["Rome"], ["B-LOC"]),
    ]


def test_what_comments_say_are_columns_of_their_sentence(tmp_path):
    content = "# id 7f2\tdomain=en\nThe O\n\n# genre = news = old\n# a remark\n#=\nRome B-LOC\n\nEU B-ORG\n"
    records = read(tmp_path, conll(comment="#"), a=content)
    assert [about(record) for record in records] == [{"domain": "en"}, {"genre": "news = old"}, {}]


def test_a_lone_tab_parts_sentences_as_in_wnut(tmp_path):
    assert sentences(read(tmp_path, conll("\t", 0, 1), a="EU\tB-ORG\nrejects\tO\n\t\nRome\tB-LOC\n\t\n")) == TWO


def test_numbering_continues_over_files_with_relative_places(tmp_path):
    (tmp_path / "deep").mkdir()
    records = read(tmp_path, conll(), **{"deep/a": "x O\n\n\ny O\n", "b": "z O\n"})
    assert [(record.id, record.where) for record in records] == [("0", "deep/a:1"), ("1", "deep/a:4"), ("2", "b:1")]


@pytest.mark.parametrize(
    ("reader", "content", "message"),
    [
        (conll(label_column=3), "EU NNP O O\nx O\n", "a:2: 2 columns, label_column 3 needs at least 4: 'x O'"),
        (conll(label_column=1), "x\n", "a:1: 1 column, label_column 1 needs at least 2: 'x'"),
        (conll(token_column=-3), "x O\n", "a:1: 2 columns, token_column -3 needs at least 3: 'x O'"),
        (conll("\t", 0, 1), "x O\n", "a:1: 1 column, label_column 1 needs at least 2: 'x O'"),
        (
            conll(),
            "x O\nNew York B-LOC\n",
            "a:2: 3 columns, and the first line has 2: 'New York B-LOC'; ",
        ),
        (conll(encoding="klingon"), "x O\n", "reader.encoding: Python knows no encoding 'klingon'"),
        (
            conll(),
            b"a O\n\xe9 O\n",
            "a: the byte 0xe9 at offset 4 is not utf-8; expected text in that encoding; a recipe may name another as",
        ),
        (conll(encoding="ascii"), "a O\nü O\n", "a: the byte 0xc3 at offset 4 is not ascii"),
        (conll(), b"a O\n\xe2\x82", "a: the byte 0xe2 at offset 4 is not utf-8"),
        (
            conll(encoding="utf-16"),
            b"a O\n",
            "a: not utf-16: it has no byte order mark; expected text in that encoding",
        ),
        (conllu(), "1\tx\n", "a:1: 2 columns; CoNLL-U has 10, with tabs between them"),
        (
            conll("\t", 1, 3, comment="#"),
            "# text = al\n1-2\tal" + "\t_" * 8 + "\n",
            "a:2: 1-2 is no word but a range or an empty node of CoNLL-U; expected reader.format: conllu, or a file",
        ),
        (conll(None, 1, 3), "1.1 x" + " _" * 8 + "\n", "a:1: 1.1 is no word but a range or an empty node of CoNLL-U"),
        (
            jsonl(text="t"),
            '{"t": "x"}\n{"t": \n',
            "a:2: not JSON: it breaks off, column 7; expected one object per line",
        ),
        (jsonl(text="t"), '["x"]\n', "a:1: a JSON array; expected one JSON object per line, or reader.format: json"),
        (jsonl(text="t"), '{"text": 1, "id": 2}\n', "a:1: no key 't'; the keys there are 'text', 'id'"),
        (jsonl(text="t"), '{"t": ["\\ud83d"]}\n', r"a:1: a lone surrogate such as \ud83d; expected text"),
        (jsonl(id="i", text="t"), '{"t": "x", "i": null}\n', "a:1: the id is None; expected a string or a whole"),
        (jsonl(id="i"), '{"i": 7}\n{"i": "7"}\n', "a:2: the id '7' occurs a second time here"),
        (
            jsonl(text="t"),
            "{'t': 'x'}\n",
            "a:1: not JSON: no key in double quotes, column 2; expected one object per line",
        ),
        (
            json_array(text="t"),
            '{"t": 1}\n{"t": 2}\n',
            "a:2: not JSON: more text after the end of the value, column 1; exp",
        ),
        (json_array(text="t"), "", "a:1: not JSON: there is nothing in it; expected one value"),
        (parquet(text="t"), "PAR1", "a: not a Parquet file, or only a part of one; expected PAR1 at both ends"),
        (parquet(text="t"), "PAR1" + "x" * 90 + "PAR1", "a: not a Parquet file, or only a part of one; expected"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path, reader, content, message):
    with pytest.raises(UserError) as error:
        read(tmp_path, reader, a=content)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32", "latin-1", "cp1252"])
def test_other_encodings_read_as_what_was_written(tmp_path, encoding):
    content = "Müller B-PER\r\nà O\r\n\r\nRome B-LOC".encode(encoding)
    records = read(tmp_path, conll(encoding=encoding), a=content)
    assert sentences(records) == [(["Müller", "à"], ["B-PER", "O"]), (["Rome"], ["B-LOC"])]


@pytest.mark.parametrize("declared", ["utf-8", "latin-1", "utf-16-be", "ascii"])
@pytest.mark.parametrize("written", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_a_byte_order_mark_overrides_the_declared_encoding(tmp_path, declared, written):
    content = ("" if written in ("utf-8-sig", "utf-16") else "\ufeff") + "Müller B-PER\r\nà O\r\n"
    records = read(tmp_path, conll(encoding=declared), a=content.encode(written))
    assert sentences(records) == [(["Müller", "à"], ["B-PER", "O"])]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "x O\n".encode("utf-16-le"),
            "a: NULs between the letters, as in UTF-16, and it is read as utf-8; expected reader",
        ),
        (
            "x O\n".encode("utf-16-be"),
            "a: NULs between the letters, as in UTF-16, and it is read as utf-8; expected reader",
        ),
        (b"\x1f\x8b\x08\x00", "a: a gzip archive; unpack it, or name it in a source of kind: archive or url"),
        (b"PK\x03\x04", "a: a zip archive, or a file of an office program; unpack it, or name it in a source of kind"),
        ("x O\r" * 300_000 + "y O\n", "a: the first lines end with \\r alone, and later ones with \\n; expected one"),
        ("\ufeff€".encode("utf-16-le")[:-1], "a: the byte 0xac at offset 2 is not utf-16-le"),
    ],
)
def test_what_is_no_text_or_mixes_line_ends_is_refused(tmp_path, content, message):
    with pytest.raises(UserError) as error:
        read(tmp_path, conll(), a=content)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("content", ["EU B-ORG\rrejects O\r\rRome B-LOC\r", "EU B-ORG\rrejects O\r\rRome B-LOC"])
def test_carriage_returns_end_lines_where_there_are_no_others(tmp_path, content):
    records = read(tmp_path, conll(), a=content)
    assert sentences(records) == TWO
    assert [record.where for record in records] == ["a:1", "a:4"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(st.text("aü€😀\u2028", min_size=1), min_size=1), st.integers(1, 7))
def test_lines_do_not_depend_on_where_chunks_of_the_file_end(tmp_path, lines, chunk):
    path = tmp_path / "a"
    path.write_bytes("\n".join(lines).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raw, "CHUNK_BYTES", chunk)
        assert list(raw.lines(path, "a", "utf-8")) == list(enumerate(lines, start=1))
        path.write_bytes("\n".join(lines).encode() + b"\xff")
        with pytest.raises(UserError, match=f"0xff at offset {len(chr(10).join(lines).encode())} is"):
            list(raw.lines(path, "a", "utf-8"))


CONLLU = """# newdoc id = n01
# sent_id = n01-1
# text = vámonos al mar
1-2	vámonos	_	_	_	_	_	_	_	_
1	vamos	ir	VERB	V	_	0	root	_	_
2	nos	nosotros	PRON	P	_	1	obj	_	_
3-4	al	_	_	_	_	_	_	_	_
3	a	a	ADP	E	_	5	case	_	_
4	el	el	DET	D	_	5	det	_	_
5	mar	mar	NOUN	N	_	1	obl	_	_
5.1	ya	ya	ADV	_	_	_	_	_	_

# text = 10 000 sí
1	10 000	10000	NUM	Z	_	2	nummod	_	_
2	sí	sí	INTJ	I	_	0	root	_	_
"""


@pytest.mark.parametrize(
    ("label", "first", "second"),
    [
        ("upos", ["VERB", "PRON", "ADP", "DET", "NOUN"], ["NUM", "INTJ"]),
        ("xpos", ["V", "P", "E", "D", "N"], ["Z", "I"]),
        ("deprel", ["root", "obj", "case", "det", "obl"], ["nummod", "root"]),
    ],
)
def test_conllu_reads_words_without_ranges_and_empty_nodes(tmp_path, label, first, second):
    records = read(tmp_path, conllu(label), a=CONLLU)
    assert sentences(records) == [(["vamos", "nos", "a", "el", "mar"], first), (["10 000", "sí"], second)]
    assert [(record.id, record.where) for record in records] == [("n01-1", "a:1"), ("a:13", "a:13")]


def test_metadata_before_a_conllu_document_is_in_its_sentences(tmp_path):
    word = "1\tw\t_\tX" + "\t_" * 6 + "\n\n"
    first = "# newdoc id = d1\n# meta::genre = news\n# year = 1999\n# sent_id = a\n# text = w\n" + word
    content = first + "# sent_id = b\n# newpar\n# year = 2000\n" + word + "# newdoc\n# sent_id = c\n" + word
    assert [about(record) for record in read(tmp_path, conllu(), a=content)] == [
        {"newdoc": "d1", "genre": "news", "year": "1999"},
        {"newdoc": "d1", "genre": "news", "year": "2000", "newpar": ""},
        {"newdoc": ""},
    ]


def test_conllu_without_any_sent_id_has_running_numbers(tmp_path):
    content = CONLLU.replace("# sent_id = n01-1\n", "")
    assert [record.id for record in read(tmp_path, conllu(), a=content)] == ["0", "1"]


@pytest.mark.parametrize("given", ["1.0", "", "3 ", "0", "01", "１", "1-", "a", "1-2-3"])
def test_conllu_refuses_an_id_of_no_word_range_or_empty_node(tmp_path, given):
    line = "\t".join([given, "w", "_", "NOUN", *"_" * 6])
    with pytest.raises(UserError) as error:
        read(tmp_path, conllu(), a=CONLLU + line + "\n")
    assert str(error.value).startswith(f"a:16: the id is {given!r}; expected a word's as 1, a range's as 1-2 or")


def test_conllu_sentences_without_words_are_counted(tmp_path):
    rest = "\t_" * 8
    content = f"# sent_id = a\n1-2\tal{rest}\n0.1\tx{rest}\n\n# sent_id = b\n\n# sent_id = c\n1\tw{rest}\n"
    records = read(tmp_path, conllu(), a=content)
    assert [(record.id, record.values["tokens"]) for record in records] == [("a", []), ("b", []), ("c", ["w"])]


def test_repeated_ids_get_file_names_or_are_refused_in_one_file(tmp_path):
    for name in "ab":
        (tmp_path / name).write_text(CONLLU)
    renamed: set[str] = set()
    records = readers.read(tmp_path, [tmp_path / "a", tmp_path / "b"], conllu(), renamed)
    assert [record.id for record in records] == ["n01-1", "a:13", "b:n01-1", "b:13"]  # the second has none
    assert renamed == {"b:n01-1"}
    with pytest.raises(
        UserError, match=r"^a:\d+: the id 'n01-1' occurs a second time here; expected unique ids within a"
    ):
        read(tmp_path, conllu(), a=CONLLU + "\n" + CONLLU)
    # What the new id would be is taken.
    lines = {"a": '{"i": "1"}', "b": '{"i": "c:1"}', "c": '{"i": "1"}'}
    with pytest.raises(UserError, match=r"^c:1: the id '1' occurs a second time here"):
        read(tmp_path, jsonl(id="i"), **lines)


def test_running_numbers_count_over_all_files(tmp_path):
    records = read(tmp_path, jsonl(text="t"), a='{"t": "x"}\n{"t": "y"}', b='{"t": "z"}')
    assert [record.id for record in records] == ["0", "1", "2"]


def test_jsonl_gives_the_columns_that_the_recipe_names(tmp_path):
    content = '{"i": 3, "words": ["a", "b\\u00e9"], "tags": ["O", "B-X"], "more": {}}\n\n{"words":[],"tags":[],"i":"x"}'
    records = read(tmp_path, jsonl(id="i", tokens="words", labels="tags"), a=content)
    assert records == [
        ("3", "a:1", {"tokens": ["a", "bé"], "labels": ["O", "B-X"]}),
        ("x", "a:3", {"tokens": [], "labels": []}),
    ]
    assert read(tmp_path, jsonl(text="more"), b='{"more": "\\ud83d\\ude00"}\r\n') == [("0", "b:1", {"text": "😀"})]


def test_parquet_gives_the_columns_of_all_row_groups_in_order(tmp_path):
    table = pa.table({"i": range(2500), "w": [[str(n)] for n in range(2500)], "more": [0] * 2500})
    pq.write_table(table, tmp_path / "train", row_group_size=700)
    records = list(readers.read(tmp_path, [tmp_path / "train"], parquet(id="i", tokens="w")))
    assert records == [(str(n), f"train, row {n}", {"tokens": [str(n)]}) for n in range(2500)]


def test_parquet_names_the_columns_there_where_one_is_missing(tmp_path):
    pq.write_table(pa.table({"id": ["0"], "words": [["a"]]}), tmp_path / "train")
    with pytest.raises(UserError, match=r"^train: no column 'tokens'; the columns there are 'id', 'words'$"):
        list(readers.read(tmp_path, [tmp_path / "train"], parquet(tokens="tokens")))


def test_parquet_that_is_damaged_behind_its_footer_is_told(tmp_path):
    pq.write_table(pa.table({"a": ["x" * 100] * 100}), tmp_path / "a.parquet", compression="none", use_dictionary=False)
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[4:60] = b"\xff" * 56  # the first page's header
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(UserError, match=r"^a.parquet: damaged Parquet; expected the file as it was written"):
        list(readers.read(tmp_path, [tmp_path / "a.parquet"], parquet(text="a")))


def test_json_nested_too_deeply_is_told_with_its_line(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n' + '{"a":' * 200_000 + "1" + "}" * 200_000 + "\n")
    with pytest.raises(UserError, match=r"^a.jsonl:2: JSON nested too deeply"):
        list(readers.read(tmp_path, [tmp_path / "a.jsonl"], jsonl(text="text")))


def test_blanks_behind_a_label_make_no_other_label(tmp_path):
    (tmp_path / "a.txt").write_text("foo\tB-PER \nbar\tO\n")
    (record,) = readers.read(tmp_path, [tmp_path / "a.txt"], conll(separator="\t"))
    assert record.values["labels"] == ["B-PER", "O"]


def test_class_labels_of_datasets_are_read_as_names(tmp_path):
    import datasets

    names = datasets.ClassLabel(names=["O", "B-X", "I-X"])
    rows = {"tags": [[1, 2], []], "many": [[0], [2]], "one": [2, None], "n": [7, 8]}
    features = datasets.Features(
        tags=datasets.List(names), many=datasets.LargeList(names), one=names, n=datasets.Value("int64")
    )
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train")
    records = list(readers.read(tmp_path, [tmp_path / "train"], parquet(labels="tags", many="many", one="one", n="n")))
    assert [record.values for record in records] == [
        {"labels": ["B-X", "I-X"], "many": ["O"], "one": "I-X", "n": 7},
        {"labels": [], "many": ["I-X"], "one": None, "n": 8},
    ]


@pytest.mark.parametrize(
    "feature",
    [
        {"feature": {"names": ["a", "b"], "_type": "ClassLabel"}, "length": -1, "_type": "Sequence"},
        [{"num_classes": 2, "names": ["a", "b"], "_type": "ClassLabel"}],
    ],
    ids=["datasets 2 and 3", "lists of datasets 2"],
)
def test_class_labels_of_earlier_datasets_are_read_too(tmp_path, feature):
    metadata = {"huggingface": json.dumps({"info": {"features": {"y": feature}}})}

    def write(values):
        pq.write_table(pa.table({"y": [values]}).replace_schema_metadata(metadata), tmp_path / "train")
        return list(readers.read(tmp_path, [tmp_path / "train"], parquet(labels="y")))

    assert write([1, 0])[0].values == {"labels": ["b", "a"]}
    for unknown in (-1, 2):
        with pytest.raises(UserError, match=f"^train, row 0: y holds {unknown}; its ClassLabel names 0 to 1$"):
            write([0, unknown])


KLUE = [
    {"guid": "a", "first": "A", "second": "B", "labels": {"real-label": 0.5, "x.y": {"z": "n"}}},
    {"guid": "b", "first": "C", "second": None, "labels": None},
]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("array", [None, "data", "data.rows"])
def test_one_array_of_objects_is_read_with_columns_by_path(tmp_path, array, indent):
    content = {None: KLUE, "data": {"data": KLUE}, "data.rows": {"data": {"rows": KLUE}}}[array]
    reader = json_array(array, id="guid", score="labels.real-label", text=["first", "second"])
    assert read(tmp_path, reader, a=json.dumps(content, indent=indent)) == [
        ("a", "a, item 0", {"score": 0.5, "text": "A B"}),
        ("b", "a, item 1", {"score": None, "text": "C"}),
    ]


def test_json_lines_and_parquet_have_columns_by_path_too(tmp_path):
    rows = [{"a.b": "whole", "a": {"b": "inside", "c": {"d": ["x"]}}}]
    expected = [{"whole": "whole", "deep": ["x"], "joined": "whole plain"}]
    columns = {"whole": "a.b", "deep": "a.c.d", "joined": ["a.b", "p.q"]}
    rows[0]["p"] = {"q": "plain", "r": 1}
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    assert [record.values for record in read(tmp_path, jsonl(**columns), a=lines)] == expected
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "b")
    records = list(readers.read(tmp_path, [tmp_path / "b"], parquet(**columns)))
    assert [record.values for record in records] == expected


def test_class_labels_in_a_struct_are_read_as_their_names(tmp_path):
    import datasets

    inner = {"y": datasets.ClassLabel(names=["no", "yes"]), "n": datasets.Value("int64")}
    datasets.disable_progress_bars()
    rows = {"labels": [{"y": 1, "n": 1}, {"y": 0, "n": 1}, None]}
    datasets.Dataset.from_dict(rows, features=datasets.Features(labels=inner)).to_parquet(tmp_path / "train")
    records = readers.read(tmp_path, [tmp_path / "train"], parquet(label="labels.y", n="labels.n"))
    assert [record.values for record in records][:2] == [{"label": "yes", "n": 1}, {"label": "no", "n": 1}]


@pytest.mark.parametrize(
    ("reader", "content", "message"),
    [
        (json_array(text="t"), '{"data": []}', "a: an object with the keys 'data'; reader.array names the path of an"),
        (json_array("data", text="t"), "[]", "a: an array; expected an object with the array at 'data'"),
        (json_array("data", text="t"), '{"rows": 1}', "a: no key 'data'; the keys there are 'rows'"),
        (json_array("data", text="t"), '{"data": 1}', "a: 1; expected an array of objects"),
        (json_array(text="t"), '[{"t": "x"}, "x"]', "a, item 1: 'x'; expected an object"),
        (json_array(text="t"), '[{"t": "x"}, {"u": 1}]', "a, item 1: no key 't'; the keys there are 'u'"),
        (json_array(text="t.u"), '[{"t": {"v": 1}}]', "a, item 0: no key 'u' in 't'; the keys there are 'v'"),
        (json_array(text="t.u"), '[{"t": "x"}]', "a, item 0: 'x' in 't'; expected an object with the key 'u'"),
        (
            json_array(text=["t", "u"]),
            '[{"t": "x", "u": 1}]',
            "a, item 0: 1 is not a string; expected strings to join as",
        ),
        (json_array(text="t"), '[{"t": "x"},\n]', "a:2: not JSON: "),
        (json_array(text="t"), "[" * 200_000, "a: JSON nested too deeply"),
        (
            json_array(text="t"),
            b'[{"t": "\xff"}]',
            "a: the byte 0xff at offset 8 is not utf-8; expected text in that",
        ),
        (
            jsonl(text="t"),
            '\n[\n {"t": "x"}\n]',
            "a:2: a JSON array; expected one JSON object per line, or reader.format",
        ),
    ],
)
def test_an_unexpected_array_is_refused_with_its_place(tmp_path, reader, content, message):
    with pytest.raises(UserError) as error:
        read(tmp_path, reader, a=content)
    assert str(error.value).startswith(message)


def test_parquet_names_the_fields_of_a_struct_on_a_miss(tmp_path):
    pq.write_table(pa.table({"a": [{"b": 1}]}), tmp_path / "train")
    with pytest.raises(UserError, match=r"^train: no column 'c' in 'a'; the columns there are 'b'$"):
        list(readers.read(tmp_path, [tmp_path / "train"], parquet(text="a.c")))
    with pytest.raises(UserError, match=r"^train: no column 'c' in 'b'; the columns there are none$"):
        list(readers.read(tmp_path, [tmp_path / "train"], parquet(text="a.b.c")))


def counts_of(corpus, name):
    """Return sentences, tokens and tags as the corpus' own SOURCE.txt counts them."""
    source = real(f"{corpus}/{name}").with_name("SOURCE.txt").read_text(encoding="utf-8")
    line = re.search(rf"^  {re.escape(name)}: .*?([\d,]+) sentences, ([\d,]+) tokens, .*tags (.*)$", source, re.M)
    assert line
    tags = {tag: int(count) for tag, count in (pair.rsplit(":", 1) for pair in line[3].split())}
    return int(line[1].replace(",", "")), int(line[2].replace(",", "")), tags


# Chunks: of CoNLL-2003, Tjong Kim Sang and De Meulder 2003, table 2; of the others, the files' B- tags and repairs.
@pytest.mark.parametrize(
    ("corpus", "name", "scheme", "repaired", "chunks"),
    [
        ("conll2003", "eng.train", "iob1", 2, {"LOC": 7140, "MISC": 3438, "ORG": 6321, "PER": 6600}),
        ("conll2003", "eng.testa", "iob1", 0, {"LOC": 1837, "MISC": 922, "ORG": 1341, "PER": 1842}),
        ("conll2003", "eng.testb", "iob1", 0, {"LOC": 1668, "MISC": 702, "ORG": 1661, "PER": 1617}),
        ("conll2000", "train.txt", "iob2", 0, None),
        ("conll2000", "test.txt", "iob2", 0, None),
        ("conll2002", "esp.train", "iob2", 1, {"LOC": 4914, "MISC": 2173, "ORG": 7390, "PER": 4321}),
        ("conll2002", "ned.train", "iob2", 0, None),
        ("conll2002", "ned.testa", "iob2", 0, None),
    ],
)
def test_real_corpora_have_their_published_sentences_and_chunks(corpus, name, scheme, repaired, chunks):
    n_sentences, n_tokens, tags = counts_of(corpus, name)
    root = CORPORA / corpus
    records = list(readers.read(root, [root / name], conll()))
    assert len(records) == n_sentences
    assert sum(len(record.values["tokens"]) for record in records) == n_tokens
    assert Counter(label for record in records for label in record.values["labels"]) == tags
    normalised = [to_iob2(record.values["labels"], scheme) for record in records]
    assert sum(len(impossible) for _, impossible in normalised) == repaired
    begun = Counter(label[2:] for labels, _ in normalised for label in labels if label.startswith("B-"))
    assert begun == (chunks or {tag[2:]: count for tag, count in tags.items() if tag.startswith("B-")})


def test_the_encoding_of_a_real_corpus_is_not_guessed():
    counts_of("conll2002", "esp.testb")
    root = CORPORA / "conll2002"
    with pytest.raises(UserError, match=r"^esp.testb: the byte 0xc3 at offset \d+ is not ascii"):
        list(readers.read(root, [root / "esp.testb"], conll(encoding="ascii")))
    words = {word for record in readers.read(root, [root / "esp.testb"], conll()) for word in record.values["tokens"]}
    assert "Coruña" in words
