"""Texts with spans, from the reader's records to the corpus: tags, places of words, and what is said of the rest."""

import json
import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML

from finetrail.corpus import readers
from finetrail.errors import UserError
from finetrail.schema import SpanReader
from finetrail.tasks.token_classification import concerns, corpus
from finetrail.tasks.token_classification.settings import Corpus

SPANS = {
    "words": "unicode", "units": "characters", "blanks": "trim", "inside_words": "snap", "overlapping": "longest",
    "empty": "drop",
}  # fmt: skip


def settings(splits=None, tags=None, **reader):
    return TypeAdapter(Corpus).validate_python(
        {
            "name": "mine",
            "source": {"kind": "file", "path": "x", "sha256": None},
            "splits": {"train": "a", "validation": 0.1, "test": 0.1, "seed": 0, "stratify": None, "group": None}
            | (splits or {}),
            "license": None,
            "language": None,
            "reader": {"format": "prodigy", "spans": SPANS, "encoding": "utf-8"} | reader,
            "tags": {"scheme": "iob2", "impossible_transitions": "refuse", "unseen_labels": "keep"} | (tags or {}),
        }
    )


def read(tmp_path, given, *examples):
    """Return the rows of train, and the checks."""
    (tmp_path / "a").write_text("\n".join(json.dumps(example) for example in examples))
    counts = {table: corpus.Counts() for table in corpus.tables(given)}
    records = readers.read(tmp_path, [tmp_path / "a"], given.reader)
    rows = [row for record in records for _, row in corpus.rows("train", record, given, counts)]
    return rows, corpus.checks(counts, given)


def span(start, end, label):
    return {"start": start, "end": end, "label": label}


def test_a_text_becomes_words_with_tags_and_places(tmp_path):
    rows, checks = read(
        tmp_path, settings(), {"text": " Ada Roe's, Oslo", "spans": [span(1, 10, "A"), span(12, 16, "B")]}
    )
    assert rows == [
        {
            "id": "0",
            "tokens": ["Ada", "Roe's", ",", "Oslo"],
            "labels": ["B-A", "I-A", "O", "B-B"],
            "text": " Ada Roe's, Oslo",
            "starts": [1, 5, 10, 12],
            "ends": [4, 10, 11, 16],
        }
    ]
    assert checks["splits"]["train"] | {"labels": None} == {
        "sentences": 1, "tokens": 4, "empty_examples": 0, "empty_tokens": 0, "duplicates": 0,
        "repaired_transitions": 0, "labels": None, "spans": {"read": 2},
    }  # fmt: skip
    assert [*map(str, concerns.of_corpus(checks))] == []


def test_what_is_mended_and_left_out_is_counted_and_shown_once(tmp_path):
    text = "Ada Roe's, Oslo"
    examples = [
        {"text": text, "spans": [span(0, 7, "A"), span(0, 3, "A")], "relations": [{}, {}]},
        {"text": text, "spans": [span(0, 7, "A"), span(10, 15, "B"), span(3, 3, "B")], "label": "news"},
        {"text": text, "spans": [], "answer": "reject"},
        {"text": " \n", "spans": []},
    ]
    rows, checks = read(tmp_path, settings(), *examples)
    assert [row["labels"] for row in rows] == [["B-A", "I-A", "O", "O"], ["B-A", "I-A", "O", "B-B"]]
    assert checks["splits"]["train"]["spans"] == {
        "read": 5, "blanks": 1, "empty": 1, "inside_words": 2, "overlapping": 1
    }  # fmt: skip
    assert checks["notes"] == [
        "train: examples answered reject, left out: 1",
        "train: document labels, left out: 1",
        "train: relations, left out: 2",
        "train: spans without text: 1 of 5, such as '' (B), dropped, in example '1'",
        "train: spans with white space around them: 1 of 5, such as ' Oslo' (B), taken as 'Oslo', in example '1'",
        "train: spans that do not end at words: 2 of 5, such as 'Ada Roe' (A), taken as \"Ada Roe's\", in example '0'",
        "train: spans that share words: 1 of 5, such as 'Ada' (A) and \"Ada Roe's\" (A), of which the second is kept, "
        "in example '0'",
    ]
    assert [*map(str, concerns.of_corpus(checks))] == [
        "train: examples without tokens, left out: 1",
        "train: sentences that repeat an earlier one of their split: 1",
        *checks["notes"],
    ]


@pytest.mark.parametrize("kind", ["blanks", "inside_words", "overlapping", "empty"])
def test_a_span_that_the_recipe_refuses_is_told_with_its_place(tmp_path, kind):
    spans = {"blanks": [span(3, 7, "A")], "inside_words": [span(0, 2, "A")], "empty": [span(2, 2, "A")],
             "overlapping": [span(0, 3, "A"), span(0, 7, "B")]}[kind]  # fmt: skip
    given = settings(spans=SPANS | {kind: "refuse"})
    with pytest.raises(UserError, match=rf"^a:1: example '0': .*; expected none, or another reader.spans.{kind} than"):
        read(tmp_path, given, {"text": "Ada Roe", "spans": spans})


def test_a_span_outside_of_its_text_is_told_with_its_place(tmp_path):
    with pytest.raises(
        UserError, match=r"^a:1: example '0': the span \[0, 9\] A is not in its text, of 7 in characters"
    ):
        read(tmp_path, settings(), {"text": "Ada Roe", "spans": [span(0, 9, "A")]})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tags": {"scheme": "none"}}, "tags.scheme: none; expected iob2, which is what spans become"),
        ({"splits": {"stratify": "labels"}}, "reader.format: prodigy has no columns; expected splits.stratify null"),
        ({"splits": {"group": "doc"}}, "splits.group null or text"),
        ({"spans": SPANS | {"units": "bytes"}}, "units"),
        ({"spans": {key: value for key, value in SPANS.items() if key != "empty"}}, "empty"),
    ],
)
def test_what_does_not_go_together_is_told_by_make_check(changes, message):
    with pytest.raises(ValidationError, match=message):
        settings(**changes)


def test_alike_texts_of_several_annotators_may_stay_in_one_split():
    assert settings(splits={"group": "text"}).splits.group == "text"


def test_the_rule_goes_with_the_tables():
    for table in corpus.tables(settings(spans=SPANS | {"words": "characters"})).values():
        assert table.metadata == {b"words": b"characters"}
        assert table.names == ["id", "tokens", "labels", "text", "starts", "ends"]


GUIDE = (Path(__file__).parents[2] / "docs/token_classification.md").read_text(encoding="utf-8")


def test_the_reader_that_the_guide_shows_is_one():
    (shown,) = re.findall(r"```yaml\n  reader:\n(.*?)```", GUIDE, re.DOTALL)
    reader = YAML(typ="safe").load(shown)
    assert settings(**reader).reader.format == "label_studio"


def test_the_guide_has_each_format_with_its_own_keys():
    rows = re.findall(r"^\| .* \| `format: (\w+)`(.*) \|$", GUIDE, re.MULTILINE)
    classes = {get_args(one.model_fields["format"].annotation)[0]: one for one in get_args(SpanReader)}
    assert {name for name, _ in rows} == set(classes)
    for name, told in rows:
        keys = set(re.findall(r"`(\w+):", told)) - {"units"} | {"spans", "format"}
        assert keys | ({"encoding"} if name != "spacy" else set()) == set(classes[name].model_fields)
