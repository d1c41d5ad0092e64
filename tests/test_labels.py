"""The order of labels, and labels that somebody may have meant as one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetrail.corpus.labels import alike, shown
from finetrail.encoding.labels import sort_key


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["10", "9", "0", "1", "2"], ["0", "1", "2", "9", "10"]),
        (["1", "-1", "+10", "0", "-2"], ["-2", "-1", "0", "1", "+10"]),
        (["01", "1", "2", "10"], ["01", "1", "2", "10"]),
        (["10", "9", "other"], ["10", "9", "other"]),
        (["1.5", "10", "9"], ["1.5", "10", "9"]),
        (["²", "10"], ["10", "²"]),
    ],
)
def test_whole_numbers_alone_are_ordered_as_numbers(labels: list[str], expected: list[str]) -> None:
    assert sorted(labels, key=sort_key(labels)) == expected


@given(st.sets(st.text(max_size=3)))
def test_other_labels_are_ordered_as_texts(labels: set[str]) -> None:
    named = labels | {"a"}
    assert sorted(named, key=sort_key(named)) == sorted(named)


def test_labels_that_differ_in_blanks_case_or_form_are_shown() -> None:
    labels = {"pos": 3, "pos ": 1, "Pos": 1200, "pos\u00a0": 2, "neg": 5, "STRASSE": 1, "stra\u00dfe": 1}
    assert alike(labels) == ["'Pos' (1,200), 'pos' (3), 'pos ' (1), 'pos\\xa0' (2)", "'STRASSE' (1), 'straße' (1)"]
    # Two Unicode forms of one text look the same.
    assert alike({"caf\u00e9": 1, "cafe\u0301": 2}) == ["'cafe\\u0301' (2), 'caf\\xe9' (1)"]
    assert alike({"서울": 1, "\u1109\u1165\u110b\u116e\u11af": 1, "부산": 1})[0].count("\\u") == 7
    assert alike({"a": 1, "b": 1, "a b": 1, "ab": 1}) == []


def test_a_label_with_a_blank_at_an_end_is_quoted_in_messages() -> None:
    assert [shown(label) for label in ("pos", "pos ", "\u00a0pos", "a b")] == ["pos", "'pos '", "'\\xa0pos'", "a b"]
