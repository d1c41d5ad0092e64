"""Turns sentences of labelled words into subword features with aligned labels, without torch.

Pre-split words are tokenized independently of their neighbours, so each distinct word is tokenized once and features
are gathered with numpy. A sentence longer than max_length becomes overlapping windows, laid out as the tokenizers
library lays out overflowing tokens; each word is scored in exactly one of them, where it has the most context.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from finetrail import layout
from finetrail.encoding import ragged
from finetrail.encoding import tokenizer as tokenizers
from finetrail.encoding.engines import Batch, Features, OrderedMap
from finetrail.encoding.labels import sort_key
from finetrail.encoding.windows import Windows
from finetrail.errors import UserError
from finetrail.labels import IGNORE_INDEX
from finetrail.tasks.token_classification.settings import (
    NO_SCHEME,
    Target,
    Tokenize,
    has_entities,
    is_without_scheme,
    label_names,
    rule_of_words,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Optional in tasks/contract.py, and not used here.
TOGETHER = needed = None

FEATURES = pa.schema(
    [
        ("example", pa.int32()),  # row of the sentence in data/corpus
        ("input_ids", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.int32())),
        ("words", pa.list_(pa.int32())),  # the words that this feature scores: index in the sentence,
        ("positions", pa.list_(pa.int32())),  # and the position of their first subword in input_ids
    ]
)

# Distinct words kept with their subwords; beyond it the cache starts anew, so that memory stays bounded.
MAX_CACHED_WORDS = 500_000
WORDS_A_CALL = 1024


def load_tokenizer(folder: Path, settings: Tokenize, train: Callable[[], Iterator[pa.Table]]) -> Any:
    """Load the base model's tokenizer, for words."""
    return tokenizers.load_tokenizer(folder, settings.max_length, pre_split=True)


def target(train: Iterator[pa.Table], settings: Tokenize) -> Target:
    """Return the label set of train in the order of the model's outputs: O, then by type, B- before I-.

    With label_subwords "all", I-X is added for every B-X, because later subwords need it, unless the scheme is "none".
    UserError if there is only one label.
    """
    found: set[str] = set()
    without_scheme, words = False, {}
    for batch in train:
        found.update(pc.unique(pc.list_flatten(batch["labels"])).to_pylist())
        without_scheme, words = is_without_scheme(batch.schema.metadata), rule_of_words(batch.schema.metadata)
    if len(found) == 1:
        raise UserError(
            f"train: {found.pop()!r} is its only label; expected two or more, so that there is one to learn"
        )
    if settings.label_subwords == "all" and not without_scheme:
        found |= {"I-" + label[2:] for label in found if label.startswith("B-")}
    by_kind = sort_key(_kind(label) for label in found if label != "O")
    names = sorted(found, key=lambda label: (True, by_kind(_kind(label)), label) if label != "O" else (False,))
    rules = (NO_SCHEME if without_scheme and has_entities(names) else {}) | words
    return {"label_names": names, **rules} if rules else names


def _kind(label: str) -> str:
    return label[2:] if label[1:2] == "-" else label


class Encoder:
    """Encodes tables of sentences; keeps the subwords of the words it has met."""

    survey = nothing = None

    tables = dict.fromkeys(layout.SPLITS, FEATURES)

    def __init__(self, tokenizer: Any, target: Target, settings: Tokenize) -> None:
        backend = tokenizers.plain_backend(tokenizer)
        self.subwords = SubwordCache(backend)
        self.prefix, self.suffix = tokenizers.special_tokens(backend)
        self.ignored = [IGNORE_INDEX] * len(self.prefix), [IGNORE_INDEX] * len(self.suffix)
        names, entities = label_names(target), has_entities(target)
        self.label_ids = {label: index for index, label in enumerate(names)}
        continued = ["I-" + name[2:] if entities and name.startswith("B-") else name for name in names]
        # The last entry, which index -1 reaches, is for labels that are ignored.
        self.inside_ids = np.array([self.label_ids.get(name, IGNORE_INDEX) for name in continued] + [IGNORE_INDEX])
        self.label_all_subwords = settings.label_subwords == "all"
        self.capacity = settings.max_length - len(self.prefix) - len(self.suffix)
        self.step = self.capacity - settings.stride
        if self.step < 1:
            raise UserError(
                f"tokenize.stride: {settings.stride} leaves windows of {self.capacity} subwords no room to advance"
            )

    def encode_table(self, name: str, batches: Iterable[Batch], ordered_map: OrderedMap = map) -> Iterator[Features]:
        """Return the features and their counts of each batch of (row numbers, sentences)."""
        return ordered_map(self.part, batches)

    def part(self, batch: Batch) -> Features:
        """Return the features of one batch, and their counts."""
        rows, sentences = batch
        features = self.encode(sentences, rows)
        return features, self.count(sentences, features)

    def encode(self, sentences: pa.Table, rows: np.ndarray) -> pa.Table:
        """Turn sentences (columns tokens, labels: lists of strings) into FEATURES; without labels, they are ignored.

        rows: int [len(sentences)], values of the column `example`.
        """
        if len(self.subwords.starts) > MAX_CACHED_WORDS:
            self.subwords.clear()
        tokens, labels = (sentences[name].combine_chunks() for name in ("tokens", "labels"))
        if labels.null_count:
            labels = pa.ListArray.from_arrays(tokens.offsets, pa.nulls(len(tokens.values), pa.string()))
        word_bounds = tokens.offsets.to_numpy() - tokens.offsets[0].as_py()
        words = tokens.flatten().dictionary_encode()
        keys = self.subwords.keys(words.dictionary.to_pylist())[words.indices.to_numpy()]
        label_ids = self._label_ids(labels.flatten())
        counts = self.subwords.lengths[keys]  # subwords of each word
        ids = ragged.gather(self.subwords.ids, self.subwords.starts[keys], counts)
        bounds = ragged.bounds(counts)[word_bounds]  # subwords before each sentence
        token_labels = self._token_labels(label_ids, counts)
        windows = Windows(np.diff(bounds), self.capacity, self.step)
        starts = bounds[:-1][windows.sentence] + windows.start
        sizes = windows.size + len(self.prefix) + len(self.suffix)
        feature, word, position = self._scored(windows, counts, word_bounds, bounds)
        return pa.table(
            [
                pa.array(rows[windows.sentence], pa.int32()),
                ragged.lists(
                    sizes,
                    ragged.framed(ragged.gather(ids, starts, windows.size), windows.size, self.prefix, self.suffix),
                ),
                ragged.lists(
                    sizes, ragged.framed(ragged.gather(token_labels, starts, windows.size), windows.size, *self.ignored)
                ),
                ragged.lists(np.bincount(feature, minlength=len(sizes)), word),
                ragged.lists(np.bincount(feature, minlength=len(sizes)), position),
            ],
            schema=FEATURES,
        )

    def count(self, sentences: pa.Table, features: pa.Table) -> dict[str, int]:
        """Return what encode() made of some sentences; the counts of parts add up."""
        words = pc.sum(pc.list_value_length(sentences["tokens"])).as_py() or 0
        windows = np.bincount(np.unique(features["example"].to_numpy(), return_inverse=True)[1])
        return {
            "examples": len(sentences),
            "words": words,
            "features": len(features),
            "tokens": pc.sum(pc.list_value_length(features["input_ids"])).as_py() or 0,
            "examples_in_windows": int((windows > 1).sum()),
            "words_without_subwords": words - (pc.sum(pc.list_value_length(features["words"])).as_py() or 0),
        }

    def _label_ids(self, labels: pa.Array) -> np.ndarray:
        encoded = labels.dictionary_encode("encode")  # null too: it is no label of train either
        # A label that train lacks cannot be learned; evaluation still counts it as an error.
        ids = [self.label_ids.get(label, IGNORE_INDEX) for label in encoded.dictionary.to_pylist()]
        return np.array(ids, dtype=np.int32)[encoded.indices.to_numpy()]

    def _token_labels(self, label_ids: np.ndarray, counts: np.ndarray) -> np.ndarray:
        first = ragged.bounds(counts)[:-1][counts > 0]
        if self.label_all_subwords:
            labels = np.repeat(self.inside_ids[np.maximum(label_ids, -1)], counts)
        else:
            labels = np.full(counts.sum(), IGNORE_INDEX, dtype=np.int32)
        labels[first] = label_ids[counts > 0]
        return labels

    def _scored(
        self, windows: Windows, counts: np.ndarray, word_bounds: np.ndarray, bounds: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return feature, word and position of each word that has subwords, in the order of the features."""
        sentence = np.repeat(np.arange(len(word_bounds) - 1), np.diff(word_bounds))
        seen = counts > 0
        sentence, word = sentence[seen], (np.arange(len(counts)) - word_bounds[:-1][sentence])[seen]
        token = ragged.bounds(counts)[:-1][seen] - bounds[:-1][sentence]
        window = windows.with_most_context(sentence, token)
        feature = windows.first[sentence] + window
        return feature, word, token - window * self.step + len(self.prefix)


class SubwordCache:
    """The subwords of each distinct word, flat: ids[starts[key] : starts[key] + lengths[key]]."""

    def __init__(self, backend: "Tokenizer") -> None:
        self.backend = backend
        self.clear()

    def clear(self) -> None:
        """Forget all words."""
        self.known: dict[str, int] = {}
        self.ids, self.starts, self.lengths = (np.empty(0, dtype=np.int64) for _ in range(3))

    def keys(self, words: list[str]) -> np.ndarray:
        """Return the key of each of these distinct words: int64 [len(words)]."""
        new = [word for word in words if word not in self.known]
        if new:
            self.known.update(zip(new, range(len(self.starts), len(self.starts) + len(new)), strict=True))
            self._add(new)
        return np.fromiter(map(self.known.__getitem__, words), dtype=np.int64, count=len(words))

    def _add(self, words: list[str]) -> None:
        # Many words in one call give one Encoding to unpack; unpacking takes most of the time.
        groups = [words[start : start + WORDS_A_CALL] for start in range(0, len(words), WORDS_A_CALL)]
        ids, lengths = [self.ids], [self.lengths]
        encodings = self.backend.encode_batch(groups, is_pretokenized=True, add_special_tokens=False)
        for group, encoding in zip(groups, encodings, strict=True):
            ids.append(np.array(encoding.ids, dtype=np.int64))
            lengths.append(np.bincount(np.array(encoding.word_ids, dtype=np.int64), minlength=len(group)))
        self.ids, self.lengths = np.concatenate(ids), np.concatenate(lengths)
        self.starts = ragged.bounds(self.lengths)[:-1]
