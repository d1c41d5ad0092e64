"""Concerns about texts and their targets, and their features."""

from collections import Counter
from typing import Any

from finetrail.corpus.concerns import ALIKE, OF_FILES, Concern, counted, leaked, unseen
from finetrail.corpus.labels import alike, by_frequency, shown

OF_CORPUS = OF_FILES | {
    "empty_examples": "examples without text, left out",
    "contradictions": "texts that occur with different targets",
    "duplicates": "texts that repeat an earlier one of their split",
}
OF_FEATURES = {"examples_truncated": "examples that were cut to the length of a feature"}
IMBALANCED = 10  # ratio of label frequencies in train above which there is a concern


def of_corpus(checks: dict[str, Any]) -> list[Concern]:
    """Return the concerns in checks.json."""
    tables = checks["splits"]
    all_labels = sum((Counter(of_split.get("labels", {})) for of_split in tables.values()), Counter[str]())
    return (
        counted(tables, OF_CORPUS)
        + _of_frequencies(by_frequency(tables["train"].get("labels", {})))
        + [Concern(f"labels {ALIKE}", line) for line in alike(all_labels)]
        + leaked(checks["leakage"], "texts that also occur in")
        + unseen(checks["unseen_labels"])
    )


def of_features(tables: dict[str, Any]) -> list[Concern]:
    """Return the concerns in counts.json."""
    return counted(tables, OF_FEATURES)


def _of_frequencies(labels: list[tuple[str, int]]) -> list[Concern]:
    if not labels:
        return []
    (most, many), (least, few) = labels[0], labels[-1]
    if len(labels) == 1:
        return [Concern("train", f"all texts have one label, {shown(most)}: there is nothing to learn")]
    if many > IMBALANCED * few:
        return [Concern("train", f"imbalanced: {shown(most)} occurs {many:,} times, {shown(least)} {few:,}")]
    return []
