"""Turns raw records into questions (id, title, question, context, answers), and counts them for the checks."""

from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from finetrail import layout
from finetrail.corpus import places
from finetrail.corpus.checks import TableCounts, no_digests, overlap, string
from finetrail.corpus.duplicates import digest, duplicates
from finetrail.corpus.readers import Record
from finetrail.errors import UserError
from finetrail.tasks.question_answering.settings import Corpus

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("title", pa.string()),
        ("question", pa.string()),
        ("context", pa.string()),
        # An empty list: no answer in the context. start is in characters of Python.
        ("answers", pa.list_(pa.struct([("text", pa.string()), ("start", pa.int32())]))),
    ]
)


# Kind of repair -> name of the count.
MENDED = {
    places.MOVED: "answers_repaired",
    places.UNITS: "answers_in_utf16_units",
    places.BLANKS: "answers_with_blanks",
    places.FORM: "answers_in_another_form",
}
# Key of answers whose start was converted by records().
CONVERTED = "converted"


class Answer(NamedTuple):
    """An answer as a record gives it: start in characters, and whether records() converted it to these."""

    text: str
    start: int | None
    converted: bool


@dataclass
class Counts(TableCounts):
    """Counts of one split, whose examples are questions with their contexts; 24 bytes per question."""

    answers: int = 0
    unanswerable: int = 0
    mended: Counter[str] = field(default_factory=Counter)  # answers, by MENDED
    answers_ignored: int = 0  # of questions that are marked as impossible
    answers_dropped: int = 0
    examples_dropped: int = 0  # whose answers were all dropped
    asked: "array[int]" = field(default_factory=no_digests)  # of each question alone
    contexts: "array[int]" = field(default_factory=no_digests)  # of the context of each question


def tables(settings: Corpus) -> dict[str, pa.Schema]:
    """Return the tables of data/corpus."""
    return dict.fromkeys(layout.SPLITS, SCHEMA)


def records(read: Callable[[], Iterator[Record]], settings: Corpus) -> Iterator[Record]:
    """Return the records of a split's files, with starts in characters where corpus.answer_mismatch repairs.

    Whether starts count UTF-16 units is decided over all files: a single start may fit an earlier occurrence by chance.
    """
    if settings.answer_mismatch == "repair" and _in_utf16(read()):
        return map(_converted, read())
    return read()


def rows(
    table: str, record: Record, settings: Corpus, counts: dict[str, Counts]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the question of a record, and count it; nothing if question or context is blank, or no answer is left.

    UserError with place and id if a value has the wrong type, or an answer is not at its start and
    corpus.answer_mismatch is refuse.
    """
    where, of_table = record.place, counts[table]
    question, context = (string(record.values[column], column, where) for column in ("question", "context"))
    if not question.strip() or not context.strip():
        of_table.empty_examples += 1
        return
    title = record.values.get("title")
    given = _answers(record.values["answers"], where)
    answers = _located(given, context, settings, where, of_table)
    if given and not answers:
        of_table.examples_dropped += 1
        return
    of_table.answers_ignored += record.values.get("answers_ignored", 0)
    of_table.answers += len(answers)
    of_table.unanswerable += not answers
    of_table.add([question, context])
    of_table.asked.append(digest(question))
    of_table.contexts.append(digest(context))
    title = None if title is None else string(title, "title", where)
    yield table, {"id": record.id, "title": title, "question": question, "context": context, "answers": answers}


def checks(counts: dict[str, Counts], settings: Corpus) -> dict[str, Any]:
    """Return the counts of each split, and the overlap of the splits.

    leakage counts the questions about a context that is also in the other split, because a model may have learned from
    its answers. question_leakage counts the questions that are also in the other split, about any context.
    """
    met = {kind for of_table in counts.values() for kind, count in of_table.mended.items() if count} - {places.MOVED}
    return {
        "splits": {table: _of_split(of_table, met) for table, of_table in counts.items()},
        "leakage": overlap({split: of_split.contexts for split, of_split in counts.items()}),
        "question_leakage": overlap({split: of_split.asked for split, of_split in counts.items()}),
    }


def summary(counts: Counts, settings: Corpus) -> str:
    """Return a summary of one split, for the log."""
    without = f", {counts.unanswerable:,} without an answer" if counts.unanswerable else ""
    return f"{counts.examples:,} questions about {_distinct(counts.contexts):,} contexts{without}"


def _in_utf16(records: Iterator[Record]) -> bool:
    """Return True if, where the two differ, more answers are at their start in UTF-16 units than in characters."""
    in_units = in_characters = 0
    for record in records:
        context = record.values["context"]
        for text, start, _ in _readable(record):
            place = places.from_utf16(start or 0, context)
            if start is not None and place != start:
                in_units += context.startswith(text, place)
                in_characters += context.startswith(text, start)
    return in_units > in_characters


def _converted(record: Record) -> Record:
    """Return a record with starts in characters instead of UTF-16 units."""
    context, answers = record.values["context"], []
    for text, start, _ in _readable(record):
        place = start if start is None else places.from_utf16(start, context)
        answers.append({"text": text, "start": place, CONVERTED: place != start})
    return record._replace(values=record.values | {"answers": answers}) if answers else record


def _readable(record: Record) -> list[Answer]:
    """Return the answers of a record; an empty list for a record that rows() rejects."""
    try:
        return _answers(record.values["answers"], "") if isinstance(record.values["context"], str) else []
    except UserError:
        return []


def _answers(value: Any, where: str) -> list[Answer]:
    """Return the answers, given as a list of objects or as the Hub's object of two lists."""
    if isinstance(value, dict) and {"text", "answer_start"} <= value.keys():
        texts, starts = value["text"], value["answer_start"]
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            raise UserError(f"{where}: answers is {value!r:.60}; expected as many starts as texts")
        value = [{"text": text, "start": start} for text, start in zip(texts, starts, strict=True)]
    if not isinstance(value, list):
        raise UserError(
            f'{where}: answers is {value!r:.60}; expected a list of {{"text", "start"}}, or {{"text": [], '
            '"answer_start": []}'
        )
    found = []
    for number, answer in enumerate(value):
        if not isinstance(answer, dict) or "text" not in answer:
            raise UserError(f'{where}: answers[{number}] is {answer!r:.60}; expected {{"text", "start"}}')
        start = answer.get("start", answer.get("answer_start"))
        if start is not None and (not isinstance(start, int) or isinstance(start, bool)):
            raise UserError(f"{where}: answers[{number}] starts at {start!r:.60}; expected a number of characters")
        text = string(answer["text"], f"answers[{number}].text", where)
        found.append(Answer(text, start, answer.get(CONVERTED) is True))
    return found


def _located(given: list[Answer], context: str, settings: Corpus, where: str, counts: Counts) -> list[dict[str, Any]]:
    """Locate the answers in the context, and count those that were repaired or dropped."""
    answers = []
    for text, start, converted in given:
        if text.strip() and start is not None and start >= 0 and context.startswith(text, start):
            counts.mended[places.UNITS] += converted
            answers.append({"text": text, "start": start})
            continue
        if settings.answer_mismatch == "refuse":
            there = f"{context[max(0, start) :][: len(text)]!r:.60}" if start is not None else "no place"
            raise UserError(
                f"{where}: the answer {text!r:.60} is not in its context at character {start}: {there}; "
                "expected it there, or corpus.answer_mismatch: repair or drop"
            )
        repair = settings.answer_mismatch == "repair"
        place = places.find(text, context, start or 0, converted) if repair else None
        if place is None:
            counts.answers_dropped += 1
            continue
        counts.mended[place.mended] += 1
        answers.append({"text": context[place.start : place.end], "start": place.start})
    return answers


def _distinct(digests: "array[int]") -> int:
    return len(np.unique(np.array(digests, dtype=np.uint64)))


def _of_split(counts: Counts, met: set[str]) -> dict[str, Any]:
    """Return the counts of a split; met: kinds of repair, other than moving, that occur in any split."""
    return {
        "questions": counts.examples,
        "contexts": _distinct(counts.contexts),
        "answers": counts.answers,
        "unanswerable": counts.unanswerable,
        "empty_examples": counts.empty_examples,
        "duplicates": duplicates(counts.digests),
        "answers_repaired": counts.mended[places.MOVED],
        **{MENDED[kind]: counts.mended[kind] for kind in MENDED if kind in met},
        **({"answers_ignored": counts.answers_ignored} if counts.answers_ignored else {}),
        "answers_dropped": counts.answers_dropped,
        "examples_dropped": counts.examples_dropped,
    }
