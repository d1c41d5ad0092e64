"""The message for a split whose texts fill no block of tokens."""

from collections.abc import Mapping
from typing import Any


def too_short(counts: Mapping[str, int], settings: Any) -> str:
    """Return the message, with the settings of tokenize that may be changed (block_size, join_documents, remainder)."""
    changes = ["a smaller one"]
    if settings.remainder == "drop":
        changes.append("tokenize.remainder: pad")
        changes += [] if settings.join_documents else ["tokenize.join_documents: true"]
    return (
        f"texts that fill no block of tokenize.block_size {settings.block_size} ({counts['examples']:,} texts with "
        f"{counts['tokens_dropped']:,} tokens); expected {', '.join(changes)}, or more text in this split"
    )
