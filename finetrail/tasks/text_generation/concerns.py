"""Concerns about texts, completions and conversations, and their blocks."""

from typing import Any

from finetrail.corpus.concerns import OF_FILES, Concern, counted, leaked

OF_CORPUS = OF_FILES | {
    "empty_examples": "examples without text, left out",
    "turns_behind": "turns after the assistant's last one, left out",
    "duplicates": "examples that repeat an earlier one of their split",
}
OF_FEATURES = {
    "conversations_left_out": "conversations that the chat template refuses, left out",
    "completions_truncated": "completions cut to what a block leaves them: their ends are neither learned nor scored",
    "examples_truncated": "examples that were cut to the length of a block",
}


def of_corpus(checks: dict[str, Any]) -> list[Concern]:
    """Return the concerns in checks.json."""
    tables = checks["splits"]
    return (
        [concern for split, found in tables.items() for concern in _of_conversations(split, found)]
        + counted(tables, OF_CORPUS)
        + leaked(checks["leakage"], "examples that also occur in")
    )


def of_features(tables: dict[str, Any]) -> list[Concern]:
    """Return the concerns in counts.json."""
    return counted(tables, OF_FEATURES)


def _of_conversations(split: str, found: dict[str, Any]) -> list[Concern]:
    unread = [
        Concern(split, f"messages with {key!r}, which is not read", n) for key, n in found.get("unread", {}).items()
    ]
    if not found.get("bad_conversations"):
        return unread
    first = ": ".join(found["first_bad_conversation"].values())
    return [Concern(split, f"conversations left out: {found['bad_conversations']:,}, the first: {first}"), *unread]
