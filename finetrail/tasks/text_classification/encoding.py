"""Turns texts and pairs of texts into subword features that fit the model, without torch.

Texts are tokenized without special tokens; what is kept of each and its frame of special tokens are then laid out with
numpy, exactly as the tokenizers library truncates and its template frames them, and what is lost is counted.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from finetrail import layout
from finetrail.corpus.forms import normalized
from finetrail.encoding import ragged
from finetrail.encoding import tokenizer as base_tokenizer
from finetrail.encoding.engines import Batch, Features, OrderedMap
from finetrail.encoding.labels import sort_key
from finetrail.encoding.windows import Windows
from finetrail.errors import UserError
from finetrail.labels import IGNORE_INDEX
from finetrail.tasks.text_classification.settings import TARGETS, Problem, Target, Tokenize, heads_of

# Optional in tasks/contract.py, and not used here.
needed = None

LABEL_TYPES = {"single_label": pa.int32(), "multi_label": pa.list_(pa.float32()), "regression": pa.float32()}
TEXTS = ("text", "text_pair")
# Rows that agree in this field of a column are ranked together: a limit keeps all of them, or none.
TOGETHER = ("candidate", "query")
TEXTS_A_CALL = 256  # an Encoding takes about 100 bytes a token, until its ids are in an array


def load_tokenizer(folder: Path, settings: Tokenize, train: Callable[[], Iterator[pa.Table]]) -> Any:
    """Load the base model's tokenizer; UserError if that cannot be, or max_length is above the model's positions."""
    return base_tokenizer.load_tokenizer(folder, settings.max_length)


def target(train: Iterator[pa.Table], settings: Tokenize) -> Target:
    """Return the target: "problem", "label_names" in the order of the model's outputs, and "texts", the text columns.

    Optional keys: "normalize": "nfc" if the texts are normalized; "heads": "separate" for separate heads;
    "candidates": true for candidates of a first stage; "mean" and "std" (of the population) of scores.

    UserError if train has no label, a single-label corpus or a head has only one, candidates have more than one, or all
    scores are the same.
    """
    found: set[str] = set()
    scores: list[np.ndarray] = []
    metadata: dict[bytes, bytes] = {}
    problem: Problem = "single_label"
    texts, are_candidates = list(TEXTS[:1]), False
    for batch in train:
        metadata = batch.schema.metadata or {}
        texts = [name for name in TEXTS if name in batch.column_names]
        are_candidates = "candidate" in batch.column_names
        problem = next(name for name, column in TARGETS.items() if column in batch.column_names)
        column = batch[TARGETS[problem]]
        if problem == "regression":
            scores.append(column.to_numpy())
        else:
            found.update(pc.unique(pc.list_flatten(column) if problem == "multi_label" else column).to_pylist())
    if problem == "single_label" and len(found) == 1:
        raise UserError(
            f"train: {found.pop()!r} is its only label; expected two or more, so that there is one to learn"
        )
    if problem == "multi_label" and not found:
        raise UserError("train: no text has a label; expected at least one, so that there is one to learn")
    if are_candidates and len(found) > 1:
        raise UserError(
            f"train: candidates have the labels {', '.join(sorted(found))}; expected one, whose probability ranks them"
        )
    target: Target = {"problem": problem, "label_names": sorted(found, key=sort_key(found)), "texts": texts}
    if b"normalize" in metadata:
        target["normalize"] = metadata[b"normalize"].decode()
    if b"heads" in metadata:
        target["heads"] = metadata[b"heads"].decode()
    if are_candidates:
        target["candidates"] = True
    if scores:
        target["mean"], target["std"] = _spread(np.concatenate(scores))
    for head, outputs in heads_of(target).items():
        if len(outputs) == 1:
            label = target["label_names"][outputs[0]]
            raise UserError(f"train: {label!r} is the only label of {head}; expected two or more")
    return target


def _spread(scores: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation of scores, float64 [texts]; UserError if all are equal in fp32."""
    if len(np.unique(scores.astype(np.float32))) == 1:
        raise UserError(
            f"train: {scores[0]:g} is the score of all its texts (in 32 bits); expected two or more, so that there is "
            "one to learn"
        )
    return float(scores.mean()), float(scores.std())


class Frame(NamedTuple):
    """The special tokens and token types that the tokenizer's template puts around a text, or a pair."""

    ids: list[list[int]]  # before the first text, between the two (if any), after the last
    types: list[list[int]]
    text_types: list[int]  # token type of each text

    @property
    def size(self) -> int:
        return sum(map(len, self.ids))


class Encoder:
    """Encodes tables of texts."""

    survey = nothing = None

    def __init__(self, tokenizer: Any, target: Target, settings: Tokenize) -> None:
        self.backend = base_tokenizer.plain_backend(tokenizer)
        self.target, self.settings = target, settings
        self.label_ids = {label: index for index, label in enumerate(target["label_names"])}
        self.frames = {count: frame(self.backend, count) for count in (1, 2)}
        self.has_types = "token_type_ids" in tokenizer.model_input_names
        columns = [("example", pa.int32()), ("input_ids", pa.list_(pa.int32()))]
        columns += [("token_type_ids", pa.list_(pa.int32()))] if self.has_types else []
        self.schema = pa.schema([*columns, ("labels", LABEL_TYPES[target["problem"]])])
        self.tables = dict.fromkeys(layout.SPLITS, self.schema)

    def encode_table(self, name: str, batches: Iterable[Batch], ordered_map: OrderedMap = map) -> Iterator[Features]:
        """Return the features of each batch with counts to be summed."""
        return ordered_map(self.part, batches)

    def encode(self, examples: pa.Table, rows: np.ndarray) -> pa.Table:
        """Turn examples (text, perhaps text_pair, and a target or none) into features; rows: what `example` says."""
        return self.part((rows, examples))[0]

    def part(self, batch: Batch) -> Features:
        """Return the features of one batch, and their counts."""
        rows, examples = batch
        given = [name for name in TEXTS if name in examples.column_names]
        if given != (known := self.target.get("texts", given)):  # exports of earlier versions lack it
            raise UserError(
                f"the model was trained on {' and '.join(known)}; expected as much, got {' and '.join(given)}"
            )
        texts = [self._tokenize(examples[name]) for name in given]
        lengths = [np.diff(bounds) for _, bounds in texts]
        capacity = self._capacity(len(texts))
        of_row, pieces = self._pieces(lengths, capacity)
        parts = [_cut(ids, bounds[:-1][of_row], own) for (ids, bounds), own in zip(texts, pieces, strict=True)]
        columns = {"example": pa.array(rows[of_row], pa.int32())} | self._framed(parts)
        columns["labels"] = self._labels(examples).take(pa.array(of_row))
        kept = np.sum([sizes for _, sizes in parts], axis=0)
        counts = {
            "examples": len(examples),
            "features": len(of_row),
            "tokens": int(kept.sum()) + len(of_row) * self.frames[len(texts)].size,
        }
        if self.settings.overflow == "windows":
            counts["examples_in_windows"] = int((np.bincount(of_row, minlength=len(examples)) > 1).sum())
        else:
            lost = np.sum(lengths, axis=0) - kept
            counts |= {"examples_truncated": int((lost > 0).sum()), "tokens_truncated": int(lost.sum())}
        return pa.table(columns, schema=self.schema), counts

    def _capacity(self, texts: int) -> int:
        """Return how many subwords one text, or two, have beside the special tokens; UserError if too few."""
        special = self.frames[texts].size
        capacity = self.settings.max_length - special
        needed = max(texts, (self.settings.stride or 0) + 1, (self.settings.head_tokens or 0) + 1)
        if capacity < needed:
            raise UserError(
                f"tokenize.max_length: {self.settings.max_length} with {special} special tokens leaves {capacity} for "
                f"the text; expected at least {needed}"
            )
        return capacity

    def _tokenize(self, texts: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
        """Return the concatenated subword ids of all texts, and the bounds of each."""
        strings = texts.to_pylist()
        if self.target.get("normalize") == "nfc":  # inputs are normalized as the corpus already is
            strings = [normalized("NFC", string) for string in strings]
        ids, lengths = [np.empty(0, dtype=np.int64)], []
        for start in range(0, len(strings), TEXTS_A_CALL):
            encodings = self.backend.encode_batch_fast(strings[start : start + TEXTS_A_CALL], add_special_tokens=False)
            lengths += [len(encoding) for encoding in encodings]
            ids.append(np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), dtype=np.int64))
        return np.concatenate(ids), ragged.bounds(np.array(lengths, dtype=np.int64))

    def _pieces(self, lengths: list[np.ndarray], capacity: int) -> tuple[np.ndarray, list[list[np.ndarray]]]:
        """Return the row of each feature, and the kept part of each text: start, size, start, size ..., [features]."""
        rows, overflow = np.arange(len(lengths[0])), self.settings.overflow
        if overflow == "windows":
            windows = Windows(lengths[0], capacity, capacity - int(self.settings.stride or 0))
            return windows.sentence, [[windows.start, windows.size]]
        if overflow == "head_tail":
            head = np.where(lengths[0] > capacity, int(self.settings.head_tokens or 0), lengths[0])
            tail = np.where(lengths[0] > capacity, capacity - head, 0)
            return rows, [[np.zeros_like(head), head, lengths[0] - tail, tail]]
        if len(lengths) == 2:
            kept = longest_first(lengths[0], lengths[1], capacity)
        else:
            kept = [np.minimum(lengths[0], capacity)]
        lost = [length - size for length, size in zip(lengths, kept, strict=True)]
        starts = lost if overflow == "tail" else [np.zeros_like(size) for size in kept]
        return rows, [list(piece) for piece in zip(starts, kept, strict=True)]

    def _framed(self, parts: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, pa.Array]:
        """Put the special tokens around the texts' ids, and add token types if the model takes them."""
        one, sizes = self.frames[len(parts)], [sizes for _, sizes in parts]
        ids = _interleaved(one.ids, [ids for ids, _ in parts], sizes)
        columns = {"input_ids": ids}
        if self.has_types:
            types = [np.full(len(ids), kind) for (ids, _), kind in zip(parts, one.text_types, strict=True)]
            columns["token_type_ids"] = _interleaved(one.types, types, sizes)
        return columns

    def _labels(self, examples: pa.Table) -> pa.Array:
        """Return labels for the loss; those that train lacks, and missing targets (inference), are ignored."""
        problem = self.target["problem"]
        column = TARGETS[problem]
        given: list[Any] = [None] * len(examples)
        if column in examples.column_names:
            given = examples[column].to_pylist()
        if problem == "single_label":
            return pa.array([self.label_ids.get(label, IGNORE_INDEX) for label in given], pa.int32())
        if problem == "regression":
            return pa.array([np.nan if score is None else score for score in given], pa.float32())
        hot = np.zeros((len(given), len(self.label_ids)), dtype=np.float32)
        for row, labels in zip(hot, given, strict=True):
            row[[self.label_ids[label] for label in labels or [] if label in self.label_ids]] = 1
        bounds = np.arange(len(given) + 1, dtype=np.int32) * len(self.label_ids)
        return pa.ListArray.from_arrays(pa.array(bounds), pa.array(hot.ravel(), pa.float32()))


def frame(backend: Any, count: int) -> Frame:
    """Return the special tokens that the tokenizer puts around one text, or around two."""
    encoding = backend.encode(*["a"] * count)
    ids: list[list[int]] = [[] for _ in range(count + 1)]
    types: list[list[int]] = [[] for _ in range(count + 1)]
    text_types = [0] * count
    place = 0
    for token, kind, text in zip(encoding.ids, encoding.type_ids, encoding.sequence_ids, strict=True):
        if text is None:
            ids[place].append(token)
            types[place].append(kind)
        else:
            place, text_types[text] = text + 1, kind
    return Frame(ids, types, text_types)


def longest_first(first: np.ndarray, second: np.ndarray, capacity: int) -> list[np.ndarray]:
    """Return how many tokens of each text of a pair are kept: the longer one gives first, as in tokenizers (0.23)."""
    shorter = np.minimum(first, second)
    longer = np.maximum(shorter, capacity - shorter)
    is_both = shorter + longer > capacity
    shorter = np.where(is_both, capacity // 2, shorter)
    longer = np.where(is_both, capacity - shorter, longer)
    swapped, fits = first > second, first + second <= capacity
    kept = np.where(swapped, longer, shorter), np.where(swapped, shorter, longer)
    return [np.where(fits, length, size) for length, size in zip((first, second), kept, strict=True)]


def _cut(ids: np.ndarray, begins: np.ndarray, pieces: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the concatenated ids of the pieces of each feature, and how many each feature has.

    begins: where the text of each feature begins in ids; pieces: start, size, start, size ... in it, each [features].
    """
    starts = np.stack(pieces[::2], axis=1) + begins[:, None]
    sizes = np.stack(pieces[1::2], axis=1)
    return ragged.gather(ids, starts.ravel(), sizes.ravel()), sizes.sum(1)


def _interleaved(specials: list[list[int]], texts: list[np.ndarray], sizes: list[np.ndarray]) -> pa.Array:
    """Lay out specials[0], a run of texts[0], specials[1] ... for each feature; sizes: of the runs, each [features]."""
    total = np.sum(sizes, axis=0) + sum(map(len, specials))
    flat = np.empty(total.sum(), dtype=np.int64)
    place = ragged.bounds(total)[:-1]
    for index, special in enumerate(specials):
        for token in special:
            flat[place] = token
            place = place + 1
        if index < len(texts):
            flat[ragged.gather(np.arange(len(flat)), place, sizes[index])] = texts[index]
            place = place + sizes[index]
    return ragged.lists(total, flat)
