"""Character spans become tags of words; those that do not fit are mended, dropped or refused as the recipe says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from finetrail.corpus.spans import Span, tag
from finetrail.corpus.words import cut
from finetrail.schema import SpanRules


def rules(**changes):
    mended = {"blanks": "trim", "inside_words": "snap", "overlapping": "longest", "empty": "drop"}
    return SpanRules(**({"words": "unicode", "units": "characters"} | mended | changes))


TEXT = "Ada Lovelace's  letters, New-Port."


def tagged(spans, text=TEXT, **changes):
    """Return the entities as (label, text from the first word to the last), and the misfits."""
    settings = rules(**changes)
    words = cut(text, settings.words)
    tags, misfits = tag(text, words, [Span(*span) for span in spans], settings)
    entities = [(label, text[words[first][0] : words[last][1]]) for label, first, last in get_entities(tags)]
    return entities, [tuple(misfit) for misfit in misfits]


def test_spans_at_words_are_kept_as_they_are():
    spans = [(0, 3, "PER"), (16, 23, "OBJ"), (25, 33, "LOC")]
    assert tagged(spans) == ([("PER", "Ada"), ("OBJ", "letters"), ("LOC", "New-Port")], [])


def test_spans_of_one_label_side_by_side_stay_two():
    assert tagged([(0, 3, "X"), (4, 14, "X")])[0] == [("X", "Ada"), ("X", "Lovelace's")]


@pytest.mark.parametrize(
    ("spans", "entities", "misfits"),
    [
        ([(4, 12, "PER")], [("PER", "Lovelace's")], [("inside_words", "'Lovelace' (PER), taken as \"Lovelace's\"")]),
        ([(14, 24, "X")], [("X", "letters,")], [("blanks", "'  letters,' (X), taken as 'letters,'")]),
        ([(5, 5, "X"), (14, 16, "Y")], [], [("empty", "'' (X), dropped"), ("empty", "'  ' (Y), dropped")]),
        ([(0, 3, "A"), (0, 14, "B")], [("B", "Ada Lovelace's")],
         [("overlapping", "'Ada' (A) and \"Ada Lovelace's\" (B), of which the second is kept")]),
        ([(0, 3, "A"), (0, 3, "B"), (0, 3, "A")], [("A", "Ada")],
         [("overlapping", "'Ada' (B) and 'Ada' (A), of which the second is kept"), ("repeated", "'Ada' (A)")]),
        # They share no character, but a word.
        ([(4, 12, "PER"), (12, 14, "X")], [("PER", "Lovelace's")],
         [("inside_words", "'Lovelace' (PER), taken as \"Lovelace's\""),
          ("inside_words", "\"'s\" (X), taken as \"Lovelace's\""),
          ("overlapping", "\"Lovelace's\" (X) and \"Lovelace's\" (PER), of which the second is kept")]),
    ],
)  # fmt: skip
def test_a_span_that_does_not_fit_is_mended_and_told(spans, entities, misfits):
    assert tagged(spans) == (entities, misfits)


def test_what_the_recipe_drops_is_told_and_gone():
    dropped = {"blanks": "drop", "inside_words": "drop"}
    assert tagged([(4, 12, "PER"), (14, 23, "X"), (0, 3, "PER")], **dropped) == (
        [("PER", "Ada")],
        [("inside_words", "'Lovelace' (PER), dropped"), ("blanks", "'  letters' (X), dropped")],
    )


def test_the_rule_of_words_decides_what_ends_at_them():
    assert tagged([(4, 12, "PER")], words="punctuation") == ([("PER", "Lovelace")], [])
    assert tagged([(4, 7, "PER")], words="characters") == ([("PER", "Lov")], [])


@pytest.mark.parametrize(
    ("kind", "spans", "message"),
    [
        ("blanks", [(3, 12, "X")], r"^' Lovelace' \(X\): a span with white space around it; expected none, or another"),
        (
            "inside_words",
            [(4, 12, "X")],
            r"a span that does not end at words; .*spans.inside_words than refuse$",
        ),
        ("empty", [(4, 4, "X")], r"^'' \(X\): a span without text; expected none, or another reader.spans.empty"),
        ("overlapping", [(0, 3, "A"), (0, 14, "B")], r"^'Ada' \(A\) and .*: spans that share words; expected none"),
    ],
)
def test_what_the_recipe_refuses_is_an_error(kind, spans, message):
    with pytest.raises(ValueError, match=message):
        tagged(spans, **{kind: "refuse"})


@pytest.mark.parametrize("span", [(-1, 3, "X"), (0, 35, "X"), (5, 3, "X")])
def test_a_span_outside_the_text_is_always_refused(span):
    with pytest.raises(ValueError, match=r" X is not in its text, of 34 in characters; expected 0 <= start <= end$"):
        tagged([span])


# --- units --------------------------------------------------------------------------------------------------------

EMOJI = "👨🏻‍🚒 firemen drive firetrucks"  # doccano's own report: 22 to 32 by utf16, 19 to 29 in Python


@pytest.mark.parametrize(("units", "start"), [("characters", 19), ("utf16", 22), ("graphemes", 16)])
def test_offsets_count_what_the_recipe_says(units, start):
    assert tagged([(start, start + 10, "X")], EMOJI, units=units) == ([("X", "firetrucks")], [])


def test_wrong_units_are_told_where_the_spans_show_them():
    text = "👍👍 Ada met Bea"
    assert ("other_units", "'a m' (X), a word by utf16") in tagged([(5, 8, "X")], text)[1]
    assert [kind for kind, _ in tagged([(4, 6, "X")], text)[1]] == ["inside_words"], "in no units a word"
    for span, message in (
        ((13, 16, "X"), r"its text, of 14 in characters; .* in utf16 it is 'Bea': perhaps reader.spans.units: utf16$"),
        ((5, 8, "X", "Ada"), r"is 'a m' in the text, and 'Ada' in the annotation; .* reader.spans.units: utf16$"),
        ((5, 8, "X", "Bea"), r"is 'a m' in the text, and 'Bea' in the annotation; expected the same$"),
    ):
        with pytest.raises(ValueError, match=message):
            tagged([span], text)


def test_half_a_character_is_no_place():
    with pytest.raises(ValueError, match=r"the span \[1, 5\] X is not in its text, of 5 in utf16; expected"):
        tagged([(1, 5, "X")], "👍 ab", units="utf16")


def test_the_text_that_a_file_states_may_have_other_white_space():
    for stated in ("Ada Roe", "Ada\\nRoe", "AdaRoe"):
        assert tagged([(0, 7, "X", stated)], "Ada\nRoe")[0] == [("X", "Ada\nRoe")]
    assert tagged([(0, 6, "X", "C:\\new")], "C:\\new")[0] == [("X", "C:\\new")]


# --- against a naive implementation -------------------------------------------------------------------------------

TEXTS = st.text(alphabet="ab .'-東👍\u0301", min_size=1, max_size=24)


@given(text=TEXTS, data=st.data(), rule=st.sampled_from(["unicode", "punctuation", "characters"]))
def test_a_snapped_span_tags_each_word_that_it_overlaps(text, data, rule):
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    words = cut(text, rule)
    tags, _ = tag(text, words, [Span(start, end, "X")], rules(words=rule))
    wanted = {place for place in range(start, end) if not text[place].isspace()}
    assert [name != "O" for name in tags] == [bool(wanted & set(range(*word))) for word in words]
    assert tags.count("B-X") == bool(wanted & {place for word in words for place in range(*word)})


@given(text=TEXTS, data=st.data())
def test_kept_spans_share_no_word_longest_first(text, data):
    places = st.tuples(*[st.integers(0, len(text))] * 2).map(sorted)
    spans = [Span(*place, data.draw(st.sampled_from("XY"))) for place in data.draw(st.lists(places))]
    words = cut(text, "unicode")
    tags, _ = tag(text, words, spans, rules())
    seen = [{place for place in range(*span[:2]) if not text[place].isspace()} for span in spans]
    covered = [{i for i, word in enumerate(words) if places_of_span & set(range(*word))} for places_of_span in seen]
    taken: dict[int, str] = {}
    for cover, span in sorted(zip(covered, spans, strict=True), key=lambda pair: -len(pair[0])):
        if not cover & taken.keys():
            taken |= {i: f"{'B' if i == min(cover) else 'I'}-{span.label}" for i in cover}
    assert tags == [taken.get(i, "O") for i in range(len(words))]
