"""Turns features and a model's outputs into a prediction for each text, and those into scores, tables and baselines."""

import math
import re
from collections import Counter
from collections.abc import Collection, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import expit, softmax

from finetrail import layout
from finetrail.errors import UserError
from finetrail.evaluation import inference, label_scores, ranking, slicing
from finetrail.evaluation.bootstrap import Statistic
from finetrail.evaluation.errors import chosen
from finetrail.evaluation.ratios import ratio
from finetrail.evaluation.slicing import Slicing
from finetrail.evaluation.splits import Encoded, slice_columns
from finetrail.tasks.text_classification import metrics
from finetrail.tasks.text_classification.settings import TARGETS, Evaluate, Target, heads_of, label_of

if TYPE_CHECKING:
    from finetrail.tasks.contract import Outcome, Row

# Optional in tasks/contract.py, and not used here.
candidates = settle = None

TEXTS = ("text", "text_pair")
BINS = 15  # of the calibration error, as in Guo et al. 2017
SHOWN_CHARACTERS = 300  # of a text among the worst errors
# The bag of words is fit to at most so many texts, spread evenly over train: minutes, whatever the corpus.
MOST_FITTED = 50_000
ROWS_AT_ONCE = 10_000  # of predictions, as Python's objects
MOST_CLASSES = 200  # of a bag of words: beyond it fitting takes hours, and gigabytes
NUMBERS_AT_ONCE = 1 << 23  # bounds the memory of a block of texts by all labels
MOST_LABELS, LISTED = 1_000, 10  # of more labels, the probabilities of the best are kept
# The rank of the first relevant document among a query's candidates; 0: it is not among them.
FIRST_RELEVANT = (("first", 1, 1), ("2 to 3", 2, 3), ("4 to 10", 4, 10), ("below 10", 11, math.inf), ("nowhere", 0, 0))
WORDS = r"(?u)\w+|[^\w\s]"  # and marks such as ! and emoji


def predict(
    split: Encoded,
    shared: dict[str, Encoded],
    target: Target,
    forward: inference.Forward,
    tokenizer: Any,
    settings: Evaluate,
) -> pa.Table:
    """Predict each text once, from the pooled logits of its features.

    Columns: id, text, text_pair (of pairs), candidate (of those of a first stage), references, predictions; of labels
    also confidences (of what is predicted) and probabilities (a struct of all labels; of more than MOST_LABELS single
    ones a map of the LISTED most probable).
    """
    examples, features = split
    text = np.unique(features["example"].to_numpy(), return_inverse=True)[1]
    columns: dict[str, list[pa.Array]] = {}
    step = texts_at_once(target)
    for start in range(0, max(len(examples), 1), step):
        some = examples.slice(start, step)
        first, end = np.searchsorted(text, [start, start + step])  # features of a text are adjacent
        logits = _logits(features.slice(first, end - first), target, forward, tokenizer, settings)
        pooled = label_scores.pool(logits, text[first:end] - start, len(some), settings.pool)
        pooled = np.where(own_outputs(some, target), pooled, -np.inf)
        for name, values in decide(pooled, target, settings).items():
            columns.setdefault(name, []).append(values)
    decided = {name: pa.chunked_array(parts) for name, parts in columns.items()}
    column = TARGETS[target["problem"]]
    references = examples[column] if column in examples.column_names else pa.nulls(len(examples))
    inputs = {name: examples[name] for name in ("id", *TEXTS, "candidate") if name in examples.column_names}
    inputs |= slice_columns(examples)
    return pa.table(inputs | {"references": references} | decided)


def texts_at_once(target: Target) -> int:
    """Return for how many texts the numbers of all labels are in memory together."""
    return max(1, NUMBERS_AT_ONCE // max(len(target["label_names"]), 1))


def _logits(
    features: pa.Table, target: Target, forward: inference.Forward, tokenizer: Any, settings: Evaluate
) -> np.ndarray:
    """Return the model's output for each feature: float32 [features, labels]."""
    logits = np.zeros((len(features), max(len(target["label_names"]), 1)), dtype=np.float32)
    for rows, outputs in inference.forward_batches(features, forward, tokenizer.pad_token_id, settings.batch_size):
        logits[rows] = outputs["logits"]
    return logits


def own_outputs(examples: pa.Table, target: Target) -> np.ndarray:
    """Return which outputs are a text's, those of its part's head: bool [texts, labels]; all, [1, 1], of one head.

    UserError if nothing says which part a text belongs to.
    """
    heads = heads_of(target)
    if not heads:
        return np.ones((1, 1), dtype=bool)
    if layout.PART not in examples.column_names:
        first = next(iter(heads))
        raise UserError(f"the model has heads for {', '.join(heads)}; expected the folder of one: parts/{first}")
    found = np.zeros((len(examples), len(target["label_names"])), dtype=bool)
    for row, part in zip(found, examples[layout.PART].to_pylist(), strict=True):
        row[heads[part]] = True
    return found


def alone(table: pa.Table, part: str, target: Target) -> pa.Table:
    """Return examples or predictions of one part as they are of a model with its head alone."""
    table = table.drop_columns(layout.PART)
    for index, name in enumerate(table.column_names):
        if name in ("label", "references", "predictions"):
            labels = pc.replace_substring_regex(table[name], f"^{re.escape(label_of(part, ''))}", "")
            table = table.set_column(index, name, labels)
        elif name == "probabilities":
            outputs = heads_of(target)[part]
            names = [target["label_names"][output].partition("/")[2] for output in outputs]
            columns = table[name].combine_chunks().flatten()
            kept = pa.StructArray.from_arrays([columns[output] for output in outputs], names)
            table = table.set_column(index, name, kept)
    return table


def decide(logits: np.ndarray, target: Target, settings: Evaluate) -> dict[str, pa.Array]:
    """Turn logits [texts, labels] into the column predictions, and of labels also confidences and probabilities."""
    if target["problem"] == "regression":
        return {"predictions": pa.array(logits[:, 0].astype(np.float64))}
    single = target["problem"] == "single_label"
    values = logits.astype(np.float64)  # so that probabilities sum to 1
    return labelled(softmax(values, axis=-1) if single else expit(values), target, settings)


def labelled(probabilities: np.ndarray, target: Target, settings: Evaluate) -> dict[str, pa.Array]:
    """Choose the label, or the labels, of each text by probabilities [texts, labels]."""
    names = target["label_names"]
    columns = {"probabilities": _by_label_name(probabilities.astype(np.float32), target)}
    if target["problem"] == "single_label":
        best = probabilities.argmax(-1)
        confidences = probabilities[np.arange(len(best)), best].astype(np.float32)
        return {
            "predictions": pa.array([names[label] for label in best]),
            "confidences": pa.array(confidences),
        } | columns
    decisions = probabilities >= settings.threshold
    confidences = [row[chosen].tolist() for row, chosen in zip(probabilities, decisions, strict=True)]
    return {
        "predictions": pa.array(label_scores.chosen(decisions, names), pa.list_(pa.string())),
        "confidences": pa.array(confidences, pa.list_(pa.float32())),
    } | columns


def _by_label_name(probabilities: np.ndarray, target: Target) -> pa.Array:
    """Return a struct of the probabilities of all labels; of very many single ones, a map of the highest."""
    names = target["label_names"]
    if len(names) <= MOST_LABELS or target["problem"] != "single_label" or heads_of(target):
        return pa.StructArray.from_arrays([pa.array(column) for column in probabilities.T], names)
    best = np.argpartition(-probabilities, LISTED, axis=-1)[:, :LISTED]
    values = np.take_along_axis(probabilities, best, axis=-1)
    order = np.lexsort((best, -values), axis=-1)
    best, values = (np.take_along_axis(of, order, axis=-1) for of in (best, values))
    bounds = np.arange(len(best) + 1, dtype=np.int32) * LISTED
    return pa.MapArray.from_arrays(bounds, pa.array([names[label] for label in best.ravel()]), pa.array(values.ravel()))


def headline(target: Target, settings: Evaluate) -> str:
    if "candidates" in target:
        return "ndcg@10"
    return {"single_label": "accuracy", "multi_label": "micro_f1", "regression": "pearson"}[target["problem"]]


def beside(target: Target, settings: Evaluate) -> list[str]:
    """Return mrr@10 for rankings, and for scores an error in their own unit."""
    if "candidates" in target:
        return ["mrr@10"]
    return ["mae"] if target["problem"] == "regression" else []


# --- scores -------------------------------------------------------------------------------------------------------


def score(predictions: pa.Table, target: Target, settings: Evaluate) -> dict[str, float]:
    """Return the scores; for labels also f1 of the positive label, and ece, of which 0 is best.

    For candidates, return also the scores of the rankings, as means over queries, and only these without predictions.
    """
    rankings = {name: float(values.mean()) for name, values in _of_queries(units(predictions)).items()}
    if "predictions" not in predictions.column_names:
        return rankings
    references, predicted = _lists(predictions)
    scores = rankings | label_scores.compute(target["problem"], references, predicted)
    if settings.positive_label is not None:
        if settings.positive_label not in target["label_names"]:
            raise UserError(
                f"evaluate.positive_label: no text of train has the label {settings.positive_label!r}; "
                f"expected one of {', '.join(target['label_names'])}"
            )
        is_it = [[label == settings.positive_label for label in labels] for labels in (references, predicted)]
        # It takes seconds to import, as below, and prediction does not need it.
        from sklearn.metrics import f1_score

        scores["f1"] = float(f1_score(*is_it, zero_division=0))
    if target["problem"] != "regression":
        scores["ece"] = float(calibration_error(_bins(predictions, target).sum(0)))
    return scores


def units(predictions: pa.Table) -> pa.Table:
    """Return a row per text, or per query with its ranking: candidates of one query are not independent."""
    if "candidate" not in predictions.column_names:
        return predictions
    return ranking.reordered(predictions, _relevance(predictions))


def _relevance(predictions: pa.Table) -> np.ndarray:
    """Return what orders candidates: the model's score, or the first stage's without predictions."""
    if "predictions" not in predictions.column_names:
        found = pc.struct_field(predictions["candidate"], "score")
    elif "probabilities" in predictions.column_names:
        found = predictions["probabilities"].combine_chunks().flatten()[0]
    else:
        found = predictions["predictions"]
    return np.asarray(found, dtype=np.float64)


def _of_queries(units: pa.Table) -> dict[str, np.ndarray]:
    """Return the scores of each query's ranking; none without candidates."""
    return ranking.of_queries(units) if "ranked" in units.column_names else {}


def statistics(units: pa.Table, target: Target, settings: Evaluate) -> Statistic:
    """Return the function from weights of texts to all scores, or from weights of queries to those of rankings."""
    if values_of := _of_queries(units):
        return lambda weights: {name: weights @ of / weights.sum(-1) for name, of in values_of.items()}
    parts: list[Statistic]
    if target["problem"] == "regression":
        values = [units[name].to_numpy() for name in ("references", "predictions")]
        parts = [partial(correlations, *values), partial(score_errors, *values)]
    else:
        of_labels = _label_statistic if target["problem"] == "single_label" else _labels_statistic
        parts = [of_labels(*_lists(units), settings), _calibration_statistic(units, target)]
    return lambda weights: {name: value for part in parts for name, value in part(weights).items()}


def outcomes(units: pa.Table, target: Target, settings: Evaluate) -> "list[Outcome]":
    """Return the outcome of each text; its score is 1 if all labels are correct, or of numbers the negative error.

    For candidates, return the outcome of each query; its score is its ndcg@10.
    """
    if values_of := _of_queries(units):
        return [
            {
                "score": float(ndcg),
                "input": row["text"],
                "reference": ", ".join(judged["id"] for judged in row["references"]),
                "prediction": _shortened(f"{row['ranked'][0]}: {row['best']}"),
            }
            for row, ndcg in zip(units.to_pylist(), values_of["ndcg@10"], strict=True)
        ]
    number = target["problem"] == "regression"
    return [
        {
            "score": -abs(row["predictions"] - row["references"]) if number else float(_is_right(row)),
            "input": "\n".join(row[name] for name in TEXTS if row.get(name) is not None),
            "reference": _as_text(row["references"]),
            "prediction": _as_text(row["predictions"]),
        }
        for row in units.to_pylist()
    ]


def slicings(units: pa.Table, train: pa.Table, target: Target) -> list[Slicing]:
    """Slice texts by length, by words that train lacks, by columns, and by label if there are labels."""
    known = {word for text in _joined(train) for word in slicing.words(text)}
    found = [
        slicing.by_length("length in words", map(slicing.words, _joined(units))),
        slicing.by_unseen(map(slicing.words, _joined(units)), known),
    ]
    if target["problem"] != "regression" and "candidates" not in target:
        found.append(_by_label(units, counted_labels(train[TARGETS[target["problem"]]])))
    return [*found, *slicing.by_columns(units)]


def counted_labels(column: pa.ChunkedArray) -> Counter[str]:
    """Count each label in a column of labels, or of lists of labels."""
    flat = pc.list_flatten(column) if pa.types.is_list(column.type) else column
    values = flat.value_counts()
    return Counter(dict(zip(*(values.field(name).to_pylist() for name in ("values", "counts")), strict=True)))


def _by_label(units: pa.Table, train: Counter[str]) -> Slicing:
    """Slice texts by their label; with several labels per text, a slice is all texts with its labels only."""
    references, predicted = _lists(units)
    several = pa.types.is_list(units.schema.field("references").type)
    if not several:
        of_label = slicing.by_frequency(references, train)
        return slicing.by_name("label", [of_label[label] for label in references], of_label.values())
    of_label = slicing.by_frequency({label for labels in references + predicted for label in labels}, train)

    def take(table: pa.Table, names: Collection[str]) -> pa.Table:
        for name in ("references", "predictions"):
            kept = [[label for label in labels if of_label.get(label) in names] for labels in table[name].to_pylist()]
            table = table.set_column(table.column_names.index(name), name, pa.array(kept, pa.list_(pa.string())))
        return table

    return Slicing("label", list(dict.fromkeys(of_label.values())), take)


def counted(units: pa.Table, target: Target) -> np.ndarray:
    """Return which texts change the headline: with several labels per text, a text without any does not change F1."""
    if target["problem"] != "multi_label" or "candidates" in target:
        return np.ones(len(units), dtype=bool)
    return np.array([bool(expected or found) for expected, found in zip(*_lists(units), strict=True)], dtype=bool)


def _is_right(row: dict[str, Any]) -> bool:
    references, predictions = row["references"], row["predictions"]
    return set(references) == set(predictions) if isinstance(references, list) else references == predictions


def _as_text(value: str | list[str] | float) -> str:
    """Return a label, labels or a number as text; a number with all digits of fp32."""
    if isinstance(value, float):
        return np.format_float_positional(np.float32(value), trim="-")
    return ", ".join(value) if isinstance(value, list) else value


def _label_statistic(references: list[str], predicted: list[str], settings: Evaluate) -> Statistic:
    names = sorted({*references, *predicted})
    number = {name: index for index, name in enumerate(names)}
    columns = [np.array([number[label] for label in labels]) for labels in (references, predicted)]
    is_right = columns[0] == columns[1]

    def counts(column: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return np.stack([np.bincount(column, row, minlength=len(names)) for row in weights])

    def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
        # The whole confusion matrix is not computed, because it has a number for each pair of labels.
        expected, found = (counts(column, weights) for column in columns)
        right = counts(columns[0][is_right], weights[:, is_right])
        total, all_right = expected.sum(-1), right.sum(-1)
        # Gorodkin 2004: the correlation of the two assignments.
        spread = (total**2 - (expected**2).sum(-1)) * (total**2 - (found**2).sum(-1))
        f1 = ratio(2 * right, expected + found)
        scores = {
            "accuracy": ratio(all_right, total),
            "macro_f1": _mean_of_present(f1, expected + found),
            "mcc": ratio(all_right * total - (expected * found).sum(-1), np.sqrt(spread)),
        }
        if settings.positive_label is not None:
            absent = np.zeros(len(weights))
            scores["f1"] = f1[:, number[settings.positive_label]] if settings.positive_label in number else absent
        return scores

    return statistic


def _labels_statistic(references: list[list[str]], predicted: list[list[str]], settings: Evaluate) -> Statistic:
    _, expected, found = metrics.hot(references, predicted)
    counts = [expected.multiply(found).tocsr(), expected, found]
    exact = np.array([set(labels) == set(others) for labels, others in zip(references, predicted, strict=True)])

    def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
        right, wanted, given = (weights @ part for part in counts)
        return {
            "micro_f1": ratio(2 * right.sum(-1), (wanted + given).sum(-1)),
            "macro_f1": _mean_of_present(ratio(2 * right, wanted + given), wanted + given),
            "exact_match": ratio(weights @ exact, weights.sum(-1)),
        }

    return statistic


def correlations(references: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return Pearson's and Spearman's correlation of values [n] with weights [samples, n]."""
    ranks = weighted_ranks(references, weights), weighted_ranks(predicted, weights)
    return {"pearson": _pearson(references, predicted, weights), "spearman": _pearson(*ranks, weights)}


def score_errors(references: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return mean absolute and root mean squared error of values [n] with weights [samples, n]."""
    differences, total = np.abs(references - predicted), weights.sum(-1)
    return {"mae": weights @ differences / total, "rmse": np.sqrt(weights @ differences**2 / total)}


def weighted_ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean rank of each of values [n] with weights [samples, n]: [samples, n]."""
    groups = np.unique(values, return_inverse=True)[1]
    sizes = np.stack([np.bincount(groups, row) for row in weights])
    return (sizes.cumsum(-1) - (sizes - 1) / 2)[:, groups]


def _pearson(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted correlation of [n] or [samples, n] values; 0 where one side is constant."""
    total = weights.sum(-1, keepdims=True)
    first, second = (side - (side * weights).sum(-1, keepdims=True) / total for side in (first, second))
    spreads = ((side**2 * weights).sum(-1) for side in (first, second))
    return ratio((first * second * weights).sum(-1), np.sqrt(np.prod(list(spreads), axis=0)))


# --- calibration --------------------------------------------------------------------------------------------------


def _bins(predictions: pa.Table, target: Target) -> np.ndarray:
    """Return sums per text and bin: decisions, their confidences, correct ones; float64 [texts, BINS, 3].

    A decision is the predicted label, or with several labels per text each label, with its probability.
    """
    if len(predictions) > (step := texts_at_once(target)):
        parts = (predictions.slice(start, step) for start in range(0, len(predictions), step))
        return np.concatenate([_bins(part, target) for part in parts])
    references, predicted = _lists(predictions)
    if target["problem"] == "single_label":
        confidences = predictions["confidences"].to_numpy()[:, None].astype(np.float64)
        right = np.array([[a == b] for a, b in zip(references, predicted, strict=True)])
    else:
        by_label = predictions["probabilities"].combine_chunks().flatten()
        confidences = np.stack([column.to_numpy() for column in by_label], axis=-1).astype(np.float64)
        right = np.array([[name in labels for name in target["label_names"]] for labels in references])
    bins = np.clip(np.ceil(confidences * BINS).astype(np.int64) - 1, 0, BINS - 1)  # (0, 1/15], (1/15, 2/15] ...
    sums = np.zeros((len(predictions), BINS, 3))
    rows = np.arange(len(predictions))[:, None]
    np.add.at(sums, (rows, bins), np.stack([np.ones_like(confidences), confidences, right], axis=-1))
    return sums


def calibration_error(bins: np.ndarray) -> np.ndarray:
    """Return the mean distance of confidence and accuracy (ECE of Guo et al. 2017): [..., BINS, 3] -> [...]."""
    return ratio(np.abs(bins[..., 1] - bins[..., 2]).sum(-1), bins[..., 0].sum(-1))


def _calibration_statistic(predictions: pa.Table, target: Target) -> Statistic:
    sums = _bins(predictions, target).reshape(len(predictions), -1)
    return lambda weights: {"ece": calibration_error((weights @ sums).reshape(len(weights), BINS, 3))}


# --- tables and errors -------------------------------------------------------------------------------------------


def tables(predictions: pa.Table, target: Target, settings: Evaluate) -> "dict[str, list[Row]]":
    """Return per_label, reliability and, for single labels, confusion; by_reference for numbers.

    For candidates, return also by_first_stage.
    """
    ranked = _by_first_stage(predictions) if "candidate" in predictions.column_names else {}
    return ranked | _of_predictions(predictions, target)


def _of_predictions(predictions: pa.Table, target: Target) -> dict[str, list[dict[str, Any]]]:
    references, predicted = _lists(predictions)
    if target["problem"] == "regression":
        return {"by_reference": _by_reference(np.array(references), np.array(predicted))}
    bins = _bins(predictions, target).sum(0)
    reliability = [
        {"confidence": float(sure / count), "accuracy": float(right / count), "count": int(count)}
        for count, sure, right in bins
        if count
    ]
    if target["problem"] == "multi_label":
        common = (set(labels) & set(found) for labels, found in zip(references, predicted, strict=True))
        per_label = _per_label(*(Counter(chain.from_iterable(of)) for of in (references, predicted, common)))
        return {"per_label": per_label, "reliability": reliability}
    pairs = Counter(zip(references, predicted, strict=True))
    confusion = [{"reference": a, "prediction": b, "count": count} for (a, b), count in sorted(pairs.items())]
    right = Counter({label: count for (label, found), count in pairs.items() if label == found})
    per_label = _per_label(Counter(references), Counter(predicted), right)
    return {"per_label": per_label, "confusion": confusion, "reliability": reliability}


def _by_first_stage(predictions: pa.Table) -> dict[str, list[dict[str, Any]]]:
    """Return ndcg@10 in the new order and in the first stage's, by the rank of the first relevant document there."""
    before = units(predictions.select(["id", *TEXTS, "candidate"]))
    new, old = (_of_queries(table)["ndcg@10"] for table in (units(predictions), before))
    relevant = (ranking.graded(judged) for judged in before["references"].to_pylist())
    ranks = np.array(
        [
            next((rank for rank, name in enumerate(names, start=1) if name in grades), 0)
            for names, grades in zip(before["ranked"].to_pylist(), relevant, strict=True)
        ]
    )
    rows = []
    for label, low, high in FIRST_RELEVANT:
        inside = (ranks >= low) & (ranks <= high)
        if inside.any():
            scores = {"ndcg@10": float(new[inside].mean()), "first_stage": float(old[inside].mean())}
            rows.append({"label": label, "support": int(inside.sum())} | scores)
    return {"by_first_stage": rows}


def _per_label(expected: Counter[str], found: Counter[str], both: Counter[str]) -> list[dict[str, Any]]:
    names = sorted({*expected, *found})
    wanted, given, right = (np.array([counts[name] for name in names]) for counts in (expected, found, both))
    columns = ratio(right, given), ratio(right, wanted), ratio(2 * right, wanted + given)
    return [
        {"label": name, "precision": float(p), "recall": float(r), "f1": float(f), "support": int(support)}
        for name, p, r, f, support in zip(names, *columns, wanted, strict=True)
    ]


def _by_reference(references: np.ndarray, predicted: np.ndarray) -> list[dict[str, Any]]:
    """Return means per decile of the references, from the lowest to the highest."""
    parts = np.array_split(np.argsort(references, kind="stable"), 10)
    return [
        {
            "mean_reference": float(references[part].mean()),
            "mean_prediction": float(predicted[part].mean()),
            "mean_absolute_error": float(np.abs(references - predicted)[part].mean()),
            "count": len(part),
        }
        for part in parts
        if len(part)
    ]


def worst_errors(predictions: pa.Table, most: int, target: Target, settings: Evaluate) -> "list[Row]":
    """Return the texts with wrong predictions, the most confident first; for numbers, the largest error first.

    For single labels, each confusion is represented, as far as `most` allows.
    """
    single, errors = target["problem"] == "single_label", []
    read = [name for name in predictions.column_names if name not in TEXTS and not (single and name == "probabilities")]
    place = 0
    for batch in predictions.select(read).to_batches(max_chunksize=ROWS_AT_ONCE):
        for row in batch.to_pylist():
            reference, prediction = row["references"], row["predictions"]
            if reference != prediction:
                kind = (reference, prediction) if single else None
                errors.append((-_certainty(row, target), row["id"], place, kind))
            place += 1
    errors.sort(key=lambda error: error[:2])
    taken = [errors[place] for place in chosen([kind for *_, kind in errors], most)]
    rows = predictions.take(pa.array([place for _, _, place, _ in taken], pa.int64())).to_pylist()
    name = "difference" if target["problem"] == "regression" else "confidence"
    return [
        {"id": row["id"]}
        | {column: _shortened(row[column]) for column in TEXTS if column in row}
        | {"reference": _shown(row["references"]), "prediction": _shown(row["predictions"]), name: round(-key, 4)}
        for (key, *_), row in zip(taken, rows, strict=True)
    ]


def _certainty(row: dict[str, Any], target: Target) -> float:
    """Return how wrong a prediction is: its confidence, that of its worst decision, or the distance."""
    if target["problem"] == "regression":
        return abs(row["references"] - row["predictions"])
    if target["problem"] == "single_label":
        return row["confidences"]
    wrong = set(row["references"]) ^ set(row["predictions"])
    known = [(name, p) for name, p in row["probabilities"].items() if name in wrong]
    return max((p if name in row["predictions"] else 1 - p for name, p in known), default=0.0)


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS].rstrip() + " ..."


def _shown(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    return ", ".join(value) or "none" if isinstance(value, list) else value


# --- baselines ----------------------------------------------------------------------------------------------------


def base_is_baseline(base_model: Path) -> bool:
    """Return False: before training, the head is new."""
    return False


def baselines(
    train: Encoded, split: Encoded, shared: dict[str, Encoded], target: Target, settings: Evaluate
) -> dict[str, pa.Table]:
    """Return a constant prediction, and a linear model of words, which a fine-tuned model has to beat.

    The first is the share of each label in train, or the mean score. The second is logistic regression (ridge for
    scores) on TF-IDF of words and pairs of words, for at most MOST_CLASSES labels. For candidates, the only baseline is
    the order of the first stage.
    """
    if "candidates" in target:
        return {"first_stage": split.examples.select(["id", *TEXTS, "candidate"])}
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge

    column, problem, names = TARGETS[target["problem"]], target["problem"], target["label_names"]
    guesses: dict[str, np.ndarray] = {}
    if problem != "regression":
        found = counted_labels(train.examples[column])
        shares = np.array([found[name] for name in names]) / len(train.examples)
        guesses = {"majority": shares[None]}
        if len(names) > MOST_CLASSES:
            return _guessed(guesses, split.examples, target, settings)
    kept = (
        np.arange(min(len(train.examples), MOST_FITTED)) * len(train.examples) // min(len(train.examples), MOST_FITTED)
    )
    fitted = train.examples.take(kept)
    words = TfidfVectorizer(token_pattern=WORDS, ngram_range=(1, 2), sublinear_tf=True, max_features=100_000)
    known, asked = words.fit_transform(_joined(fitted)), words.transform(_joined(split.examples))
    if problem == "regression":
        scores = fitted[column].to_numpy()
        means = {
            "train_mean": np.full(len(split.examples), train.examples[column].to_numpy().mean()),
            "tfidf_ridge": Ridge().fit(known, scores).predict(asked),
        }
        references = split.examples[column]
        return {name: pa.table({"references": references, "predictions": values}) for name, values in means.items()}
    labels = _hot(fitted[column].to_pylist(), names)
    guesses["tfidf_logistic_regression"] = _logistic(known, labels, asked, problem)
    return _guessed(guesses, split.examples, target, settings)


def _guessed(
    guesses: dict[str, np.ndarray], examples: pa.Table, target: Target, settings: Evaluate
) -> dict[str, pa.Table]:
    """Return predictions by name from probabilities [texts, labels]; [1, labels] holds for every text."""
    own, references = own_outputs(examples, target), examples[TARGETS[target["problem"]]]
    tables = {}
    for name, values in guesses.items():
        predicted = pa.table(labelled(restricted(values, own), target, settings))
        if len(predicted) < len(examples):
            predicted = predicted.take(pa.array(np.zeros(len(examples), dtype=np.int64)))
        tables[name] = predicted.add_column(0, "references", references)
    return tables


def restricted(probabilities: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Return probabilities [texts, labels] among each text's own labels, uniform if their sum is 0."""
    if own.all():
        return probabilities
    kept = probabilities * own
    total = kept.sum(-1, keepdims=True)
    return np.where(total > 0, kept / np.where(total > 0, total, 1), own / own.sum(-1, keepdims=True))


def _logistic(known: Any, labels: np.ndarray, asked: Any, problem: str) -> np.ndarray:
    """Fit one model, or one per label with several labels per text, and return probabilities [texts asked, labels]."""
    found = np.tile(labels.mean(0), (asked.shape[0], 1))  # kept for labels that no text or every text has
    if problem == "single_label":
        classes = labels.argmax(-1)
        if len(np.unique(classes)) > 1:
            model = _regression().fit(known, classes)
            found[:, model.classes_] = model.predict_proba(asked)
        return found
    for label, there in enumerate(labels.T):
        if 0 < there.sum() < len(there):
            found[:, label] = _regression().fit(known, there).predict_proba(asked)[:, 1]
    return found


def _regression() -> Any:
    from sklearn.linear_model import LogisticRegression

    # C: TF-IDF rows have length 1, for which the default of 1 regularizes too much.
    return LogisticRegression(C=10, max_iter=1000)


def _joined(examples: pa.Table) -> Iterator[str]:
    names = [name for name in TEXTS if name in examples.column_names]
    for batch in examples.select(names).to_batches(max_chunksize=ROWS_AT_ONCE):
        yield from (" ".join(texts) for texts in zip(*(column.to_pylist() for column in batch.columns), strict=True))


def _hot(labels: list[Any], names: list[str]) -> np.ndarray:
    """Return labels, or lists of labels, as zeros and ones: float64 [texts, names]."""
    column = {name: index for index, name in enumerate(names)}
    matrix = np.zeros((len(labels), len(names)))
    for row, given in zip(matrix, labels, strict=True):
        row[[column[label] for label in (given if isinstance(given, list) else [given])]] = 1
    return matrix


# --- arithmetic ---------------------------------------------------------------------------------------------------


def _lists(predictions: pa.Table) -> tuple[list[Any], list[Any]]:
    return predictions["references"].to_pylist(), predictions["predictions"].to_pylist()


def _mean_of_present(f1: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Average F1 [samples, labels] over the labels that occur in a sample, as scikit-learn does."""
    return ratio((f1 * (present > 0)).sum(-1), (present > 0).sum(-1))
