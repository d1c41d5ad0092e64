"""Turns raw records into sentences (id, tokens, labels), and counts them for the checks.

Texts with spans are split into words by the recipe's rule; the text and the offsets of the words are kept.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from finetrail import layout
from finetrail.corpus import spans
from finetrail.corpus.brat import DISCONTINUOUS
from finetrail.corpus.checks import LabelCounts, leakage, unseen_labels
from finetrail.corpus.duplicates import duplicates
from finetrail.corpus.readers import Record
from finetrail.corpus.tags import SHAPE, to_iob2
from finetrail.corpus.words import cut
from finetrail.errors import UserError
from finetrail.schema import SpanReader, SpanRules
from finetrail.tasks.token_classification.settings import NO_SCHEME, Corpus, Scheme, Tags

# Optional in tasks/contract.py, and not used here.
records = None

SCHEMA = pa.schema([("id", pa.string()), ("tokens", pa.list_(pa.string())), ("labels", pa.list_(pa.string()))])
PLACES = pa.list_(pa.int32())
OF_TEXTS = pa.schema([*SCHEMA, ("text", pa.string()), ("starts", PLACES), ("ends", PLACES)])

# Texts of the concerns about spans that did not fit.
MISFITS = {
    spans.EMPTY: "spans without text",
    spans.BLANKS: "spans with white space around them",
    spans.INSIDE: "spans that do not end at words",
    spans.OVERLAPPING: "spans that share words",
    spans.REPEATED: "duplicate spans, taken once",
    spans.OTHER_UNITS: "spans that would end at words in other units than reader.spans.units",
    DISCONTINUOUS: "spans in parts",
}


@dataclass
class Counts(LabelCounts):
    """Counts of one split; equal sentences have equal tokens."""

    tokens: int = 0
    empty_tokens: int = 0
    repaired_transitions: int = 0
    spans: int = 0  # as the files have them
    misfits: Counter[str] = field(default_factory=Counter)  # by MISFITS
    shown: dict[str, str] = field(default_factory=dict)  # misfit -> the first one
    left_out: Counter[str] = field(default_factory=Counter)  # annotations that a tagger does not learn, by name
    skipped: Counter[str] = field(default_factory=Counter)  # examples, by the reason


def tables(settings: Corpus) -> dict[str, pa.Schema]:
    """Return the tables of the canonical corpus."""
    if isinstance(settings.reader, SpanReader):
        schema = OF_TEXTS.with_metadata({"words": settings.reader.spans.words})
    else:
        schema = SCHEMA.with_metadata(NO_SCHEME) if settings.tags.scheme_name == "none" else SCHEMA
    return dict.fromkeys(layout.SPLITS, schema)


def rows(split: str, record: Record, settings: Corpus, counts: dict[str, Counts]) -> Iterator[tuple[str, Any]]:
    """Yield (split, row of its table) and count it; an example without tokens gives none, and is counted too.

    Raises UserError with place and id where tokens and labels do not fit together or the scheme, or where the recipe
    refuses a span.
    """
    where = record.place
    if isinstance(settings.reader, SpanReader):
        row = _of_spans(record, settings.reader.spans, where, counts[split])
    else:
        row = _of_words(record, settings, where, counts[split])
    if row is not None and not row["tokens"]:
        counts[split].empty_examples += 1
    elif row is not None:
        _count(row, counts[split])
        yield split, row


def checks(counts: dict[str, Counts], settings: Corpus) -> dict[str, Any]:
    """Return the counts of each split, their overlap, and labels that train lacks (UserError if refused)."""
    unseen = unseen_labels(counts, "tags.unseen_labels", settings.tags.unseen_labels)
    notes = [line for split, of_split in counts.items() for line in _notes(split, of_split)]
    return {
        "scheme": "none" if settings.tags.scheme_name == "none" else "IOB2",
        "splits": {split: _split_checks(of_split) for split, of_split in counts.items()},
        "leakage": leakage(counts),
        "unseen_labels": unseen,
        **({"notes": notes} if notes else {}),
    }


def summary(counts: Counts, settings: Corpus) -> str:
    """Return a summary of one split, for the log."""
    if settings.tags.scheme_name == "none":
        kinds = f"{len(counts.labels)} labels"
    else:
        kinds = f"{len({label[2:] for label in counts.labels} - {''})} entity types"
    return f"{counts.examples:,} sentences, {counts.tokens:,} tokens, {kinds}"


def _of_words(record: Record, settings: Corpus, where: str, counts: Counts) -> dict[str, Any]:
    tokens, labels = (_strings(record.values[column], column, where) for column in ("tokens", "labels"))
    if len(tokens) != len(labels):
        raise UserError(f"{where}: {len(tokens)} tokens and {len(labels)} labels; expected one label for each token")
    labels, repaired = _normalised(labels, settings.tags, where)
    counts.repaired_transitions += repaired
    return {"id": record.id, "tokens": tokens, "labels": labels}


def _of_spans(record: Record, rules: SpanRules, where: str, counts: Counts) -> dict[str, Any] | None:
    """Return the words of a text with a tag each; None if the reader skips the example."""
    values = record.values
    counts.left_out.update(values["left_out"])
    if values["skipped"] is not None:
        counts.skipped[values["skipped"]] += 1
        return None
    text, words = values["text"], cut(values["text"], rules.words)
    try:
        labels, misfits = spans.tag(text, words, values["spans"], rules)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None
    counts.spans += len(values["spans"])
    for kind, misfit in [*values["misfits"], *misfits]:
        counts.misfits[kind] += 1
        counts.shown.setdefault(kind, f"{misfit}, in example {record.id!r}")
    starts, ends = ([word[side] for word in words] for side in (0, 1))
    tokens = [text[start:end] for start, end in words]
    return {"id": record.id, "tokens": tokens, "labels": labels, "text": text, "starts": starts, "ends": ends}


def _count(row: dict[str, Any], counts: Counts) -> None:
    tokens = row["tokens"]
    counts.add(tokens)
    counts.tokens += len(tokens)
    counts.empty_tokens += tokens.count("")
    counts.add_labels(row["labels"], row["id"])


def _strings(values: Any, column: str, where: str) -> list[str]:
    if not isinstance(values, list):
        raise UserError(f"{where}: {column} is {values!r:.60}; expected a list of strings")
    for position, value in enumerate(values):
        if not isinstance(value, str):
            hint = "; numbers need names: a ClassLabel feature in Parquet" if isinstance(value, int) else ""
            raise UserError(f"{where}: {column}[{position}] is {value!r:.60}; expected a string{hint}")
    return values


def _normalised(labels: list[str], tags: Tags, where: str) -> tuple[list[str], int]:
    """Return the labels as they are stored, and the number of impossible transitions that this repaired."""
    scheme, shape = tags.scheme_name, SHAPE
    if isinstance(tags.scheme, Scheme):
        shape = tags.scheme.shape or SHAPE
        labels = [label.strip() for label in labels] if tags.scheme.strip else labels
    if scheme == "none":
        if "" in labels:
            raise UserError(f"{where}: label {labels.index('')} is empty; expected a label for each token")
        return labels, 0
    try:
        normalised, impossible = to_iob2(labels, scheme, shape)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None
    if impossible and tags.impossible_transitions == "refuse":
        position = impossible[0]
        around = labels[max(position - 1, 0) : position + 2]
        raise UserError(
            f"{where}: label {position} is {labels[position]!r} in {around}, impossible in the scheme {scheme}"
        )
    return normalised, len(impossible)


def _notes(split: str, counts: Counts) -> list[str]:
    """Return one line for each kind of lost or changed annotation, with an example if there is one."""
    lines = [f"{split}: examples {why}, left out: {count:,}" for why, count in sorted(counts.skipped.items())]
    lines += [f"{split}: {what}, left out: {count:,}" for what, count in sorted(counts.left_out.items())]
    for kind, meaning in MISFITS.items():
        if count := counts.misfits[kind]:
            lines.append(f"{split}: {meaning}: {count:,} of {counts.spans:,}, such as {counts.shown[kind]}")
    return lines


def _split_checks(counts: Counts) -> dict[str, Any]:
    return {
        "sentences": counts.examples,
        "tokens": counts.tokens,
        "empty_examples": counts.empty_examples,
        "empty_tokens": counts.empty_tokens,
        "duplicates": duplicates(counts.digests),
        "repaired_transitions": counts.repaired_transitions,
        "labels": dict(sorted(counts.labels.items())),
        **({"spans": {"read": counts.spans, **dict(sorted(counts.misfits.items()))}} if counts.spans else {}),
    }
