"""Texts of the corpus: rows, counts, warnings, and what a recipe may say."""

from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from finetrail import params
from finetrail.corpus.readers import Record
from finetrail.errors import UserError
from finetrail.tasks.masked_lm import concerns, corpus
from finetrail.tasks.masked_lm.settings import Corpus

SETTINGS = params.load_recipe("masked_lm", "bbc").corpus


def passed(**texts: list[Any]) -> tuple[list[tuple[str, dict[str, Any]]], dict[str, Any]]:
    """Pass the texts of each split through rows(), and return these and the checks."""
    counts = {split: corpus.Counts() for split in ("train", "validation", "test")}
    rows = [
        row
        for split, of_split in texts.items()
        for number, text in enumerate(of_split)
        for row in corpus.rows(split, Record(str(number), f"a.txt:{number + 1}", {"text": text}), SETTINGS, counts)
    ]
    return rows, corpus.checks(counts, SETTINGS)


def test_texts_pass_as_they_are_and_blank_ones_are_counted() -> None:
    text = " 한국어 <br />  tabs\tand\nlines [MASK] "
    rows, checks = passed(train=[text, "", " \n\t", "b", "b"], validation=["b"], test=["c", text])

    assert rows[0] == ("train", {"id": "0", "text": text})
    assert [row["id"] for split, row in rows if split == "train"] == ["0", "3", "4"]
    tables = corpus.tables(SETTINGS)
    assert list(tables) == ["train", "validation", "test"]
    assert pa.Table.from_pylist([row for _, row in rows], tables["train"]).column_names == ["id", "text"]
    assert checks["splits"]["train"] == {
        "examples": 3, "characters": len(text) + 2, "empty_examples": 2, "duplicates": 1
    }  # fmt: skip
    assert checks["leakage"] == {"train/validation": 1, "train/test": 1, "validation/test": 0}
    assert [*map(str, concerns.of_corpus(checks))] == [
        "train: blank texts, left out: 2",
        "train: texts that repeat an earlier one of their split: 1",
        "validation: texts that also occur in train: 1",
        "test: texts that also occur in train: 1",
    ]


def test_a_split_in_words() -> None:
    counts = {"train": corpus.Counts()}
    list(corpus.rows("train", Record("0", "a", {"text": "x" * 1234}), SETTINGS, counts))
    assert corpus.summary(counts["train"], SETTINGS) == "1 texts, 1,234 characters"


@pytest.mark.parametrize("value", [None, 3, ["a"]])
def test_what_is_no_text_is_refused(value: Any) -> None:
    with pytest.raises(UserError, match=r"a.txt:1: example '0': text is .*; expected a string"):
        passed(train=[value])


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("reader", {"columns": {"text": "text", "label": "folder"}}, "expected text and perhaps id"),
        ("reader", {"columns": {"id": "stem"}}, "expected text and perhaps id"),
        ("splits", {"stratify": "text"}, "splits.stratify: 'text'; expected null"),
    ],
)
def test_a_corpus_section_that_does_not_fit_is_refused(section: str, change: dict[str, Any], message: str) -> None:
    values = SETTINGS.model_dump()
    values[section] |= change
    with pytest.raises(ValidationError, match=message):
        Corpus.model_validate(values)


def test_ids_may_come_from_the_corpus() -> None:
    values = SETTINGS.model_dump()
    values["reader"]["columns"] = {"text": "rest", "id": "stem"}
    assert Corpus.model_validate(values).reader.columns["id"] == "stem"


def test_an_unknown_best_metric_is_refused(tmp_path: Any) -> None:
    from finetrail.tasks.masked_lm import settings

    recipe = params.load_recipe("masked_lm", "bbc")
    assert list(settings.check(recipe)) == []
    wrong = recipe.model_copy(update={"train": recipe.train.model_copy(update={"best_metric": "f1"})})
    assert list(settings.check(wrong)) == ["train.best_metric: 'f1'; expected one of loss, perplexity, accuracy"]
