"""Concerns about queries and documents, and their features."""

from typing import Any

from finetrail import layout
from finetrail.corpus.concerns import OF_FILES, Concern, counted, leaked

OF_QUERIES = OF_FILES | {
    "empty_examples": "queries without text, left out",
    "without_relevant_documents": "queries without a relevant document, left out",
    "query_is_document": "queries whose relevant document is the query itself",
    "duplicates": "queries that repeat an earlier one of their split",
    "own_document_left_out": "queries that are not to find the document of their own id, as it is not judged relevant",
}
OF_DOCUMENTS = OF_FILES | {
    "empty_examples": "without text, found by no words",
    "duplicates": "that repeat one before, and are wrong answers unless judged too",
}
OF_FEATURES = {
    "texts_truncated": "texts that were cut to the length of a feature",
    "left_out_by_limit": "documents left out by limit: scores are higher than among all documents",
}


def of_corpus(checks: dict[str, Any]) -> list[Concern]:
    """Return the concerns in checks.json."""
    tables = checks["splits"]
    return (
        counted({split: tables[split] for split in layout.SPLITS}, OF_QUERIES)
        + counted({"documents": tables["documents"]}, OF_DOCUMENTS)
        + leaked(checks["leakage"], "queries that also occur in")
    )


def of_features(tables: dict[str, Any]) -> list[Concern]:
    """Return the concerns in counts.json."""
    return counted(tables, OF_FEATURES)
