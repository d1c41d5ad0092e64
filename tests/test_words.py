"""Texts are split into words by a declared rule, which keeps the position of each word."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetrail.corpus.words import cut

# By the rules of Unicode's annex 29: WB5 to WB13 keep together letters, digits and certain signs between two of them.
UNICODE = [
    ("Dr. Roe (born 1940)", ["Dr", ".", "Roe", "(", "born", "1940", ")"]),
    ("don't 3.5 U.S. a_b", ["don't", "3.5", "U.S", ".", "a_b"]),
    ("New-Port's 'Oslo' ’Aix’", ["New", "-", "Port's", "'", "Oslo", "'", "’", "Aix", "’"]),
    ("l'eau aujourd'hui", ["l'eau", "aujourd'hui"]),
    ("東京カタカナ 민수가", ["東", "京", "カタカナ", "민수가"]),
    ("👨‍👩‍👧👍🏽 🇩🇪🇫🇷", ["👨‍👩‍👧", "👍🏽", "🇩🇪", "🇫🇷"]),
    ("e\u0301t\u00a0a\u3000b\r\nc", ["e\u0301t", "a", "b", "c"]),
    (" \t\r\n", []),
    ("", []),
]
MARKS = [
    ("Ada's U.S. 3.5", ["Ada", "'", "s", "U", ".", "S", ".", "3", ".", "5"]),
    ("a_b ($5) 5€ x=y", ["a", "_", "b", "(", "$", "5", ")", "5", "€", "x", "=", "y"]),
    ("👍🏽! 東京。", ["👍🏽", "!", "東", "京", "。"]),
]
CHARACTERS = [("민수가 왔다", ["민", "수", "가", "왔", "다"]), ("e\u0301a👍🏽\r\n", ["e\u0301", "a", "👍🏽"])]


@pytest.mark.parametrize(
    ("rule", "text", "expected"),
    [
        *(("unicode", *case) for case in UNICODE),
        *(("punctuation", *case) for case in MARKS),
        *(("characters", *case) for case in CHARACTERS),
    ],
)
def test_a_rule_cuts_as_it_says(rule, text, expected):
    assert [text[start:end] for start, end in cut(text, rule)] == expected


LETTERS = st.text(alphabet=st.one_of(st.sampled_from("ab .'’-_1\r\n\t\u200d\u0301\u3000東ก👍🏽🇩$€"), st.characters()))


@pytest.mark.parametrize("rule", ["unicode", "punctuation", "characters"])
@given(text=LETTERS)
def test_words_stand_in_order_and_hold_all_but_white_space(rule, text):
    words = cut(text, rule)
    edges = [place for word in words for place in word]
    assert edges == sorted(edges) and all(start < end for start, end in words)
    left = "".join(text[a:b] for a, b in zip([0, *edges[1::2]], [*edges[::2], len(text)], strict=True))
    assert not left.strip()


@given(text=LETTERS)
def test_marks_cut_the_words_of_unicode_further(text):
    finer = {place for word in cut(text, "punctuation") for place in word}
    assert {place for word in cut(text, "unicode") for place in word} <= finer
