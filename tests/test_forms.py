"""Unicode normal forms are Python's own, in time that grows with the length of a text."""

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetrail.corpus.forms import normalized
from finetrail.corpus.words import characters, cut

# Marks of four classes, one that is two, one of no class, a letter that takes some of them, and jamo.
MARKS = st.text(alphabet="\u0315\u0300\u0323\u05b0\u0344\u093e\u0345ae\u1100\u1161", min_size=60, max_size=200)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@given(text=st.one_of(st.text(), MARKS))
def test_a_form_is_that_of_unicodedata(form, text):
    assert normalized(form, text) == unicodedata.normalize(form, text)


@pytest.mark.parametrize("text", ["\u0315\u0300" * 50_000, "\U0001f1e9" * 100_000])
def test_a_megabyte_of_marks_or_flags_takes_no_minutes(text):
    start = time.monotonic()
    normalized("NFC", text)
    assert len(list(characters(text))) == (1 if text[0] == "\u0315" else 50_000)
    assert cut(text, "unicode")
    assert time.monotonic() - start < 20  # a second or two; they took five minutes
