"""Concerns about the texts and their blocks."""

from typing import Any

from finetrail.corpus.concerns import OF_FILES, Concern, counted, leaked

OF_CORPUS = OF_FILES | {
    "empty_examples": "blank texts, left out",
    "duplicates": "texts that repeat an earlier one of their split",
}


def of_corpus(checks: dict[str, Any]) -> list[Concern]:
    """Return the concerns in checks.json."""
    return counted(checks["splits"], OF_CORPUS) + leaked(checks["leakage"], "texts that also occur in")


def of_features(tables: dict[str, Any]) -> list[Concern]:
    """Return an empty list: blocks lose only the end of the last one, which is counted."""
    return []
