"""Concerns about sentences and their labels, and their features."""

from collections import Counter
from typing import Any

from finetrail.corpus.concerns import ALIKE, OF_FILES, Concern, counted, leaked, unseen
from finetrail.corpus.labels import alike, shown

OF_CORPUS = OF_FILES | {
    "empty_examples": "examples without tokens, left out",
    "repaired_transitions": "impossible tag transitions, repaired",
    "empty_tokens": "tokens without a character, which no model sees",
    "duplicates": "sentences that repeat an earlier one of their split",
}
OF_FEATURES = {"words_without_subwords": "words that the tokenizer turns into nothing: the model never sees them"}


def of_corpus(checks: dict[str, Any]) -> list[Concern]:
    """Return the concerns in checks.json."""
    kinds = f"{'labels' if checks['scheme'] == 'none' else 'entity types'} {ALIKE}"
    return (
        counted(checks["splits"], OF_CORPUS)
        + [Concern(*note.split(": ", 1)) for note in checks.get("notes", [])]
        + _of_single(checks["splits"]["train"]["labels"])
        + [Concern(kinds, line) for line in alike(_kinds(checks))]
        + leaked(checks["leakage"], "sentences that also occur in")
        + unseen(checks["unseen_labels"])
    )


def of_features(tables: dict[str, Any]) -> list[Concern]:
    """Return the concerns in counts.json."""
    return counted(tables, OF_FEATURES)


def _of_single(labels: dict[str, int]) -> list[Concern]:
    if len(labels) > 1:
        return []
    return [Concern("train", f"all tokens have one label, {''.join(map(shown, labels))}: there is nothing to learn")]


def _kinds(checks: dict[str, Any]) -> Counter[str]:
    """Return how many tokens of all splits have each label, or each entity type if labels are tags."""
    kinds: Counter[str] = Counter()
    for of_split in checks["splits"].values():
        for label, count in of_split["labels"].items():
            kinds[label if checks["scheme"] == "none" or label == "O" else label[2:]] += count
    return kinds
