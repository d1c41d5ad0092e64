"""Turns features and a model's outputs into word-level predictions, and those into scores, tables and baselines."""

from collections import Counter
from collections.abc import Callable, Collection
from itertools import accumulate, chain, compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import softmax

from finetrail.encoding import padding, ragged
from finetrail.evaluation import inference, slicing
from finetrail.evaluation.bootstrap import Statistic
from finetrail.evaluation.errors import chosen
from finetrail.evaluation.slicing import Slicing
from finetrail.evaluation.splits import Encoded, slice_columns
from finetrail.tasks.token_classification import metrics
from finetrail.tasks.token_classification.settings import NO_SCHEME, OFFSETS, Evaluate, Target, label_names

if TYPE_CHECKING:
    from finetrail.tasks.contract import Outcome, Row

# Optional in tasks/contract.py, and not used here.
beside = candidates = settle = alone = None

CONTEXT_WORDS = 6  # on each side of an error


def get_entities(labels: list[str]) -> list[tuple[str, int, int]]:
    """Return (type, first, last) of each entity."""
    from seqeval.metrics.sequence_labeling import (
        get_entities as found,  # imports scikit-learn, which inference does not need
    )

    return found(labels)


def predict(
    split: Encoded,
    shared: dict[str, Encoded],
    target: Target,
    forward: inference.Forward,
    tokenizer: Any,
    settings: Evaluate,
) -> pa.Table:
    """Label every word of the examples once: columns id, tokens, references, predictions, confidences (softmax).

    If the words were cut out of texts, the texts and the places of the words (OFFSETS) are further columns.
    A word without subwords, which no model sees, gets O (or the first label) with confidence 0; inside of an entity,
    its I-.
    """
    examples, features = split
    starts = ragged.bounds(pc.list_value_length(examples["tokens"]).to_numpy())
    names = label_names(target)
    label_ids = np.full(starts[-1], names.index("O") if "O" in names else 0)
    confidences = np.zeros(starts[-1], dtype=np.float32)
    seen = np.zeros(starts[-1], dtype=bool)
    sentence = np.unique(features["example"].to_numpy(), return_inverse=True)[1]
    (words, counts), (positions, _) = (padding.runs(features[name]) for name in ("words", "positions"))
    bounds = ragged.bounds(counts)
    for rows, outputs in inference.forward_batches(features, forward, tokenizer.pad_token_id, settings.batch_size):
        probabilities = softmax(outputs["logits"], axis=-1)
        for row, feature in zip(rows, probabilities, strict=True):
            own = slice(bounds[row], bounds[row + 1])
            scored, word = feature[positions[own]], starts[sentence[row]] + words[own]
            label_ids[word], confidences[word], seen[word] = scored.argmax(-1), scored.max(-1, initial=0), True
    labels = np.array(names, dtype=object)[label_ids]
    if metrics.has_entities(target):
        _bridge(labels, seen, starts)
    metadata = None if metrics.has_entities(target) else NO_SCHEME
    return pa.table(
        {
            "id": examples["id"],
            "tokens": examples["tokens"],
            "references": examples["labels"],
            "predictions": pa.ListArray.from_arrays(starts.astype(np.int32), pa.array(labels, pa.string())),
            "confidences": pa.ListArray.from_arrays(starts.astype(np.int32), confidences),
            **{name: examples[name] for name in OFFSETS if name in examples.column_names},
            **slice_columns(examples),
        },
        metadata=metadata,
    )


def headline(target: Target, settings: Evaluate) -> str:
    return "f1" if metrics.has_entities(target) else "accuracy"


def score(predictions: pa.Table, target: Target, settings: Evaluate) -> dict[str, float]:
    """Return the scores, each in [0, 1]."""
    return metrics.compute(*_lists(predictions), target)


def units(predictions: pa.Table) -> pa.Table:
    """Return all rows: a row per sentence."""
    return predictions


def statistics(units: pa.Table, target: Target, settings: Evaluate) -> Statistic:
    counts = metrics.count(*_lists(units), target)
    return lambda weights: metrics.scores(weights @ counts, target)


def outcomes(units: pa.Table, target: Target, settings: Evaluate) -> "list[Outcome]":
    """Return the outcome of each sentence; its score is 1 if all labels are correct, else 0."""
    entities = metrics.has_entities(target)
    return [
        {
            "score": float(row["references"] == row["predictions"]),
            "input": " ".join(row["tokens"]),
            "reference": _marked(row["tokens"], row["references"], entities),
            "prediction": _marked(row["tokens"], row["predictions"], entities),
        }
        for row in units.to_pylist()
    ]


def slicings(units: pa.Table, train: pa.Table, target: Target) -> list[Slicing]:
    """Slice sentences by length and columns, and entities or single words by label and novelty."""
    known = {token.lower() for token in _distinct(train["tokens"])}
    counts = _counted(train["labels"])
    if metrics.has_entities(target):
        # The corpus is IOB2, so each entity has one B-.
        counts = Counter({label[2:]: count for label, count in counts.items() if label.startswith("B-")})
        kinds = {label[2:] for name in ("references", "predictions") for label in _distinct(units[name])} - {""}
        name, unseen, take = "entity type", ("all words in train", "a word that train lacks"), _of_entities
    else:
        kinds = set(_distinct(units["references"]))
        name, unseen, take = "label", ("in train", "not in train"), _of_words
    by_kind = slicing.by_frequency(kinds, counts)
    by_novelty = take(lambda kind, words: unseen[any(word.lower() not in known for word in words)])
    return [
        slicing.by_length("length in words", units["tokens"].to_pylist()),
        Slicing(name, list(dict.fromkeys(by_kind.values())), take(lambda kind, words: by_kind.get(kind, ""))),
        Slicing("unseen words", list(unseen), by_novelty),
        *slicing.by_columns(units),
    ]


def counted(units: pa.Table, target: Target) -> np.ndarray:
    """Return which sentences change the headline: one without any entity does not change F1."""
    if not metrics.has_entities(target):
        return np.ones(len(units), dtype=bool)
    return np.array([any(label != "O" for label in chain(*pair)) for pair in zip(*_lists(units), strict=True)])


# The slice of an entity, or of a word, by its type and its words.
SliceOf = Callable[[str, list[str]], str]


def _of_entities(slice_of: SliceOf) -> Callable[[pa.Table, Collection[str]], pa.Table]:
    """Return the function that keeps the entities of some slices; others become O, also predicted ones."""

    def kept(tokens: list[str], labels: list[str], names: Collection[str]) -> list[str]:
        found = ["O"] * len(labels)
        for kind, start, end in get_entities(labels):
            if slice_of(kind, tokens[start : end + 1]) in names:
                found[start : end + 1] = [f"B-{kind}", *[f"I-{kind}"] * (end - start)]
        return found

    def take(units: pa.Table, names: Collection[str]) -> pa.Table:
        tokens = units["tokens"].to_pylist()
        for name in ("references", "predictions"):
            labels = [kept(*of_one, names) for of_one in zip(tokens, units[name].to_pylist(), strict=True)]
            units = units.set_column(units.column_names.index(name), name, pa.array(labels, pa.list_(pa.string())))
        return units

    return take


def _of_words(slice_of: SliceOf) -> Callable[[pa.Table, Collection[str]], pa.Table]:
    """Return the function that keeps the words of some slices per sentence, by their references."""

    def take(units: pa.Table, names: Collection[str]) -> pa.Table:
        pairs = zip(units["tokens"].to_pylist(), units["references"].to_pylist(), strict=True)
        kept = [[slice_of(label, [token]) in names for token, label in zip(*pair, strict=True)] for pair in pairs]
        for name in ("references", "predictions"):
            labels = [list(compress(*of_one)) for of_one in zip(units[name].to_pylist(), kept, strict=True)]
            units = units.set_column(units.column_names.index(name), name, pa.array(labels, pa.list_(pa.string())))
        return units

    return take


def tables(predictions: pa.Table, target: Target, settings: Evaluate) -> "dict[str, list[Row]]":
    """Return per_label, and confusion of words without the prefix of their label."""
    references, predicted = _lists(predictions)
    counts = metrics.count(references, predicted, target).sum(0)
    per_label = metrics.per_unit(counts, metrics.units(references, predicted, target))
    entities = metrics.has_entities(target)
    pairs = Counter(
        (_kind(expected, entities), _kind(found, entities))
        for sentence in zip(references, predicted, strict=True)
        for expected, found in zip(*sentence, strict=True)
    )
    confusion = [{"reference": a, "prediction": b, "count": count} for (a, b), count in sorted(pairs.items())]
    return {"per_label": per_label, "confusion": confusion}


def worst_errors(predictions: pa.Table, most: int, target: Target, settings: Evaluate) -> "list[Row]":
    """Return the words with wrong labels, the most confident first, in context.

    Each confusion is represented, as far as `most` allows.
    """
    entities = metrics.has_entities(target)
    labels = [pc.list_flatten(predictions[name]) for name in ("references", "predictions")]
    wrong = np.flatnonzero(pc.not_equal(*labels).to_numpy())
    starts = ragged.bounds(pc.list_value_length(predictions["references"]).to_numpy())
    rows = np.searchsorted(starts, wrong, side="right") - 1
    sure = pc.list_flatten(predictions["confidences"]).take(pa.array(wrong))
    found = pa.table({"sure": sure, "id": predictions["id"].take(pa.array(rows)), "position": wrong - starts[rows]})
    order = pc.sort_indices(found, [("sure", "descending"), ("id", "ascending"), ("position", "ascending")]).to_numpy()
    pairs = zip(*(column.take(pa.array(wrong[order])).to_pylist() for column in labels), strict=True)
    kinds = [tuple(_kind(label, entities) for label in pair) for pair in pairs]
    taken = order[chosen(kinds, most)]
    errors = predictions.take(pa.array(rows[taken])).to_pylist()
    positions = found["position"].take(pa.array(taken)).to_pylist()
    return [_in_context(row, position, entities) for row, position in zip(errors, positions, strict=True)]


def base_is_baseline(base_model: Path) -> bool:
    """Return False: before training, the head is new."""
    return False


def baselines(
    train: Encoded, split: Encoded, shared: dict[str, Encoded], target: Target, settings: Evaluate
) -> dict[str, pa.Table]:
    """Return each word's most frequent label in train, and one label for all words.

    A word that train lacks gets the most frequent label, which is O for entities.
    """
    common = "O" if metrics.has_entities(target) else _most_common(_counted(train.examples["labels"]))
    pairs = pa.table([pc.list_flatten(train.examples[name]) for name in ("tokens", "labels")], ["token", "label"])
    # The most frequent label of a token comes first; ties in alphabetical order.
    keys = [("token", "ascending"), ("count_all", "descending"), ("label", "ascending")]
    ranked = pairs.group_by(["token", "label"]).aggregate([([], "count_all")]).sort_by(keys).combine_chunks()
    tokens, references = split.examples["tokens"].combine_chunks(), split.examples["labels"]
    known = ranked["token"].combine_chunks()
    first = np.append(True, pc.not_equal(known[1:], known[:-1]).to_numpy(zero_copy_only=False))
    known, labels = (ranked[name].combine_chunks().filter(pa.array(first)) for name in ("token", "label"))
    best = pc.fill_null(labels.take(pc.index_in(tokens.flatten(), value_set=known)), common)
    guesses = {
        "most_frequent_label_of_word": best,
        f"everything_{common}": pa.array(np.full(len(best), common, dtype=object), pa.string()),
    }
    sizes = pc.list_value_length(tokens).to_numpy()
    return {
        name: pa.table({"references": references, "predictions": ragged.runs(sizes, labels)})
        for name, labels in guesses.items()
    }


def _bridge(labels: np.ndarray, seen: np.ndarray, starts: np.ndarray) -> None:
    """Extend entities over inner words that no model sees, in place.

    An example is the blank in a date if tokens are characters: with O there, the date would be two entities.
    """
    words = np.flatnonzero(seen)
    sentence = np.searchsorted(starts, words, side="right")
    gaps = (np.diff(words) > 1) & (np.diff(sentence) == 0)
    for before, after in zip(words[:-1][gaps], words[1:][gaps], strict=True):
        if labels[after].startswith("I-") and labels[before][1:] == labels[after][1:]:
            labels[before + 1 : after] = labels[after]


def _marked(tokens: list[str], labels: list[str], entities: bool) -> str:
    """Return "LOC: New York, PER: Ada", or all labels if they are not entities."""
    if not entities:
        return " ".join(labels)
    return ", ".join(f"{kind}: {' '.join(tokens[start : end + 1])}" for kind, start, end in get_entities(labels))


def _distinct(lists: pa.ChunkedArray) -> list[str]:
    return pc.unique(pc.list_flatten(lists)).to_pylist()


def _counted(lists: pa.ChunkedArray) -> Counter[str]:
    values = pc.value_counts(pc.list_flatten(lists))
    return Counter(dict(zip(*(values.field(name).to_pylist() for name in ("values", "counts")), strict=True)))


def _lists(predictions: pa.Table) -> tuple[list[list[str]], list[list[str]]]:
    return predictions["references"].to_pylist(), predictions["predictions"].to_pylist()


def _kind(label: str, entities: bool) -> str:
    return label[2:] if entities and label != "O" else label


def _most_common(counts: Counter[str]) -> str:
    """Return the most frequent label; ties in alphabetical order."""
    return min(counts, key=lambda label: (-counts[label], label))


def _in_context(row: dict[str, Any], position: int, entities: bool) -> dict[str, Any]:
    """Return one error and, if labels are tags of entities, the entities in its context."""
    first, end = max(0, position - CONTEXT_WORDS), position + 1 + CONTEXT_WORDS
    tokens = row["tokens"][first:end]
    error = {
        "id": row["id"],
        "position": position,
        "left": " ".join(tokens[: position - first]),
        "token": row["tokens"][position],
        "right": " ".join(tokens[position - first + 1 :]),
        "reference": row["references"][position],
        "prediction": row["predictions"][position],
        "confidence": round(float(row["confidences"][position]), 4),
    }
    spans = {of: _spans(tokens, row[of][first:end]) for of in ("references", "predictions")}
    return error | ({"spans": spans} if entities else {})


def _spans(tokens: list[str], labels: list[str]) -> list[list[Any]]:
    """Return [start, end, kind] of each entity, in characters of the tokens with blanks between them."""
    starts = list(accumulate((len(token) + 1 for token in tokens), initial=0))
    return [[starts[first], starts[last + 1] - 1, kind] for kind, first, last in get_entities(labels)]
