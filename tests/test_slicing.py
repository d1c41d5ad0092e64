"""How examples are parted: at quartiles, by words, labels and columns, each by hand; and by each task."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from finetrail.evaluation import slicing
from finetrail.evaluation.slicing import Slicing
from finetrail.tasks.masked_lm import scoring as masked_lm
from finetrail.tasks.question_answering import scoring as question_answering
from finetrail.tasks.retrieval import scoring as retrieval
from finetrail.tasks.text_classification import scoring as text_classification
from finetrail.tasks.text_generation import scoring as text_generation
from finetrail.tasks.token_classification import scoring as token_classification


def sizes(found: Slicing, n: int) -> dict[str, int]:
    rows = pa.table({"row": range(n)})
    return {name: len(found.take(rows, [name])) for name in found.slices}


def by_name(found: list[Slicing]) -> dict[str, Slicing]:
    return {one.name: one for one in found}


def test_lengths_are_parted_at_quartiles_and_named_by_their_ends() -> None:
    texts = [["w"] * size for size in (3, 1, 2, 4, 8, 7, 6, 5)]
    found = slicing.by_length("length", texts)
    assert sizes(found, 8) == {"1–2": 2, "3–4": 2, "5–6": 2, "7–8": 2}
    assert slicing.by_length("length", [["w"] * 1200]).slices == ["1,200"]


@pytest.mark.parametrize("seed", range(5))
def test_quarters_are_the_naive_ones(seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 12, size=200)
    names = slicing.quartiles(values.tolist(), str)
    # Naive: a value is in the first quarter whose border, a value itself, is not below it.
    borders = [sorted(values)[int(np.ceil(len(values) * part)) - 1] for part in (0.25, 0.5, 0.75)]
    quarters = [sum(value > border for border in sorted(set(borders))) for value in values]
    for quarter in set(quarters):
        inside = [value for value, of_value in zip(values, quarters, strict=True) if of_value == quarter]
        expected = str(min(inside)) if min(inside) == max(inside) else f"{min(inside)}–{max(inside)}"
        assert {name for name, of_value in zip(names, quarters, strict=True) if of_value == quarter} == {expected}


def test_equal_values_are_never_parted() -> None:
    assert slicing.quartiles([0, 0, 0, 0, 0, 1], str) == ["0"] * 5 + ["1"]
    assert slicing.quartiles([7] * 4, str) == ["7"] * 4
    assert slicing.quartiles([], str) == []


def test_words_are_lower_cased_and_each_ideograph_is_one() -> None:
    assert slicing.words("Don't STOP, 3.5 Äpfel!") == ["don", "t", "stop", "3", "5", "äpfel"]
    assert slicing.words("東京tower に 서울에서") == ["東", "京", "tower", "に", "서울에서"]


def test_unseen_words_are_a_share_of_all() -> None:
    found = slicing.by_unseen([["a", "b"], ["a", "x"], ["x", "y"], []], {"a", "b"})
    assert sizes(found, 4) == {"0": 2, "50": 1, "100": 1}


def test_few_labels_are_slices_many_are_grouped_by_frequency() -> None:
    assert slicing.by_frequency(["b", "a", "c", "a"], {"a": 2000, "b": 5}) == {
        "c": "c (0 in train)",
        "b": "b (5 in train)",
        "a": "a (2,000 in train)",
    }
    many = slicing.by_frequency([f"l{n:02}" for n in range(16)], {f"l{n:02}": 10 * n for n in range(16)})
    assert Counter(many.values()) == {f"{low}–{low + 30} in train": 4 for low in (0, 40, 80, 120)}


def test_few_values_of_a_column_are_slices_and_nothing_is_one() -> None:
    found = slicing.by_value("source", ["web", "book", None, "web"])
    assert sizes(found, 4) == {"web": 2, "book": 1, "(none)": 1}


def test_many_values_become_the_most_frequent_and_others() -> None:
    values = [f"s{n}" for n in range(15) for _ in range(20 - n)]
    found = slicing.by_value("source", values)
    expected = {f"s{n}": 20 - n for n in range(9)} | {"(other)": sum(20 - n for n in range(9, 15))}
    assert sizes(found, len(values)) == expected


@pytest.mark.parametrize(
    ("values", "slices"),
    [
        ([str(n) for n in (10, 9, 100, *range(13))], ["0–3", "4–7", "8–10", "11–100"]),
        ([f"20{n:02}-05-01" for n in range(16)],
         ["2000-05-01–2003-05-01", "2004-05-01–2007-05-01", "2008-05-01–2011-05-01", "2012-05-01–2015-05-01"]),
    ],
)  # fmt: skip
def test_numbers_and_dates_are_sliced_at_their_quartiles(values: list[str | None], slices: list[str]) -> None:
    found = slicing.by_value("when", [*values, None])
    assert found.slices == [*slices, "(none)"]
    assert sum(sizes(found, len(values) + 1).values()) == len(values) + 1


def test_what_is_no_finite_number_is_a_name() -> None:
    assert slicing.by_value("x", [*map(str, range(12)), "nan"]).slices[-1] == "(other)"


def test_columns_are_those_of_the_recipe_and_of_the_parts() -> None:
    units = pa.table({"id": ["a", "b"], "slice_source": ["web", None], "part": ["one", "two"]})
    assert [(one.name, one.slices) for one in slicing.by_columns(units)] == [
        ("source", ["web", "(none)"]),
        ("part", ["one", "two"]),
    ]


# --- tasks --------------------------------------------------------------------------------------------------------

TAGGED = pa.table(
    {
        "id": ["0", "1"],
        "tokens": [["Ada", "saw", "New", "York"], ["Bob", "sleeps"]],
        "references": [["B-PER", "O", "B-LOC", "I-LOC"], ["O", "O"]],
        "predictions": [["B-PER", "O", "I-LOC", "I-LOC"], ["B-PER", "O"]],
    }
)
TRAIN = pa.table(
    {"tokens": [["ada", "was", "in", "york"]], "labels": [["B-PER", "O", "O", "B-LOC"]]},
)
LABELS = ["B-LOC", "B-PER", "I-LOC", "O"]


def test_entities_are_parted_by_their_type_and_their_words() -> None:
    found = by_name(token_classification.slicings(TAGGED, TRAIN, LABELS))
    assert found["entity type"].slices == ["LOC (1 in train)", "PER (1 in train)"]
    places = found["entity type"].take(TAGGED, ["LOC (1 in train)"])
    assert places["references"].to_pylist() == [["O", "O", "B-LOC", "I-LOC"], ["O", "O"]]
    # What an I- begins is an entity, as conlleval has it.
    assert places["predictions"].to_pylist() == [["O", "O", "B-LOC", "I-LOC"], ["O", "O"]]
    new = found["unseen words"].take(TAGGED, ["a word that train lacks"])
    assert new["references"].to_pylist() == [["O", "O", "B-LOC", "I-LOC"], ["O", "O"]]
    assert new["predictions"].to_pylist() == [["O", "O", "B-LOC", "I-LOC"], ["B-PER", "O"]]
    assert token_classification.counted(new, LABELS).tolist() == [True, True]
    assert token_classification.counted(places, LABELS).tolist() == [True, False]


def test_words_without_a_scheme_are_sliced_by_label_and_novelty() -> None:
    tags = ["NOUN", "VERB"]
    units = TAGGED.set_column(2, "references", [[["NOUN", "VERB", "NOUN", "NOUN"], ["NOUN", "VERB"]]])
    units = units.set_column(3, "predictions", [[["NOUN", "VERB", "VERB", "NOUN"], ["NOUN", "NOUN"]]])
    train = TRAIN.set_column(1, "labels", [[["NOUN", "VERB", "VERB", "NOUN"]]])
    found = by_name(token_classification.slicings(units, train, {"label_names": tags, "scheme": "none"}))
    verbs = found["label"].take(units, ["VERB (2 in train)"])
    assert verbs["references"].to_pylist() == [["VERB"], ["VERB"]]
    assert verbs["predictions"].to_pylist() == [["VERB"], ["NOUN"]]
    new = found["unseen words"].take(units, ["not in train"])
    assert new["references"].to_pylist() == [["VERB", "NOUN"], ["NOUN", "VERB"]]


def test_texts_are_sliced_by_label_and_several_are_left_out() -> None:
    units = pa.table({"text": ["one", "two words"], "references": ["a", "b"], "predictions": ["a", "a"]})
    train = pa.table({"text": ["one"], "label": ["a"]})
    found = by_name(text_classification.slicings(units, train, {"problem": "single_label"}))
    assert found["label"].take(units, ["b (0 in train)"])["text"].to_pylist() == ["two words"]
    assert found["length in words"].slices == ["1", "2"]
    assert found["unseen words in %"].slices == ["0", "100"]
    several = units.set_column(1, "references", [[["a", "b"], []]]).set_column(2, "predictions", [[["b"], ["a"]]])
    train = pa.table({"text": ["one"], "labels": [["a"]]})
    found = by_name(text_classification.slicings(several, train, {"problem": "multi_label"}))
    kept = found["label"].take(several, ["b (0 in train)"])
    assert kept["references"].to_pylist() == [["b"], []] and kept["predictions"].to_pylist() == [["b"], []]
    assert text_classification.counted(kept, {"problem": "multi_label"}).tolist() == [True, False]
    numbers = pa.table({"text": ["one", "two words"], "references": [0.5, 1.0], "predictions": [0.5, 1.0]})
    assert "label" not in by_name(text_classification.slicings(numbers, train, {"problem": "regression"}))


def test_questions_and_queries_have_words_that_train_lacks() -> None:
    units = pa.table({"question": ["who ate", "who slept"], "context": ["a b c", "a"]})
    train = pa.table({"question": ["who"], "context": ["she slept"]})
    found = by_name(question_answering.slicings(units, train, {"unanswerable": False}))
    assert found["unseen words in %"].slices == ["0", "50"]
    assert found["length of context in words"].slices == ["1", "3"]
    asked = pa.table({"query": ["new wing", "old wing"]})
    relevant = [[{"id": "0", "relevance": 1, "title": "Wing", "text": "the old one"}]]
    found = by_name(retrieval.slicings(asked, pa.table({"query": ["a"], "relevant": relevant}), {}))
    assert found["unseen words in %"].slices == ["0", "50"]


def test_blocks_are_sliced_by_tokens_completions_by_new_words() -> None:
    blocks = pa.table({"tokens": [["a", "b"], ["a"]], "slice_source": ["web", "book"]})
    found = by_name(masked_lm.slicings(blocks, pa.table({"text": ["a"]}), None))
    assert {name: one.slices for name, one in found.items()} == {
        "length in tokens": ["1", "2"],
        "source": ["book", "web"],
    }
    units = pa.table(
        {"references": [[1, 2, 3, 4], [1, 2]], "reference_texts": [["it", " old", " new", "er"], ["it", "s"]]}
    )
    messages = [[{"role": "user", "content": "new"}, {"role": "assistant", "content": "old"}]]
    for train in (pa.table({"prompt": ["an"], "text": ["old"]}), pa.table({"messages": messages})):
        found = by_name(text_generation.slicings(units, train, {}))
        assert found["length in tokens"].slices == ["2", "4"]
        assert found["unseen words in %"].slices == ["0"]  # text between the first and the last word
    newer = pa.table({"references": [[1], [1]], "reference_texts": [["a new one"], ["an old one"]]})
    found = by_name(text_generation.slicings(newer, pa.table({"prompt": [None], "text": ["old"]}), {}))
    assert found["unseen words in %"].slices == ["0", "100"]
