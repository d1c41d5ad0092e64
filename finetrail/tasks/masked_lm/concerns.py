"""What a reader should know about the texts, and about their blocks."""

from typing import Any

from finetrail.corpus.concerns import OF_FILES, Concern, counted, leaked

OF_CORPUS = OF_FILES | {
    "empty_examples": "blank texts, left out",
    "duplicates": "texts that repeat an earlier one of their split",
}


def of_corpus(checks: dict[str, Any]) -> list[Concern]:
    """Return what checks.json says of the corpus."""
    return counted(checks["splits"], OF_CORPUS) + leaked(checks["leakage"], "texts that also occur in")


def of_features(tables: dict[str, Any]) -> list[Concern]:
    """Return none: blocks lose nothing but the end of the last one, which is counted."""
    return []
