"""Turns raw records into texts (id, prompt, text) or conversations, and counts them for the checks."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from finetrail import layout
from finetrail.corpus.checks import TableCounts, leakage, string_or_null
from finetrail.corpus.conversations import BadConversation, conversation
from finetrail.corpus.readers import Record
from finetrail.errors import UserError
from finetrail.tasks.text_generation.settings import Corpus

# Optional in tasks/contract.py, and not used here.
records = None

# prompt is null in a document; text is the document, or the prompt's completion.
SCHEMA = pa.schema([("id", pa.string()), ("prompt", pa.string()), ("text", pa.string())])
MESSAGES = pa.field("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])))
# place: file and line or row, for messages; a conversation ends with the assistant's turn.
CONVERSATIONS = pa.schema([("id", pa.string()), ("place", pa.string()), MESSAGES])


@dataclass
class Counts(TableCounts):
    """Counts of one split; equal examples have equal prompts and texts, or equal messages."""

    turns: int = 0  # of the assistant
    bad_conversations: int = 0
    first_bad: dict[str, str] = field(default_factory=dict)  # its place and its problem
    turns_behind: int = 0  # turns after the assistant's last one, which are not learned
    unread: Counter[str] = field(default_factory=Counter)  # keys of messages


def tables(settings: Corpus) -> dict[str, pa.Schema]:
    """Return the Parquet files of data/corpus with their columns."""
    return dict.fromkeys(layout.SPLITS, CONVERSATIONS if "messages" in settings.reader.columns else SCHEMA)


def rows(
    table: str, record: Record, settings: Corpus, counts: dict[str, Counts]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the row of an example and count it; none for an empty one, or a bad conversation, which is counted too.

    Raises UserError with place and id where a column holds no string, or a conversation is to be refused.
    """
    where = record.place
    if "messages" in settings.reader.columns:
        yield from ((table, row) for row in _conversations(record, where, settings, counts[table]))
        return
    texts = {
        column: string_or_null(record.values[column], column, where)
        for column in ("prompt", "completion", "text")
        if column in settings.reader.columns
    }
    if not all(text.strip() for text in texts.values()):
        counts[table].empty_examples += 1
        return
    row = {"id": record.id, "prompt": texts.get("prompt"), "text": texts.get("completion", texts.get("text"))}
    counts[table].add([row["prompt"], row["text"]], sum(map(len, texts.values())))
    yield table, row


def _conversations(record: Record, where: str, settings: Corpus, counts: Counts) -> Iterator[dict[str, Any]]:
    """Yield the conversation of a record, up to the assistant's last turn, or none."""
    try:
        messages = conversation(record.values["messages"], counts.unread)
        answers = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
        if not answers:
            raise BadConversation("no turn of the assistant; expected one to learn from")
    except BadConversation as error:
        if settings.bad_conversations == "refuse":
            raise UserError(f"{where}: {error}; or corpus.bad_conversations: leave_out") from None
        counts.bad_conversations += 1
        counts.first_bad = counts.first_bad or {"place": where, "reason": str(error)}
        return
    counts.turns_behind += len(messages) - answers[-1] - 1
    messages = messages[: answers[-1] + 1]
    counts.turns += len(answers)
    counts.add([[*message.values()] for message in messages], sum(len(message["content"]) for message in messages))
    yield {"id": record.id, "place": record.where, "messages": messages}


def checks(counts: dict[str, Counts], settings: Corpus) -> dict[str, Any]:
    """Return the counts of each split, and how many examples two splits share."""
    return {
        "splits": {split: _split_checks(of_split, settings) for split, of_split in counts.items()},
        "leakage": leakage(counts),
    }


def summary(counts: Counts, settings: Corpus) -> str:
    """Return a summary of one split, for the log."""
    if "messages" in settings.reader.columns:
        turns = f"{counts.turns:,} turns of the assistant"
        return f"{counts.examples:,} conversations, {turns}, {counts.characters:,} characters"
    kind = "completions" if "prompt" in settings.reader.columns else "documents"
    return f"{counts.examples:,} {kind}, {counts.characters:,} characters"


def _split_checks(counts: Counts, settings: Corpus) -> dict[str, Any]:
    found: dict[str, Any] = {**counts.of_texts()}
    if "messages" in settings.reader.columns:
        found |= {
            "assistant_turns": counts.turns,
            "bad_conversations": counts.bad_conversations,
            "first_bad_conversation": counts.first_bad,
            "turns_behind": counts.turns_behind,
            "unread": dict(sorted(counts.unread.items())),
        }
    return found
