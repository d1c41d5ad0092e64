"""Concerns about questions and their windows."""

from typing import Any

from finetrail.corpus.concerns import OF_FILES, Concern, counted, leaked

OF_CORPUS = OF_FILES | {
    "empty_examples": "blank questions or contexts, left out",
    "answers_repaired": "answers found elsewhere in the context, repaired",
    "answers_in_utf16_units": "answers whose start counts UTF-16 units, converted to characters",
    "answers_with_blanks": "answers with white space around them that their context lacks, repaired",
    "answers_in_another_form": "answers in another Unicode form than their context, repaired",
    "answers_ignored": "answers of questions that are marked as impossible, ignored",
    "answers_dropped": "answers that are not where they should be in the context, left out",
    "examples_dropped": "questions left out, as none of their answers was left",
    "duplicates": "questions that repeat an earlier one of their split, with its context",
}
OF_FEATURES = {
    "answers_in_no_window": "answers that are longer than a window: the model cannot give them",
    "answers_within_tokens": "answers that begin or end inside a token: no span of tokens gives them exactly",
    "examples_truncated": "questions that were cut, to leave room for the context",
}


def of_corpus(checks: dict[str, Any]) -> list[Concern]:
    """Return the concerns in checks.json."""
    return (
        counted(checks["splits"], OF_CORPUS)
        + leaked(checks["leakage"], "questions about contexts that also occur in")
        + leaked(checks["question_leakage"], "questions that are also asked in")
    )


def of_features(tables: dict[str, Any]) -> list[Concern]:
    """Return the concerns in counts.json."""
    return counted(tables, OF_FEATURES)
