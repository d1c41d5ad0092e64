"""Files of classification: CSV, JSON Lines, JSON, Parquet and plain text."""

import pyarrow as pa

from catalogue.case import Case, Changes, Content, lines, packed, parquet

GOOD = b"text,label\n" + b"".join(b"a text number %d,%s\n" % (n, b"xy"[n % 2 : n % 2 + 1]) for n in range(20))
CSV = {
    "format": "csv",
    "columns": {"text": "text", "label": "label"},
    "delimiter": ",",
    "quoting": "minimal",
    "encoding": "utf-8",
}
JSONL = {"format": "jsonl", "columns": {"text": "text", "label": "label"}, "encoding": "utf-8"}
JSON = {"format": "json", "array": None, "columns": {"text": "text", "label": "label"}, "encoding": "utf-8"}
PARQUET = {"format": "parquet", "columns": {"text": "text", "label": "label"}}
TEXT = {"format": "text", "unit": "line", "columns": {"text": "text", "label": "stem"}, "encoding": "utf-8"}
BLOCK = 1 << 20


def of(file: str, content: Content, reader: Changes, **changes: object) -> tuple[dict[str, Content], Changes]:
    """A corpus of one file, from which validation and test are drawn."""
    keys = {key.replace("__", "."): value for key, value in changes.items()}
    return {file: content}, {"corpus.reader": reader, "corpus.splits.train": file} | keys


def csv(content: Content, **changes: object) -> tuple[dict[str, Content], Changes]:
    return of("a.csv", content, CSV, **changes)


def rows(*given: object) -> list[object]:
    """Objects, followed by enough valid ones."""
    return [*given, *({"text": f"a text number {n}", "label": "xy"[n % 2]} for n in range(20))]


def jsonl(*given: object) -> tuple[dict[str, Content], Changes]:
    return of("a.jsonl", lines(*rows(*given)), JSONL)


def json_array(content: bytes, **changes: object) -> tuple[dict[str, Content], Changes]:
    return of("a.json", content, JSON | changes)


def table(columns: object, metadata: dict[str, str] | None = None) -> tuple[dict[str, Content], Changes]:
    return of("a.parquet", parquet(columns, metadata), PARQUET)  # type: ignore[arg-type]


TWENTY = {"text": [f"a text number {n}" for n in range(20)], "label": ["x", "y"] * 10}
NUMBERED = {"text": TWENTY["text"], "label": [0, 1] * 10}
TWO_OF_A_NAME = pa.Table.from_arrays(
    [pa.array(TWENTY["text"])] * 2 + [pa.array(TWENTY["label"])], ["text", "text", "label"]
)
TWO_FIELDS_OF_A_NAME = pa.StructArray.from_arrays([pa.array(TWENTY["text"])] * 2, ["a", "a"])


SCORES = JSONL | {"columns": {"text": "text", "score": "score"}}
SCORED = {
    "corpus__problem": "regression",
    "train__best_metric": "spearman",
    "evaluate__pool": "mean",
    "evaluate__positive_label": None,
}
RANKED = JSONL | {"columns": {"text": "text", "text_pair": "text", "score": "score", "candidate": "candidate"}}


def scored(score: object) -> list[object]:
    """Objects with scores, of which the first one has this."""
    return [{"text": f"a text number {n}", "score": n if n else score} for n in range(20)]


def judged(relevance: int) -> list[object]:
    """Pairs of a query and a document, judged so."""
    found = {"query": "q", "document": "d", "score": 1, "judged": [{"id": "d", "relevance": relevance}]}
    return [{"text": f"a text number {n}", "score": n, "candidate": found} for n in range(20)]


def features(text: str) -> dict[str, str]:
    """The metadata in which datasets keeps what its columns are."""
    return {"huggingface": text}


CASES = [
    Case(
        "csv: an empty file",
        *csv(b""),
        says="a.csv: an empty file; expected a row for each example, in most files below a header line",
    ),
    Case(
        "csv: a header alone",
        *csv(b"text,label\n"),
        says="splits.validation: too few examples (0) in train's file to give this split any",
    ),
    Case(
        "csv: one example",
        *csv(b"text,label\na,x\n"),
        says="splits.validation: too few examples (1) in train's file to give this split any",
    ),
    Case(
        "csv: two examples",
        *csv(b"text,label\na,x\nb,y\n"),
        says="splits.validation: too few examples (2) in train's file to give this split any",
    ),
    Case(
        "csv: one class",
        *csv(GOOD.replace(b",y\n", b",x\n")),
        says="warning: train: all texts have one label, x: there is nothing to learn",
        ends_well=True,
    ),
    Case(
        "csv: no column of that name",
        *csv(GOOD.replace(b"text,label", b"Text,label", 1)),
        says="a.csv:1: no column 'text'; the columns there are 'Text', 'label'",
    ),
    Case(
        "csv: no header line",
        *csv(GOOD.split(b"\n", 1)[1]),
        says="a.csv:1: no column 'text'; the columns there are 'a text number 0', 'x'",
    ),
    Case(
        "csv: the same column twice",
        *csv(GOOD.replace(b"text,label", b"text,text", 1)),
        says="a.csv:1: more than one column 'text'; the columns there are 'text', 'text'",
    ),
    Case(
        "csv: another delimiter",
        *csv(GOOD.replace(b",", b";")),
        says="a.csv:1: no column 'text'; the columns there are 'text;label'",
    ),
    Case(
        "csv: a field more",
        *csv(GOOD + b"b,x,y\n"),
        says="a.csv:22: 3 fields; expected 2 as in the header, or reader.quoting: none if quotes are text",
    ),
    Case(
        "csv: a field less",
        *csv(GOOD + b"b\n"),
        says="a.csv:22: 1 fields; expected 2 as in the header, or reader.quoting: none if quotes are text",
    ),
    Case(
        "csv: a quote that is not closed",
        *csv(GOOD + b'"b,x\n'),
        says="a.csv:22: not CSV: a field in quotes never ends; expected its quote before the delimiter, quotes in it doubled; or reade",
    ),
    Case(
        "csv: text after a closing quote",
        *csv(GOOD + b'"b"c,x\n'),
        says="a.csv:22: not CSV: a field in quotes does not end where it should, in line 22; expected its quote before the delimiter, ",
    ),
    Case("csv: NUL", *csv(GOOD + b"b\0c,x\n"), says="train 13 texts, 2 labels: x 61.5%, y 38.5%", ends_well=True),
    Case(
        "csv: a NUL in each second byte",
        *csv(GOOD.decode().encode("utf-16-le")),
        says="a.csv: NULs between the letters, as in UTF-16, and it is read as utf-8; expected reader.encoding: utf-16-le or utf-16-be",
    ),
    Case(
        "csv: UTF-16 with a mark",
        *csv(GOOD.decode().encode("utf-16")),
        says="train 12 texts, 2 labels: x 66.7%, y 33.3%",
        ends_well=True,
    ),
    Case(
        "csv: latin-1 read as UTF-8",
        *csv(GOOD + b"caf\xe9,x\n"),
        says="a.csv: the byte 0xe9 at offset 384 is not utf-8; expected text in that encoding; a recipe may name another as reader.enc",
    ),
    Case(
        "csv: an unknown encoding",
        *csv(GOOD, corpus__reader=CSV | {"encoding": "utf-9"}),
        says="reader.encoding: Python knows no encoding 'utf-9'; expected such as utf-8",
    ),
    Case(
        "csv: an encoding of bytes",
        *csv(GOOD, corpus__reader=CSV | {"encoding": "base64"}),
        says="reader.encoding: Python knows no encoding 'base64'; expected such as utf-8",
    ),
    Case(
        "csv: the encoding idna",
        *csv(GOOD, corpus__reader=CSV | {"encoding": "idna"}),
        says="reader.encoding: Python knows no encoding 'idna'; expected such as utf-8",
    ),
    Case(
        "csv: the encoding punycode",
        *csv(GOOD, corpus__reader=CSV | {"encoding": "punycode"}),
        says="reader.encoding: Python knows no encoding 'punycode'; expected such as utf-8",
    ),
    Case(
        "csv: the encoding unicode_escape",
        *csv(GOOD, corpus__reader=CSV | {"encoding": "unicode_escape"}),
        says="reader.encoding: Python knows no encoding 'unicode_escape'; expected such as utf-8",
    ),
    Case(
        "csv: the encoding undefined",
        *csv(GOOD, corpus__reader=CSV | {"encoding": "undefined"}),
        says="reader.encoding: Python knows no encoding 'undefined'; expected such as utf-8",
    ),
    Case(
        "csv: an encoding with a NUL",
        *csv(GOOD, corpus__reader=CSV | {"encoding": "utf\0"}),
        says="reader.encoding: Python knows no encoding 'utf\\x00'; expected such as utf-8",
    ),
    Case(
        "csv: a line of 10 MB",
        *csv(GOOD + b"w " * (5 * BLOCK) + b",x\n"),
        says="train 13 texts, 2 labels: x 61.5%, y 38.5%",
        ends_well=True,
    ),
    Case(
        "csv: 100,000 columns",
        *csv(b"text,label" + b",c" * 100_000 + b"\n"),
        says="splits.validation: too few examples (0) in train's file to give this split any",
    ),
    Case(
        "csv: lone carriage returns",
        *csv(GOOD.replace(b"\n", b"\r")),
        says="train 12 texts, 2 labels: x 66.7%, y 33.3%",
        ends_well=True,
    ),
    Case(
        "csv: no text in a row",
        *csv(GOOD + b",x\n"),
        says="warning: validation: examples without text, left out: 1",
        ends_well=True,
    ),
    Case(
        "csv: white space as a text",
        *csv(GOOD + b" \t ,x\n"),
        says="warning: validation: examples without text, left out: 1",
        ends_well=True,
    ),
    Case(
        "csv: no label in a row",
        *csv(GOOD + b"b,\n"),
        says="a.csv:22: example '20': the label is ''; expected a name or a whole number",
    ),
    Case(
        "csv: labels that differ in blanks",
        *csv(GOOD + b"b,x \n"),
        says="warning: labels that differ in blanks, case or Unicode form alone: 'x' (10), 'x ' (1)",
        ends_well=True,
    ),
    Case(
        "csv: labels that differ in case",
        *csv(GOOD + b"b,X\n"),
        says="warning: labels that differ in blanks, case or Unicode form alone: 'X' (1), 'x' (10)",
        ends_well=True,
    ),
    Case(
        "csv: right-to-left marks around a label",
        *csv(GOOD + "b,\u202bx\u202c\n".encode()),
        says="warning: labels that differ in blanks, case or Unicode form alone: 'x' (10), '\\u202bx\\u202c' (1)",
        ends_well=True,
    ),
    Case(
        "csv: labels that differ in Unicode form",
        *csv(GOOD + "b,é\nc,e\u0301\n".encode()),
        says="warning: labels that differ in blanks, case or Unicode form alone: 'e\\u0301' (1), '\\xe9' (1)",
        ends_well=True,
    ),
    Case(
        "csv: gzip under another name",
        *csv(packed(GOOD)),
        says="a.csv: a gzip archive; unpack it, or name it in a source of kind: archive or url",
    ),
    Case(
        "csv: an office file",
        *csv(b"PK\x03\x04" + b"x" * 100),
        says="a.csv: a zip archive, or a file of an office program; unpack it, or name it in a source of kind: archive or url",
    ),
    Case(
        "csv: column numbers beyond the row",
        *csv(GOOD, corpus__reader=CSV | {"columns": {"text": 0, "label": 7}}),
        says="a.csv:1: no column 7; expected numbers from 0 to 1, or from -1 to -2 from the end, for there are 2 columns: 'text', 'lab",
    ),
    Case(
        "csv: names and numbers of columns",
        *csv(GOOD, corpus__reader=CSV | {"columns": {"text": "text", "label": 1}}),
        says="recipes/text_classification/toy.yaml: corpus.reader: columns has names and numbers: 'text', 1; expected names where the ",
    ),
    Case(
        "csv: a delimiter that is a quote",
        *csv(GOOD, corpus__reader=CSV | {"delimiter": '"'}),
        says="recipes/text_classification/toy.yaml: corpus.reader.delimiter: '\"'; expected one character, no quote and no line end",
    ),
    Case(
        "csv: a delimiter that is a line end",
        *csv(GOOD, corpus__reader=CSV | {"delimiter": "\n"}),
        says="recipes/text_classification/toy.yaml: corpus.reader.delimiter: '\\n'; expected one character, no quote and no line end",
    ),
    Case(
        "csv: a column that the task does not have",
        *csv(GOOD, corpus__reader=CSV | {"columns": {"text": "text", "label": "label", "x": "text"}}),
        says="recipes/text_classification/toy.yaml: corpus: reader.columns has label, text, x; a single_label corpus needs label and t",
    ),
    Case(
        "csv: a column that the task needs",
        *csv(GOOD, corpus__reader=CSV | {"columns": {"text": "text"}}),
        says="recipes/text_classification/toy.yaml: corpus: reader.columns has text; a single_label corpus needs label and text, and m",
    ),
    Case(
        "jsonl: no object",
        *jsonl("[1, 2]"),
        says="a.jsonl:1: a JSON array; expected one JSON object per line, or reader.format: json for an array of objects",
    ),
    Case("jsonl: a number", *jsonl("17"), says="a.jsonl:1: int; expected one JSON object per line"),
    Case(
        "jsonl: broken off",
        *jsonl('{"text": "a", "lab'),
        says="a.jsonl:1: not JSON: a text that no quote ends, column 15; expected one object per line",
    ),
    Case(
        "jsonl: single quotes",
        *jsonl("{'text': 'a'}"),
        says="a.jsonl:1: not JSON: no key in double quotes, column 2; expected one object per line",
    ),
    Case(
        "jsonl: NaN as a label",
        *jsonl('{"text": "a", "label": NaN}'),
        says="a.jsonl:1: example '0': the label is nan; expected a name or a whole number",
    ),
    Case(
        "jsonl: Infinity as a text",
        *jsonl('{"text": Infinity, "label": "x"}'),
        says="a.jsonl:1: example '0': text is inf; expected a string",
    ),
    Case(
        "jsonl: a number of 5,000 digits",
        *jsonl('{"text": "a", "label": ' + "9" * 5000 + "}"),
        says="a.jsonl:1: a number of thousands of digits; expected a smaller one, or a text in quotes",
    ),
    Case(
        "jsonl: a number of 5,000 digits in a column that nobody reads",
        *jsonl('{"text": "a", "label": "x", "n": ' + "9" * 5000 + "}"),
        says="a.jsonl:1: a number of thousands of digits; expected a smaller one, or a text in quotes",
    ),
    Case(
        "jsonl: a number beyond 64 bits as a label",
        *jsonl({"text": "a", "label": 2**70}),
        says="train 13 texts, 3 labels: y 53.8%, x 38.5%, 1180591620717411303424 7.7%",
        ends_well=True,
    ),
    Case(
        "jsonl: nested 100,000 deep",
        *jsonl('{"text": "a", "label": ' + "[" * 100_000 + "]" * 100_000 + "}"),
        says="a.jsonl:1: JSON nested too deeply; expected one flat object per line",
    ),
    Case(
        "jsonl: a key twice",
        *jsonl('{"text": "a", "label": "x", "label": "y"}'),
        says="a.jsonl:1: the key 'label' occurs twice in an object; expected once",
    ),
    Case(
        "jsonl: a lone surrogate",
        *jsonl('{"text": "\\ud83d", "label": "x"}'),
        says="a.jsonl:1: a lone surrogate such as \\ud83d; expected text that UTF-8 can hold",
    ),
    Case(
        "jsonl: a text that is a list",
        *jsonl({"text": ["a", "b"], "label": "x"}),
        says="a.jsonl:1: example '0': text is ['a', 'b']; expected a string",
    ),
    Case(
        "jsonl: a text that is null",
        *jsonl({"text": None, "label": "x"}),
        says="warning: train: examples without text, left out: 1",
        ends_well=True,
    ),
    Case(
        "jsonl: a label that is an object",
        *jsonl({"text": "a", "label": {"x": 1}}),
        says="a.jsonl:1: example '0': the label is {'x': 1}; expected a name or a whole number",
    ),
    Case(
        "jsonl: a label that is a list",
        *jsonl({"text": "a", "label": ["x"]}),
        says="a.jsonl:1: example '0': the label is ['x']; expected a name or a whole number",
    ),
    Case(
        "jsonl: a label that is null",
        *jsonl({"text": "a", "label": None}),
        says="a.jsonl:1: example '0': the label is None; expected a name or a whole number",
    ),
    Case(
        "jsonl: true as a label",
        *jsonl({"text": "a", "label": True}),
        says="train 13 texts, 3 labels: y 53.8%, x 38.5%, true 7.7%",
        ends_well=True,
    ),
    Case(
        "jsonl: a fraction as a label",
        *jsonl({"text": "a", "label": 0.5}),
        says="a.jsonl:1: example '0': the label is 0.5; expected a name or a whole number",
    ),
    Case("jsonl: without a key", *jsonl({"text": "a"}), says="a.jsonl:1: no key 'label'; the keys there are 'text'"),
    Case(
        "jsonl: a path through a text",
        *of("a.jsonl", lines(*rows()), JSONL | {"columns": {"text": "text", "label": "label.x"}}),
        says="a.jsonl:1: 'x' in 'label'; expected an object with the key 'x'",
    ),
    Case(
        "jsonl: an id twice",
        *of(
            "a.jsonl",
            lines(*({"i": n // 2, "text": f"t{n}", "label": "x"} for n in range(20))),
            JSONL | {"columns": {"text": "text", "label": "label", "id": "i"}},
        ),
        says="a.jsonl:2: the id '0' occurs a second time here; expected unique ids within a file",
    ),
    Case(
        "jsonl: an id that is a list",
        *of(
            "a.jsonl",
            lines(*({"i": [n], "text": f"t{n}", "label": "x"} for n in range(20))),
            JSONL | {"columns": {"text": "text", "label": "label", "id": "i"}},
        ),
        says="a.jsonl:1: the id is [0]; expected a string or a whole number",
    ),
    Case(
        "jsonl: an empty id",
        *of(
            "a.jsonl",
            lines(*({"i": "" if n == 3 else str(n), "text": f"t{n}", "label": "xy"[n % 2]} for n in range(20))),
            JSONL | {"columns": {"text": "text", "label": "label", "id": "i"}},
        ),
        says="a.jsonl:4: the id is empty; expected a string or a whole number",
    ),
    Case(
        "jsonl: comments",
        *jsonl("// a comment"),
        says="a.jsonl:1: not JSON: no value, such as a text in double quotes, column 1; expected one object per line",
    ),
    Case(
        "json: an object",
        *json_array(b'{"data": []}'),
        says="a.json: an object with the keys 'data'; reader.array names the path of an array; expected an array of objects",
    ),
    Case(
        "json: an empty array",
        *json_array(b"[]"),
        says="splits.validation: too few examples (0) in train's file to give this split any",
    ),
    Case(
        "json: objects one a line",
        *json_array(lines(*rows())),
        says="a.json:2: not JSON: more text after the end of the value, column 1; expected one value, or reader.format: jsonl for one object per line",
    ),
    Case("json: an array of arrays", *json_array(b"[[1], [2]]"), says="a.json, item 0: [1]; expected an object"),
    Case(
        "json: no array at the path",
        *json_array(b'{"data": {"x": 1}}', array="data"),
        says="a.json: an object with the keys 'x'; reader.array names the path of an array; expected an array of objects",
    ),
    Case(
        "json: the path leads nowhere",
        *json_array(b'{"data": {"x": 1}}', array="data.y"),
        says="a.json: no key 'y' in 'data'; the keys there are 'x'",
    ),
    Case(
        "json: nested 100,000 deep",
        *json_array(b"[" * 100_000),
        says="a.json: JSON nested too deeply; expected arrays of plain objects",
    ),
    Case(
        "json: a number of 5,000 digits",
        *json_array(b'[{"text": "a", "label": ' + b"9" * 5000 + b"}]"),
        says="a.json: a number of thousands of digits; expected a smaller one, or a text in quotes",
    ),
    Case(
        "json: broken off",
        *json_array(b'[{"text": "a", "label": "x"}'),
        says="a.json:1: not JSON: it breaks off, column 29; expected one value",
    ),
    Case(
        "json: a key twice",
        *json_array(b'[{"text": "a", "text": "b", "label": "x"}]'),
        says="a.json: the key 'text' occurs twice in an object; expected once",
    ),
    Case("json: nothing", *json_array(b""), says="a.json:1: not JSON: there is nothing in it; expected one value"),
    Case(
        "parquet: no Parquet",
        *of("a.parquet", GOOD, PARQUET),
        says="a.parquet: not a Parquet file, or only a part of one; expected PAR1 at both ends",
    ),
    Case(
        "parquet: broken off",
        *of("a.parquet", parquet(TWENTY)[:-20], PARQUET),
        says="a.parquet: not a Parquet file, or only a part of one; expected PAR1 at both ends",
    ),
    Case(
        "parquet: flipped bytes in its data",
        *of("a.parquet", parquet(TWENTY, plain=True).replace(b"a text number 7", b"\xff" * 15), PARQUET),
        says="a.parquet: a column of texts has bytes that are not UTF-8; expected a binary column",
    ),
    Case(
        "parquet: no rows",
        *table({"text": pa.array([], pa.string()), "label": pa.array([], pa.string())}),
        says="splits.validation: too few examples (0) in train's file to give this split any",
    ),
    Case(
        "parquet: no such column",
        *table({"text": TWENTY["text"]}),
        says="a.parquet: no column 'label'; the columns there are 'text'",
    ),
    Case(
        "parquet: two columns of one name",
        *table(TWO_OF_A_NAME),
        says="a.parquet: 2 columns 'text'; expected each name once",
    ),
    Case(
        "parquet: a text that is a number",
        *table({"text": list(range(20)), "label": TWENTY["label"]}),
        says="a.parquet, row 0: example '0': text is 0; expected a string",
    ),
    Case(
        "parquet: metadata that is no JSON",
        *table(TWENTY, features("{")),
        says="train 12 texts, 2 labels: x 66.7%, y 33.3%",
        ends_well=True,
    ),
    Case(
        "parquet: metadata that is a list",
        *table(TWENTY, features("[1]")),
        says="train 12 texts, 2 labels: x 66.7%, y 33.3%",
        ends_well=True,
    ),
    Case(
        "parquet: metadata of a column that is a number",
        *table(TWENTY, features('{"info": {"features": {"label": 7}}}')),
        says="train 12 texts, 2 labels: x 66.7%, y 33.3%",
        ends_well=True,
    ),
    Case(
        "parquet: metadata without info",
        *table(TWENTY, features('{"info": null}')),
        says="train 12 texts, 2 labels: x 66.7%, y 33.3%",
        ends_well=True,
    ),
    Case(
        "parquet: ClassLabel without names",
        *table(NUMBERED, features('{"info": {"features": {"label": {"_type": "ClassLabel", "names": null}}}}')),
        says="a.parquet: column 'label': its ClassLabel has the names None; expected a list of texts, each once",
    ),
    Case(
        "parquet: ClassLabel whose names are a text",
        *table(NUMBERED, features('{"info": {"features": {"label": {"_type": "ClassLabel", "names": "ab"}}}}')),
        says="a.parquet: column 'label': its ClassLabel has the names 'ab'; expected a list of texts, each once",
    ),
    Case(
        "parquet: ClassLabel over texts",
        *table(TWENTY, features('{"info": {"features": {"label": {"_type": "ClassLabel", "names": ["a", "b"]}}}}')),
        says="a.parquet, row 0: label holds 'x'; its ClassLabel names 0 to 1",
    ),
    Case(
        "parquet: ClassLabel with too few names",
        *table(NUMBERED, features('{"info": {"features": {"label": {"_type": "ClassLabel", "names": ["a"]}}}}')),
        says="a.parquet, row 1: label holds 1; its ClassLabel names 0 to 0",
    ),
    Case(
        "parquet: ClassLabel with a name twice",
        *table(NUMBERED, features('{"info": {"features": {"label": {"_type": "ClassLabel", "names": ["a", "a"]}}}}')),
        says="a.parquet: column 'label': its ClassLabel has the names ['a', 'a']; expected a list of texts, each once",
    ),
    Case(
        "parquet: a binary column",
        *table({"text": [b"\xff\xfe"] * 20, "label": TWENTY["label"]}),
        says="a.parquet, row 0: example '0': text is b'\\xff\\xfe'; expected a string",
    ),
    Case(
        "parquet: null labels",
        *table({"text": TWENTY["text"], "label": pa.array([None] * 20, pa.string())}),
        says="a.parquet, row 0: example '0': the label is None; expected a name or a whole number",
    ),
    Case(
        "text: an empty file",
        *of("a.txt", b"", TEXT),
        says="splits.validation: too few examples (0) in train's file to give this split any",
    ),
    Case(
        "text: blank lines alone",
        *of("a.txt", b"\n \n\t\n", TEXT),
        says="splits.validation: too few examples (0) in train's file to give this split any",
    ),
    Case(
        "text: bytes that are no text",
        *of("a.txt", b"\x89PNG\r\n\x1a\n" + b"\xff" * 10, TEXT),
        says="a.txt: the byte 0x89 at offset 0 is not utf-8; expected text in that encoding; a recipe may name another as reader.encod",
    ),
    Case(
        "text: a column that it does not have",
        *of("a.txt", b"a\n", TEXT | {"columns": {"text": "text", "label": "title"}}),
        says="recipes/text_classification/toy.yaml: corpus.reader.columns.label: should be 'text', 'first_line', 'rest', 'folder' or '",
    ),
    Case(
        "parquet: a date beyond the year 9999",
        *table({"text": pa.array([2**30] * 20, pa.date32()), "label": TWENTY["label"]}),
        says="a.parquet: a value that Python cannot hold (",
    ),
    Case(
        "parquet: a moment beyond the year 9999",
        *table({"text": pa.array([2**62] * 20, pa.timestamp("us")), "label": TWENTY["label"]}),
        says="a.parquet: a value that Python cannot hold (",
    ),
    Case(
        "parquet: a duration of more seconds than there are",
        *table({"text": pa.array([2**62] * 20, pa.duration("s")), "label": TWENTY["label"]}),
        says="a.parquet: a value that Python cannot hold (",
    ),
    Case(
        "parquet: an unknown time zone",
        *table({"text": pa.array([1] * 20, pa.timestamp("us", tz="Mars/Base")), "label": TWENTY["label"]}),
        says="a.parquet: a value that Python cannot hold ('Mars/Base'); expected texts, numbers and lists of them",
    ),
    Case(
        "parquet: a struct with two fields of one name",
        *table({"text": TWO_FIELDS_OF_A_NAME, "label": TWENTY["label"]}),
        says="a.parquet: a value that Python cannot hold (",
    ),
    Case(
        "parquet: the name of a column is not UTF-8",
        *of("a.parquet", parquet(TWENTY, plain=True).replace(b"text", b"te\xe0t"), PARQUET),
        says="a.parquet: a damaged schema, whose names are not UTF-8; expected Parquet",
    ),
    Case(
        "jsonl: a score of 400 digits",
        *of("a.jsonl", lines(*scored(10**400)), SCORES, **SCORED),
        says="a.jsonl:1: example '0': the score is 100000000000000000000000000000000000000000000000000000000000; expected a",
    ),
    Case(
        "jsonl: a score beyond 32 bits",
        *of("a.jsonl", lines(*scored(1e300)), SCORES, **SCORED),
        says="a.jsonl:1: example '0': the score is 1e+300; expected a finite number",
    ),
    Case(
        "jsonl: a score of 1_0",
        *of("a.jsonl", lines(*scored("1_0")), SCORES, **SCORED),
        says="a.jsonl:1: example '0': the score is '1_0'; expected a finite number",
    ),
    Case(
        "jsonl: a score in Arabic digits",
        *of("a.jsonl", lines(*scored("\u0663")), SCORES, **SCORED),
        says="a.jsonl:1: example '0': the score is '\u0663'; expected a finite number",
    ),
    Case(
        "jsonl: a relevance beyond 32 bits",
        *of("a.jsonl", lines(*judged(2**31)), RANKED, **SCORED, tokenize__overflow="head", tokenize__stride=None),
        says="candidate.judged has {'id': 'd', 'relevance': 2147483648}; expected id and relevance, a whole number from 1",
    ),
    Case(
        "csv: an id of 50,000 letters twice",
        *csv(
            b"id,text,label\n" + (b"x" * 50_000 + b",a,x\n") * 2,
            corpus__reader=CSV | {"columns": {"id": "id"} | CSV["columns"]},
        ),
        says="occurs a second time here; expected unique ids within a file",
    ),
]
