"""Turns raw records into questions (id, title, question, context, answers), and counts what to know about a split."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa

from finetrail.corpus.duplicates import digest, duplicates, shared
from finetrail.corpus.readers import Record
from finetrail.errors import UserError
from finetrail.tasks.question_answering.settings import Corpus

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("title", pa.string()),
        ("question", pa.string()),
        ("context", pa.string()),
        # None of them: no answer in the context. start counts characters, as Python does.
        ("answers", pa.list_(pa.struct([("text", pa.string()), ("start", pa.int32())]))),
    ]
)


def _digests() -> "array[int]":
    return array("Q")


@dataclass
class Counts:
    """What is known of one split while its questions pass; 24 bytes a question."""

    questions: int = 0
    answers: int = 0
    unanswerable: int = 0
    empty_examples: int = 0
    answers_repaired: int = 0
    answers_dropped: int = 0
    examples_dropped: int = 0  # whose answers were all dropped
    digests: "array[int]" = field(default_factory=_digests)  # of each question with its context
    asked: "array[int]" = field(default_factory=_digests)  # of each question alone
    contexts: "array[int]" = field(default_factory=_digests)  # of the context of each question


def tables(settings: Corpus) -> dict[str, pa.Schema]:
    """Return the tables of data/corpus."""
    return dict.fromkeys(("train", "validation", "test"), SCHEMA)


def rows(
    table: str, record: Record, settings: Corpus, counts: dict[str, Counts]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the question of a record, and count it; none where question or context is blank, or no answer is left.

    UserError with place and id where a value is not of its type, or an answer is not where corpus.answer_mismatch
    refuses that.
    """
    where, of_table = f"{record.where}: example {record.id!r}", counts[table]
    question, context = (_text(record.values[column], column, where) for column in ("question", "context"))
    if not question.strip() or not context.strip():
        of_table.empty_examples += 1
        return
    title = record.values.get("title")
    given = _answers(record.values["answers"], where)
    answers = _located(given, context, settings, where, of_table)
    if given and not answers:
        of_table.examples_dropped += 1
        return
    of_table.questions += 1
    of_table.answers += len(answers)
    of_table.unanswerable += not answers
    of_table.digests.append(digest([question, context]))
    of_table.asked.append(digest(question))
    of_table.contexts.append(digest(context))
    title = None if title is None else _text(title, "title", where)
    yield table, {"id": record.id, "title": title, "question": question, "context": context, "answers": answers}


def checks(counts: dict[str, Counts], settings: Corpus) -> dict[str, Any]:
    """Return the counts of each split, and what splits share.

    leakage counts the questions about a context that the other split has too, whatever is asked there: who learned
    from its answers knows it. question_leakage counts questions that the other split has too, whatever their context.
    """
    pairs = list(combinations(counts, 2))
    return {
        "splits": {table: _of_split(of_table) for table, of_table in counts.items()},
        "leakage": {f"{a}/{b}": shared(counts[a].contexts, counts[b].contexts) for a, b in pairs},
        "question_leakage": {f"{a}/{b}": shared(counts[a].asked, counts[b].asked) for a, b in pairs},
    }


def summary(counts: Counts, settings: Corpus) -> str:
    """Return one split in words, for the log."""
    without = f", {counts.unanswerable:,} without an answer" if counts.unanswerable else ""
    return f"{counts.questions:,} questions about {_distinct(counts.contexts):,} contexts{without}"


def warnings(checks: dict[str, Any]) -> list[str]:
    """Return one line for each thing that somebody should look at before training."""
    told = {
        "empty_examples": "blank questions or contexts, left out",
        "answers_repaired": "answers that stood elsewhere in the context, repaired",
        "answers_dropped": "answers that do not stand where they should in the context, left out",
        "examples_dropped": "questions left out, as none of their answers was left",
    }
    lines = []
    for split, of_split in checks["splits"].items():
        lines += [f"{split}: {text}: {of_split[name]:,}" for name, text in told.items() if of_split[name]]
    for pair, count in checks["leakage"].items():
        if count:
            first, second = pair.split("/")
            lines.append(f"{second}: questions about contexts that also stand in {first}: {count:,}")
    for pair, count in checks["question_leakage"].items():
        if count:
            first, second = pair.split("/")
            lines.append(f"{second}: questions that are also asked in {first}: {count:,}")
    return lines


def _text(value: Any, column: str, where: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{where}: {column} is {value!r:.60}; expected a string")
    return value


def _answers(value: Any, where: str) -> list[tuple[str, int | None]]:
    """Return (text, start) of each answer: from a list of objects, or from the Hub's object of two lists."""
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
        found.append((_text(answer["text"], f"answers[{number}].text", where), start))
    return found


def _located(
    given: list[tuple[str, int | None]], context: str, settings: Corpus, where: str, counts: Counts
) -> list[dict[str, Any]]:
    """Return the answers where they stand in the context, and count those that stood elsewhere or nowhere."""
    answers = []
    for text, start in given:
        if not text.strip() or start is None or start < 0 or not context.startswith(text, start):
            if settings.answer_mismatch == "refuse":
                there = f"{context[max(0, start) :][: len(text)]!r:.60}" if start is not None else "no place"
                raise UserError(
                    f"{where}: the answer {text!r:.60} does not stand in its context at character {start}: {there}; "
                    "expected it there, or corpus.answer_mismatch: repair or drop"
                )
            start = _nearest(text, context, start or 0) if settings.answer_mismatch == "repair" else None
            if start is None:
                counts.answers_dropped += 1
                continue
            counts.answers_repaired += 1
        answers.append({"text": text, "start": start})
    return answers


def _nearest(text: str, context: str, start: int) -> int | None:
    """Return where the text stands nearest to the start that was given; of two places the earlier.

    Such starts are off by what was cut from the context before it, or count UTF-16 units, as JavaScript does.
    """
    if not text.strip():
        return None
    places, place = [], context.find(text)
    while place >= 0:
        places.append(place)
        place = context.find(text, place + 1)
    return min(places, key=lambda place: abs(place - start), default=None)


def _distinct(digests: "array[int]") -> int:
    return len(np.unique(np.array(digests, dtype=np.uint64)))


def _of_split(counts: Counts) -> dict[str, Any]:
    return {
        "questions": counts.questions,
        "contexts": _distinct(counts.contexts),
        "answers": counts.answers,
        "unanswerable": counts.unanswerable,
        "empty_examples": counts.empty_examples,
        "duplicates": duplicates(counts.digests),
        "answers_repaired": counts.answers_repaired,
        "answers_dropped": counts.answers_dropped,
        "examples_dropped": counts.examples_dropped,
    }
