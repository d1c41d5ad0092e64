"""Questions of every shape that sources have; answers that are not where they should be; what splits share."""

import random
import unicodedata
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetrail.corpus import places
from finetrail.corpus.readers import Record
from finetrail.errors import UserError
from finetrail.tasks.question_answering import concerns, corpus
from finetrail.tasks.question_answering.settings import Corpus

CONTEXT = "Ada 🙂 lived in London. She loved London."


def settings(answer_mismatch: str = "refuse") -> Corpus:
    return Corpus.model_construct(answer_mismatch=answer_mismatch)


def counted() -> dict[str, corpus.Counts]:
    return {table: corpus.Counts() for table in corpus.tables(settings())}


def record(answers: Any, question: Any = "Where?", context: Any = CONTEXT, **others: Any) -> Record:
    values = {"question": question, "context": context, "answers": answers, **others}
    return Record(others.pop("name", "q1"), "dev.json: data[0].paragraphs[0].qas[0]", values)


def read(one: Record, mismatch: str = "refuse", counts: dict[str, corpus.Counts] | None = None) -> list[dict[str, Any]]:
    found = corpus.rows("train", one, settings(mismatch), counts or counted())
    return [row for table, row in found if table == "train"]


def starts(answers: Any, mismatch: str = "refuse", counts: dict[str, corpus.Counts] | None = None) -> list[int]:
    return [answer["start"] for row in read(record(answers), mismatch, counts) for answer in row["answers"]]


@pytest.mark.parametrize(
    "answers",
    [
        [{"text": "London", "start": 15}, {"text": "She", "start": 23}],
        [{"text": "London", "answer_start": 15}, {"text": "She", "answer_start": 23}],
        {"text": ["London", "She"], "answer_start": [15, 23]},
    ],
)
def test_answers_of_files_and_of_the_hub_are_read_alike(answers: Any) -> None:
    row = read(record(answers, title="Ada"))[0]

    assert row == {
        "id": "q1",
        "title": "Ada",
        "question": "Where?",
        "context": CONTEXT,
        "answers": [{"text": "London", "start": 15}, {"text": "She", "start": 23}],
    }
    assert pa.Table.from_pylist([row], corpus.SCHEMA).to_pylist() == [row]
    assert CONTEXT[15:21] == "London"


@pytest.mark.parametrize("answers", [[], {"text": [], "answer_start": []}])
def test_a_question_may_have_no_answer_and_no_title(answers: Any) -> None:
    counts = counted()

    row = read(record(answers), counts=counts)[0]

    assert (row["answers"], row["title"]) == ([], None)
    assert (counts["train"].unanswerable, counts["train"].answers) == (1, 0)


def test_a_misplaced_answer_is_refused_with_the_text_found_there() -> None:
    with pytest.raises(UserError) as error:
        read(record([{"text": "London", "start": 16}]))

    message = str(error.value)
    assert message.startswith("dev.json: data[0].paragraphs[0].qas[0]: example 'q1': the answer 'London'")
    assert "character 16" in message and "'ondon.'" in message and "corpus.answer_mismatch" in message


@pytest.mark.parametrize(
    ("start", "repaired"),
    [(16, 15), (0, 15), (26, 33), (33, 33), (24, 15), (99, 33), (-1, 15), (None, 15)],  # 24: as near to 15 as to 33
)
def test_repair_takes_the_nearest_place_and_of_two_the_earlier(start: int | None, repaired: int) -> None:
    counts = counted()

    assert starts([{"text": "London", "start": start}], "repair", counts) == [repaired]
    in_units = start == len(CONTEXT[:repaired].encode("utf-16-le")) // 2
    mended = {} if start == repaired else {places.UNITS if in_units else places.MOVED: 1}
    assert +counts["train"].mended == mended


def test_utf16_offsets_are_converted_where_files_use_them() -> None:
    draw = random.Random(0)
    given, right = [], []
    for _ in range(200):
        words = [draw.choice(["Rome", "Oslo", "\U0001f600", "\U0001f680 ", "and"]) for _ in range(30)]
        context = " ".join(["Rome", *words])
        start = draw.choice([place for place in range(len(context)) if context.startswith("Rome", place)])
        right.append(start)
        units = len(context[:start].encode("utf-16-le")) // 2
        given.append(record([{"text": "Rome", "start": units}], context=context))
    counts = counted()

    # Some of the starts, read as characters, are those of another Rome.
    assert sum(one.values["context"].startswith("Rome", start_of(one)) for one in given) > right.count(0)
    assert starts_of(given, "repair", counts) == right
    converted = sum(start_of(one) != start for one, start in zip(given, right, strict=True))
    assert +counts["train"].mended == {places.UNITS: converted}
    # Characters stay what they are, and one start in units among them is converted by itself.
    characters = [
        record([{"text": "Rome", "start": start}], context=one.values["context"])
        for one, start in zip(given, right, strict=True)
    ]
    lone = record([{"text": "Rome", "start": 9}], context="\U0001f600 then Rome or Rome")
    assert starts_of([*characters, lone], "repair", counted()) == [*right, 7]
    # Only a repair converts.
    assert starts_of(given, "drop", counted()) != right


def start_of(one: Record) -> int:
    return int(one.values["answers"][0]["start"])


def starts_of(records: list[Record], mismatch: str, counts: dict[str, corpus.Counts]) -> list[int]:
    """Return the starts that the records of one split come out with."""
    read_again = corpus.records(lambda: iter(records), settings(mismatch))
    rows = [row for one in read_again for _, row in corpus.rows("train", one, settings(mismatch), counts)]
    return [answer["start"] for row in rows for answer in row["answers"]]


CAFE = "Zoë's cafe\u0301, the Cafe\u0301 Zoë; 서울 \u1109\u1165\u110b\u116e\u11af, Zoë."


@pytest.mark.parametrize(
    ("text", "start", "found", "mended"),
    [
        (" the ", 12, "the", None),  # it occurs exactly so
        ("the  ", 13, "the", places.BLANKS),
        ("\tthe", 12, "the", places.BLANKS),
        ("\u00a0the\n", 0, "the", places.BLANKS),
        ("café", 6, "cafe\u0301", places.FORM),
        ("Café", 0, "Cafe\u0301", places.FORM),
        ("Cafe\u0301 Zoe\u0308 ", 17, "Cafe\u0301 Zoë", places.FORM),
        (
            "\u1109\u1165\u110b\u116e\u11af",
            CAFE.index("서울"),
            "서울",
            places.FORM,
        ),  # and not at its exact occurrence later
        ("서울", CAFE.index("서울") + 3, "\u1109\u1165\u110b\u116e\u11af", places.FORM),
        ("cafe", 40, "cafe", places.MOVED),
        ("caf", 6, "caf", None),
        ("cafè", 6, None, None),
    ],
)
def test_answers_that_differ_in_blanks_or_form_are_repaired(
    text: str, start: int, found: str | None, mended: str | None
) -> None:
    counts = counted()

    rows = read(record([{"text": text, "start": start}], context=CAFE), "repair", counts)

    assert [answer["text"].strip() for row in rows for answer in row["answers"]] == ([found] if found else [])
    assert +counts["train"].mended == ({mended: 1} if mended else {})
    for answer in (answer for row in rows for answer in row["answers"]):
        assert CAFE[answer["start"] :].startswith(answer["text"])
    assert counts["train"].answers_dropped == (found is None)


@pytest.mark.parametrize("mismatch", ["repair", "drop"])
def test_an_answer_found_nowhere_is_dropped_with_its_question(mismatch: str) -> None:
    counts = counted()

    assert starts([{"text": "Paris", "start": 3}, {"text": "Ada", "start": 0}], mismatch, counts) == [0]
    assert read(record([{"text": "Paris", "start": 3}, {"text": " ", "start": 3}]), mismatch, counts) == []
    train = counts["train"]
    assert (train.examples, train.answers, train.answers_dropped, train.examples_dropped) == (1, 1, 3, 1)
    assert (train.mended.total(), train.unanswerable) == (0, 0)


def test_drop_does_not_look_elsewhere() -> None:
    assert starts([{"text": "London", "start": 16}, {"text": "London", "start": 33}], "drop") == [33]


@given(st.text(min_size=1), st.text(), st.text(), st.integers(-50, 50))
def test_a_repaired_answer_stands_where_it_says(answer: str, before: str, after: str, shift: int) -> None:
    context = before + answer + after
    answers = [{"text": answer, "start": len(before) + shift}]

    rows = read(record(answers, context=context), "repair")

    for row in rows:
        found = row["answers"][0]
        assert context.startswith(found["text"], found["start"])
        same = (unicodedata.normalize("NFC", text.strip()) for text in (found["text"], answer))
        assert len(set(same)) == 1
    assert len(rows) == bool(answer.strip())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"question": None}, "question is None; expected a string"),
        ({"context": 3}, "context is 3; expected a string"),
        ({"title": 3}, "title is 3; expected a string"),
        ({"answers": "London"}, "answers is 'London'; expected a list"),
        ({"answers": None}, "answers is None; expected a list"),
        ({"answers": {"text": ["London"]}}, "expected a list"),
        ({"answers": {"text": ["London"], "answer_start": []}}, "expected as many starts as texts"),
        ({"answers": {"text": "London", "answer_start": 15}}, "expected as many starts as texts"),
        ({"answers": ["London"]}, "answers[0] is 'London'; expected"),
        ({"answers": [{"start": 3}]}, "answers[0] is {'start': 3}; expected"),
        ({"answers": [{"text": 3, "start": 3}]}, "answers[0].text is 3; expected a string"),
        ({"answers": [{"text": "London", "start": "15"}]}, "answers[0] starts at '15'; expected a number"),
    ],
)
def test_values_of_another_type_are_refused_with_their_place(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        read(record(**({"answers": []} | values)), "repair")

    assert str(error.value).startswith("dev.json: data[0].paragraphs[0].qas[0]: example 'q1': ")
    assert message in str(error.value)


def test_blank_questions_and_contexts_are_left_out_and_counted() -> None:
    counts = counted()

    assert read(record([], question=" \n"), counts=counts) == [] == read(record([], context=""), counts=counts)
    assert (counts["train"].empty_examples, counts["train"].examples) == (2, 0)


def test_checks_tell_what_is_shared_by_contexts_and_by_questions() -> None:
    counts = counted()
    asked = {
        "train": [("Who?", "Ada."), ("Who?", "Ada."), ("When?", "Ada.")],
        "validation": [("Why?", "Ada."), ("Where?", "Bob.")],
        "test": [("Who?", "Eve."), ("Where?", "Bob."), ("How?", "Bob.")],
    }
    for table, pairs in asked.items():
        for question, context in pairs:
            list(corpus.rows(table, record([], question, context), settings(), counts))

    found = corpus.checks(counts, settings())

    assert found["leakage"] == {"train/validation": 1, "train/test": 0, "validation/test": 2}
    assert found["question_leakage"] == {"train/validation": 0, "train/test": 1, "validation/test": 1}
    train = found["splits"]["train"]
    assert (train["questions"], train["contexts"], train["duplicates"], train["unanswerable"]) == (3, 1, 1, 3)
    assert corpus.summary(counts["train"], settings()) == "3 questions about 1 contexts, 3 without an answer"
    assert [*map(str, concerns.of_corpus(found))] == [
        "train: questions that repeat an earlier one of their split, with its context: 1",
        "validation: questions about contexts that also occur in train: 1",
        "test: questions about contexts that also occur in validation: 2",
        "test: questions that are also asked in train: 1",
        "test: questions that are also asked in validation: 1",
    ]


def test_warnings_tell_what_was_left_out_and_repaired() -> None:
    counts = counted()
    starts([{"text": "London", "start": 17}], "repair", counts)
    starts([{"text": "Paris", "start": 16}], "repair", counts)
    read(record([], question=" "), counts=counts)

    assert [*map(str, concerns.of_corpus(corpus.checks(counts, settings())))] == [
        "train: blank questions or contexts, left out: 1",
        "train: answers found elsewhere in the context, repaired: 1",
        "train: answers that are not where they should be in the context, left out: 1",
        "train: questions left out, as none of their answers was left: 1",
    ]
    assert corpus.summary(counts["train"], settings()) == "1 questions about 1 contexts"
    assert "answers_with_blanks" not in corpus.checks(counts, settings())["splits"]["train"]


def test_each_kind_of_repair_has_its_count_and_its_warning() -> None:
    counts = counted()
    for text, start in (("London", 16), ("London ", 15), ("London", 0)):
        starts([{"text": text, "start": start}], "repair", counts)

    found = corpus.checks(counts, settings())

    kinds = ("answers_repaired", "answers_in_utf16_units", "answers_with_blanks")
    assert [found["splits"]["train"][name] for name in kinds] == [1, 1, 1]
    assert [found["splits"]["test"][name] for name in kinds] == [0, 0, 0]
    assert [*map(str, concerns.of_corpus(found))] == [
        "train: answers found elsewhere in the context, repaired: 1",
        "train: answers whose start counts UTF-16 units, converted to characters: 1",
        "train: answers with white space around them that their context lacks, repaired: 1",
        "train: questions that repeat an earlier one of their split, with its context: 2",
    ]
