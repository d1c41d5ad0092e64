"""Turns raw records into texts (id, text, optionally text_pair, a target), and counts them for the checks."""

import json
import math
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from finetrail import layout
from finetrail.corpus.candidates import CANDIDATE, candidate, number
from finetrail.corpus.checks import LabelCounts, leakage, no_digests, string_or_null, unseen_labels
from finetrail.corpus.duplicates import digest
from finetrail.corpus.forms import normalized
from finetrail.corpus.labels import by_frequency, shown
from finetrail.corpus.raw import listed
from finetrail.corpus.readers import Record
from finetrail.errors import UserError
from finetrail.tasks.text_classification.settings import SEPARATE_HEADS, TARGETS, Corpus, label_of

TYPES = {"label": pa.string(), "labels": pa.list_(pa.string()), "score": pa.float64()}
SHOWN_LABELS = 10


@dataclass
class Counts(LabelCounts):
    """Counts of one split; 16 bytes per text."""

    lowest: float = math.inf
    highest: float = -math.inf
    total: float = 0.0  # of all scores
    target_digests: "array[int]" = field(default_factory=no_digests)  # of each text or pair with its target


def tables(settings: Corpus) -> dict[str, pa.Schema]:
    """Return the columns of train, validation and test, and as their metadata how texts to come must be normalized."""
    texts = ["id", *_text_columns(settings)]
    target = TARGETS[settings.problem]
    metadata: dict[str, str] = {"normalize": settings.normalize} if settings.normalize != "none" else {}
    metadata |= SEPARATE_HEADS if settings.head is not None else {}
    columns = [(name, pa.string()) for name in texts] + [(target, TYPES[target])]
    columns += [("candidate", CANDIDATE)] if "candidate" in settings.reader.columns else []
    return dict.fromkeys(layout.SPLITS, pa.schema(columns, metadata or None))


def records(read: Callable[[], Iterator[Record]], settings: Corpus) -> Iterator[Record]:
    """Return the records of a split's files, with labels that one string holds as a list, which has strata."""
    if settings.label_separator is None:
        return read()
    return (
        record._replace(values=record.values | {"labels": _parted(record.values["labels"], settings.label_separator)})
        for record in read()
    )


def rows(
    table: str, record: Record, settings: Corpus, counts: dict[str, Counts]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the row of one record and count it; none for a blank text (or one of a pair), which is counted too.

    Raises UserError with place and id if a text or its target does not match the recipe.
    """
    where, of_split = record.place, counts[table]
    texts = [_text(record.values[column], column, settings, where) for column in _text_columns(settings)]
    if any(not text.strip() for text in texts):
        of_split.empty_examples += 1
        return
    column = TARGETS[settings.problem]
    target = TARGET_READERS[settings.problem](record.values[column], settings, where)
    row = {"id": record.id, **dict(zip(_text_columns(settings), texts, strict=True)), column: target}
    if "candidate" in settings.reader.columns:
        row["candidate"] = candidate(record.values["candidate"], where)
    _count(of_split, record.id, texts, target)
    yield table, row


def checks(counts: dict[str, Counts], settings: Corpus) -> dict[str, Any]:
    """Return the counts of each split, their overlap, and labels that train lacks (UserError if refused)."""
    unseen = unseen_labels(counts, "unseen_labels", settings.unseen_labels)
    return {
        "problem": settings.problem,
        "splits": {split: _split_checks(of_split, settings) for split, of_split in counts.items()},
        "leakage": leakage(counts),
        "unseen_labels": unseen,
    }


def summary(counts: Counts, settings: Corpus) -> str:
    """Return a summary of one split, for the log, with the distribution of its labels."""
    examples = f"{counts.examples:,} {'pairs' if 'text_pair' in settings.reader.columns else 'texts'}"
    if settings.problem == "regression":
        return f"{examples}, scores from {counts.lowest:g} to {counts.highest:g}, mean {_mean(counts):.4g}"
    shares = [f"{shown(label)} {count / counts.examples:.1%}" for label, count in by_frequency(counts.labels)]
    if len(shares) > SHOWN_LABELS:
        shares = [*shares[: SHOWN_LABELS - 1], "...", shares[-1]]
    return f"{examples}, {len(counts.labels)} labels: {', '.join(shares)}"


def _text_columns(settings: Corpus) -> list[str]:
    return [column for column in ("text", "text_pair") if column in settings.reader.columns]


def _text(value: Any, column: str, settings: Corpus, where: str) -> str:
    text = string_or_null(value, column, where)
    return normalized("NFC", text) if settings.normalize == "nfc" else text


def _label(value: Any, settings: Corpus, where: str) -> str:
    if isinstance(value, int):
        value = json.dumps(value)  # as the file has it: 1, or true
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: the label is {value!r:.60}; expected a name or a whole number")
    if isinstance(settings.label_map, dict):
        if value not in settings.label_map:
            raise UserError(f"{where}: the label is {value!r:.60}; corpus.label_map has {listed(settings.label_map)}")
        value = settings.label_map[value]
    elif settings.label_map == "strip":
        value = value.strip()
    return value if settings.head is None else label_of(settings.head, value)


def _labels(value: Any, settings: Corpus, where: str) -> list[str]:
    if settings.label_separator is not None:
        value = _parted(value, settings.label_separator)
    if not isinstance(value, list):
        raise UserError(f"{where}: labels is {value!r:.60}; expected a list, or a string and corpus.label_separator")
    return list(dict.fromkeys(_label(item, settings, where) for item in value))


def _parted(value: Any, separator: str) -> Any:
    """Return the labels in a string; any other value unchanged."""
    if not isinstance(value, str):
        return value
    return [part.strip() for part in value.split(separator)] if value.strip() else []


def _score(value: Any, settings: Corpus, where: str) -> float:
    return number(value, f"{where}: the score")


TARGET_READERS = {"single_label": _label, "multi_label": _labels, "regression": _score}


def _count(counts: Counts, example: str, texts: list[str], target: Any) -> None:
    counts.add(texts, sum(map(len, texts)))
    counts.target_digests.append(digest([*texts, json.dumps(sorted(target) if isinstance(target, list) else target)]))
    if isinstance(target, float):
        counts.lowest, counts.highest = min(counts.lowest, target), max(counts.highest, target)
        counts.total += target
        return
    counts.add_labels([target] if isinstance(target, str) else target, example)


def _split_checks(counts: Counts, settings: Corpus) -> dict[str, Any]:
    found = counts.of_texts() | {"contradictions": _contradictions(counts)}
    if settings.problem != "regression":
        return found | {"labels": dict(sorted(counts.labels.items()))}
    return found | {"scores": {"lowest": counts.lowest, "highest": counts.highest, "mean": _mean(counts)}}


def _contradictions(counts: Counts) -> int:
    """Return the number of distinct texts that occur with more than one target."""
    texts, targets = (np.array(digests, dtype=np.uint64) for digests in (counts.digests, counts.target_digests))
    _, first = np.unique(targets, return_index=True)
    _, times = np.unique(texts[first], return_counts=True)
    return int((times > 1).sum())


def _mean(counts: Counts) -> float:
    return counts.total / max(counts.examples, 1)
