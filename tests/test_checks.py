"""Canonical rows of token classification, and the checks of a corpus, against counts by hand and by plain sets."""

from array import array
from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetrail.corpus import duplicates
from finetrail.corpus.readers import Record
from finetrail.errors import UserError
from finetrail.tasks.token_classification import concerns
from finetrail.tasks.token_classification import corpus as task
from finetrail.tasks.token_classification.settings import Corpus


def corpus(scheme="iob2", impossible_transitions="repair", unseen_labels="keep"):
    return Corpus.model_validate(
        {
            "name": "toy",
            "source": {"kind": "file", "path": "toy", "sha256": None},
            "splits": {
                "train": "train",
                "validation": "dev",
                "test": "test",
                "seed": 0,
                "stratify": None,
                "group": None,
            },
            "license": None,
            "language": None,
            "reader": {"format": "parquet", "columns": {"tokens": "tokens", "labels": "labels"}},
            "tags": {
                "scheme": scheme,
                "impossible_transitions": impossible_transitions,
                "unseen_labels": unseen_labels,
            },
        }
    )


def record(tokens, labels, number=0):
    return Record(str(number), f"toy:{number}", {"tokens": tokens, "labels": labels})


def canonical(record, settings):
    """Return the rows of one record of train."""
    found = list(task.rows("train", record, settings, {"train": task.Counts()}))
    assert {table for table, _ in found} <= {"train"}
    return [row for _, row in found]


def counted(settings, **splits):
    """Return ({split: Counts}, {split: rows}) of splits given as 'token/LABEL token/LABEL' sentences."""
    counts = {split: task.Counts() for split in ("train", "validation", "test")}
    rows = {split: [] for split in counts}
    for split, sentences in splits.items():
        for number, sentence in enumerate(sentences):
            pairs = [pair.rsplit("/", 1) for pair in sentence.split()]
            raw = record([token for token, _ in pairs], [label for _, label in pairs], number)
            for table, row in task.rows(split, raw, settings, counts):
                rows[table].append(row)
    return counts, rows


def test_checks_of_a_toy_corpus_as_counted_by_hand():
    settings = corpus()
    counts, rows = counted(
        settings,
        train=["EU/B-ORG says/O", "EU/O says/O", "", "/O in/O Rome/I-LOC", "EU/O says/O"],
        validation=["EU/B-ORG says/O", "Bonn/B-LOC", "Bonn/B-LOC"],
        test=["Bonn/B-LOC", "x/I-PER y/I-PER", "EU/O"],
    )
    checks = task.checks(counts, settings)
    assert checks == {
        "scheme": "IOB2",
        "splits": {
            "train": {
                "sentences": 4,
                "tokens": 9,
                "empty_examples": 1,
                "empty_tokens": 1,
                "duplicates": 2,
                "repaired_transitions": 1,
                "labels": {"B-LOC": 1, "B-ORG": 1, "O": 7},
            },
            "validation": {
                "sentences": 3,
                "tokens": 4,
                "empty_examples": 0,
                "empty_tokens": 0,
                "duplicates": 1,
                "repaired_transitions": 0,
                "labels": {"B-LOC": 2, "B-ORG": 1, "O": 1},
            },
            "test": {
                "sentences": 3,
                "tokens": 4,
                "empty_examples": 0,
                "empty_tokens": 0,
                "duplicates": 0,
                "repaired_transitions": 1,
                "labels": {"B-LOC": 1, "B-PER": 1, "I-PER": 1, "O": 1},
            },
        },
        "leakage": {"train/validation": 1, "train/test": 0, "validation/test": 1},
        "unseen_labels": {"validation": {}, "test": {"B-PER": 1, "I-PER": 1}},
    }
    assert rows["train"][2] == {"id": "3", "tokens": ["", "in", "Rome"], "labels": ["O", "O", "B-LOC"]}
    assert list(task.tables(settings)) == ["train", "validation", "test"]
    for split, schema in task.tables(settings).items():
        assert schema.names[0] == "id"
        assert pa.Table.from_pylist(rows[split], schema).to_pylist() == rows[split]
    assert task.summary(counts["train"], settings) == "4 sentences, 9 tokens, 2 entity types"
    assert [*map(str, concerns.of_corpus(checks))] == [
        "train: examples without tokens, left out: 1",
        "train: impossible tag transitions, repaired: 1",
        "train: tokens without a character, which no model sees: 1",
        "train: sentences that repeat an earlier one of their split: 2",
        "validation: sentences that repeat an earlier one of their split: 1",
        "test: impossible tag transitions, repaired: 1",
        "validation: sentences that also occur in train: 1",
        "test: sentences that also occur in validation: 1",
        "test: labels that train lacks and no model will predict: B-PER (1), I-PER (1)",
    ]


SENTENCES = st.lists(st.lists(st.sampled_from(["a", "b", "a b", "", "é"]), max_size=3), max_size=12)


@given(st.fixed_dictionaries({"train": SENTENCES, "validation": SENTENCES, "test": SENTENCES}))
def test_duplicates_and_leakage_agree_with_plain_sets(splits):
    settings = corpus("none")
    counts = {split: task.Counts() for split in splits}
    for split, sentences in splits.items():
        for sentence in sentences:
            found = list(task.rows(split, record(sentence, ["X"] * len(sentence)), settings, counts))
            assert [(table, row["tokens"]) for table, row in found] == ([(split, sentence)] if sentence else [])
    kept = {split: [tuple(sentence) for sentence in sentences if sentence] for split, sentences in splits.items()}
    checks = task.checks(counts, settings)
    for split, sentences in kept.items():
        assert checks["splits"][split]["duplicates"] == sum(n - 1 for n in Counter(sentences).values())
        assert checks["splits"][split]["empty_examples"] == len(splits[split]) - len(sentences)
    for pair, shared in checks["leakage"].items():
        first, second = pair.split("/")
        assert shared == sum(sentence in set(kept[first]) for sentence in kept[second])


CONTENTS = st.lists(st.text(max_size=3) | st.lists(st.text(max_size=3), max_size=3), max_size=20)


@given(CONTENTS, CONTENTS)
def test_digests_count_any_content_as_plain_lists_do(first, second):
    one, two = (array("Q", map(duplicates.digest, contents)) for contents in (first, second))
    assert duplicates.duplicates(one) == sum(content in first[:place] for place, content in enumerate(first))
    assert duplicates.shared(one, two) == sum(content in first for content in second)


def test_a_digest_is_blake2b_of_64_bits_in_every_process():
    # As coreutils print it: printf '["EU", "é"]' | b2sum --length=64
    assert duplicates.digest(["EU", "é"]) == 0x1970053B4D962D3E
    assert duplicates.digest("a") == 0x167004E8304614A8
    assert duplicates.digest("a") != duplicates.digest(["a"])


def test_labels_without_a_scheme_are_kept_as_they_are():
    settings = corpus("none")
    counts, rows = counted(settings, train=["x/I-NP y/, z/NN$"])
    assert rows["train"][0]["labels"] == ["I-NP", ",", "NN$"]
    assert task.checks(counts, settings)["scheme"] == "none"
    assert task.summary(counts["train"], settings) == "1 sentences, 3 tokens, 3 labels"


def test_types_and_labels_that_may_be_meant_as_one_are_warned_of():
    for scheme, sentences, expected in (
        ("iob2", ["a/B-LOC b/I-LOC c/O", "d/B-Loc e/B-PER"], "entity types {}: 'LOC' (2), 'Loc' (1)"),
        ("none", ["a/NN b/nn c/B-x d/I-x"], "labels {}: 'NN' (1), 'nn' (1)"),
    ):
        settings = corpus(scheme)
        counts, _ = counted(settings, train=sentences, validation=["x/O"], test=["x/O"])
        lines = [line for line in [*map(str, concerns.of_corpus(task.checks(counts, settings)))] if "alone" in line]
        assert lines == [expected.format("that differ in blanks, case or Unicode form alone")]


def test_unseen_labels_are_refused_with_their_first_example():
    settings = corpus(unseen_labels="refuse")
    counts, _ = counted(settings, train=["x/O"], validation=["x/O"], test=["x/O", "y/O z/B-PER", "z/B-PER"])
    with pytest.raises(
        UserError,
        match=r"^test: example '1' has the label 'B-PER', which train lacks; expected labels",
    ):
        task.checks(counts, settings)


def test_impossible_transitions_are_refused_with_their_place():
    settings = corpus(impossible_transitions="refuse")
    message = r"^toy:0: example '0': label 2 is 'I-B' in \['B-A', 'I-B', 'O'\], impossible in the scheme iob2$"
    with pytest.raises(UserError, match=message):
        canonical(record(list("wxyz"), ["O", "B-A", "I-B", "O"]), settings)
    assert canonical(record(["x"], ["B-A"]), settings) == [{"id": "0", "tokens": ["x"], "labels": ["B-A"]}]


@pytest.mark.parametrize(
    ("tokens", "labels", "message"),
    [
        (["a", "b"], ["O"], "2 tokens and 1 labels; expected one label for each token"),
        ("a b", ["O", "O"], "tokens is 'a b'; expected a list of strings"),
        (["a"], None, "labels is None; expected a list of strings"),
        (["a", 5], ["O", "O"], "tokens[1] is 5; expected a string"),
        (["a", None], ["O", "O"], "tokens[1] is None; expected a string"),
        (["a"], [3], "labels[0] is 3; expected a string; numbers need names: a ClassLabel feature in Parquet"),
        (["a"], ["B_PS"], "label 0 is 'B_PS'; expected O, B-TYPE or I-TYPE in the scheme iob2"),
    ],
)
def test_a_malformed_row_is_refused_with_place_and_example(tokens, labels, message):
    with pytest.raises(UserError) as error:
        canonical(record(tokens, labels, 7), corpus())
    assert str(error.value).startswith(f"toy:7: example '7': {message}")


def test_an_empty_label_is_refused_without_a_scheme_too():
    with pytest.raises(UserError, match="^toy:0: example '0': label 1 is empty; expected a label for each token$"):
        canonical(record(["a", "b"], ["X", ""]), corpus("none"))


def test_tables_tell_where_there_is_no_scheme():
    assert [bool(schema.metadata) for schema in task.tables(corpus("none")).values()] == [True] * 3
    assert [bool(schema.metadata) for schema in task.tables(corpus("iobes")).values()] == [False] * 3
