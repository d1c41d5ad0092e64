"""Turns sentences of labelled words into subword features with aligned labels, without torch.

Pre-split words are tokenized independently of their neighbours, so each distinct word is tokenized once and features
are gathered with numpy. A sentence longer than max_length becomes overlapping windows, laid out as the tokenizers
library lays out overflowing tokens; each word is scored in exactly one of them, where it has the most context.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from finetrail.errors import UserError
from finetrail.tasks import IGNORE_INDEX
from finetrail.tasks.token_classification.settings import Tokenize

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


def load_tokenizer(folder: Path, max_length: int) -> Any:
    """Load a fast tokenizer that takes pre-split words; UserError if it cannot, or max_length exceeds the model.

    Byte-level BPE (GPT-2, RoBERTa) marks a word by the space before it, so it gets add_prefix_space.
    """
    from transformers import AutoConfig, AutoTokenizer  # seconds to import, and encode() does not need it

    if not folder.is_dir():
        raise UserError(f"{folder} is missing; expected the output of download@model: run `dvc repro`")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, add_prefix_space=True)
        config = AutoConfig.from_pretrained(folder)
    except Exception as error:  # foreign files: the libraries raise whatever their parsing runs into
        reason = str(error).split(". ")[0]
        raise UserError(f"{folder}: the tokenizer does not load: {reason}; expected one of transformers") from None
    if not tokenizer.is_fast:
        kind = type(tokenizer).__name__
        raise UserError(f"{folder}: {kind} is a slow tokenizer; expected a fast one (tokenizer.json)")
    vocabulary = getattr(config, "vocab_size", None)
    if vocabulary is not None and len(tokenizer) > vocabulary:
        raise UserError(f"{folder}: {len(tokenizer)} tokens in the tokenizer; expected the model's {vocabulary}")
    limit = model_positions(config)
    if limit is not None and max_length > limit:
        raise UserError(f"tokenize.max_length: {max_length} is above the {limit} positions of the base model")
    if tokenizer.pad_token is None:  # GPT-2 has none; padding is masked, so that any token serves
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"  # positions of words count from the left
    return tokenizer


def model_positions(config: Any) -> int | None:
    """Return how many tokens a model takes, or None where its config sets no limit (relative positions)."""
    positions = getattr(config, "max_position_embeddings", None)
    if not positions or positions < 0:
        return None
    # RoBERTa and its kin number positions from pad_token_id + 1, so 514 embeddings serve 512 tokens.
    offset = config.pad_token_id + 1 if "roberta" in config.model_type or config.model_type == "camembert" else 0
    return int(positions) - offset


def label_names(train: Iterable[pa.Table], settings: Tokenize) -> list[str]:
    """Return the label set of train in the order of the model's outputs: O, then by type, B- before I-.

    With label_subwords "all" every B-X brings its I-X, which its later subwords need.
    UserError where there is only one label.
    """
    found = {label for batch in train for label in pc.unique(pc.list_flatten(batch["labels"])).to_pylist()}
    if len(found) == 1:
        raise UserError(
            f"train: {found.pop()!r} is its only label; expected two or more, so that there is one to learn"
        )
    if settings.label_subwords == "all":
        found |= {"I-" + label[2:] for label in found if label.startswith("B-")}
    return sorted(found, key=lambda label: (label != "O", label[2:] if label[1:2] == "-" else label, label))


class Encoder:
    """Encodes tables of sentences; keeps the subwords of the words it has met."""

    def __init__(self, tokenizer: Any, label_names: list[str], settings: Tokenize) -> None:
        backend = tokenizer.backend_tokenizer
        # A saved tokenizer may carry the truncation and padding of its first use.
        backend.no_truncation()
        backend.no_padding()
        self.subwords = SubwordCache(backend)
        self.prefix, self.suffix = _special_tokens(backend)
        self.ignored = [IGNORE_INDEX] * len(self.prefix), [IGNORE_INDEX] * len(self.suffix)
        self.label_ids = {label: index for index, label in enumerate(label_names)}
        continued = ["I-" + name[2:] if name.startswith("B-") else name for name in label_names]
        # The last entry, which index -1 reaches, is for labels that are ignored.
        self.inside_ids = np.array([self.label_ids.get(name, IGNORE_INDEX) for name in continued] + [IGNORE_INDEX])
        self.label_all_subwords = settings.label_subwords == "all"
        self.capacity = settings.max_length - len(self.prefix) - len(self.suffix)
        self.step = self.capacity - settings.stride
        if self.step < 1:
            raise UserError(
                f"tokenize.stride: {settings.stride} leaves windows of {self.capacity} subwords no room to advance"
            )

    def encode(self, sentences: pa.Table, rows: np.ndarray) -> pa.Table:
        """Turn sentences (columns tokens, labels: lists of strings) into FEATURES.

        rows: int [len(sentences)], what the column `example` says of each.
        """
        if len(self.subwords.starts) > MAX_CACHED_WORDS:
            self.subwords.clear()
        tokens, labels = (sentences[name].combine_chunks() for name in ("tokens", "labels"))
        word_bounds = tokens.offsets.to_numpy() - tokens.offsets[0].as_py()
        words = tokens.flatten().dictionary_encode()
        keys = self.subwords.keys(words.dictionary.to_pylist())[words.indices.to_numpy()]
        label_ids = self._label_ids(labels.flatten())
        counts = self.subwords.lengths[keys]  # subwords of each word
        ids = _gather(self.subwords.ids, self.subwords.starts[keys], counts)
        bounds = _bounds(counts)[word_bounds]  # subwords before each sentence
        token_labels = self._token_labels(label_ids, counts)
        windows = Windows(np.diff(bounds), self.capacity, self.step)
        starts = bounds[:-1][windows.sentence] + windows.start
        sizes = windows.size + len(self.prefix) + len(self.suffix)
        feature, word, position = self._scored(windows, counts, word_bounds, bounds)
        return pa.table(
            [
                pa.array(rows[windows.sentence], pa.int32()),
                _lists(sizes, _framed(_gather(ids, starts, windows.size), windows.size, self.prefix, self.suffix)),
                _lists(sizes, _framed(_gather(token_labels, starts, windows.size), windows.size, *self.ignored)),
                _lists(np.bincount(feature, minlength=len(sizes)), word),
                _lists(np.bincount(feature, minlength=len(sizes)), position),
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
        encoded = labels.dictionary_encode()
        # A label that train lacks cannot be learned; evaluation still counts it as an error.
        ids = [self.label_ids.get(label, IGNORE_INDEX) for label in encoded.dictionary.to_pylist()]
        return np.array(ids, dtype=np.int32)[encoded.indices.to_numpy()]

    def _token_labels(self, label_ids: np.ndarray, counts: np.ndarray) -> np.ndarray:
        first = _bounds(counts)[:-1][counts > 0]
        if self.label_all_subwords:
            labels = np.repeat(self.inside_ids[np.maximum(label_ids, -1)], counts)
        else:
            labels = np.full(counts.sum(), IGNORE_INDEX, dtype=np.int32)
        labels[first] = label_ids[counts > 0]
        return labels

    def _scored(
        self, windows: "Windows", counts: np.ndarray, word_bounds: np.ndarray, bounds: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return feature, word and position of each word that has subwords, in the order of the features."""
        sentence = np.repeat(np.arange(len(word_bounds) - 1), np.diff(word_bounds))
        seen = counts > 0
        sentence, word = sentence[seen], (np.arange(len(counts)) - word_bounds[:-1][sentence])[seen]
        token = _bounds(counts)[:-1][seen] - bounds[:-1][sentence]
        window = windows.with_most_context(sentence, token)
        feature = windows.first[sentence] + window
        return feature, word, token - window * self.step + len(self.prefix)


class Windows:
    """The windows over sentences of given lengths: [k * step, k * step + capacity), until one reaches the end."""

    def __init__(self, lengths: np.ndarray, capacity: int, step: int) -> None:
        self.lengths, self.capacity, self.step = lengths, capacity, step
        self.count = 1 + np.maximum(0, -(-(lengths - capacity) // step))
        self.first = _bounds(self.count)[:-1]
        self.sentence = np.repeat(np.arange(len(lengths)), self.count)
        self.start = (np.arange(len(self.sentence)) - self.first[self.sentence]) * step
        self.size = np.minimum(capacity, lengths[self.sentence] - self.start)

    def with_most_context(self, sentence: np.ndarray, token: np.ndarray) -> np.ndarray:
        """Return the window of its sentence in which each token is farthest from a cut; ties go to the earlier.

        The border of the sentence is no cut: nothing stands beyond it.
        """
        length, last = self.lengths[sentence], self.count[sentence] - 1
        nearest = np.minimum(token // self.step, last)
        best, most = nearest, np.full(len(token), -1)
        for back in range(-(-self.capacity // self.step)):
            window = nearest - back
            start = window * self.step
            left = np.where(window == 0, length, token - start)
            right = np.where(window == last, length, start + self.capacity - 1 - token)
            context = np.where(window >= 0, np.minimum(left, right), -1)
            better = context >= np.maximum(most, 0)
            best, most = np.where(better, window, best), np.where(better, context, most)
        return best


class SubwordCache:
    """The subwords of each distinct word, flat: ids[starts[key] : starts[key] + lengths[key]]."""

    def __init__(self, backend: Any) -> None:
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
        # Many words in one call are one Encoding to unpack, which is where the time goes.
        groups = [words[start : start + WORDS_A_CALL] for start in range(0, len(words), WORDS_A_CALL)]
        ids, lengths = [self.ids], [self.lengths]
        encodings = self.backend.encode_batch(groups, is_pretokenized=True, add_special_tokens=False)
        for group, encoding in zip(groups, encodings, strict=True):
            ids.append(np.array(encoding.ids, dtype=np.int64))
            lengths.append(np.bincount(np.array(encoding.word_ids, dtype=np.int64), minlength=len(group)))
        self.ids, self.lengths = np.concatenate(ids), np.concatenate(lengths)
        self.starts = _bounds(self.lengths)[:-1]


def _special_tokens(backend: Any) -> tuple[list[int], list[int]]:
    """Return the ids that the tokenizer puts before and behind a sentence."""
    encoding = backend.encode(["a"], is_pretokenized=True, add_special_tokens=True)
    inside = [index for index, word in enumerate(encoding.word_ids) if word is not None]
    return encoding.ids[: inside[0]], encoding.ids[inside[-1] + 1 :]


def _bounds(lengths: np.ndarray) -> np.ndarray:
    """Return where runs of these lengths begin, and behind them the end of the last: [n] -> [n + 1]."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _gather(values: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Concatenate the runs values[start : start + length]."""
    offsets = np.repeat(starts - _bounds(lengths)[:-1], lengths)
    return values[offsets + np.arange(len(offsets))]


def _framed(body: np.ndarray, sizes: np.ndarray, prefix: list[int], suffix: list[int]) -> np.ndarray:
    """Put the prefix before and the suffix behind each of the consecutive runs of these sizes in body."""
    extra = len(prefix) + len(suffix)
    bounds = _bounds(sizes + extra)
    framed = np.empty(bounds[-1], dtype=np.int64)
    framed[np.arange(len(body)) + np.repeat(np.arange(len(sizes)) * extra + len(prefix), sizes)] = body
    for index, value in enumerate(prefix):
        framed[bounds[:-1] + index] = value
    for index, value in enumerate(reversed(suffix), start=1):
        framed[bounds[1:] - index] = value
    return framed


def _lists(sizes: np.ndarray, values: np.ndarray) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(_bounds(sizes), pa.int32()), pa.array(values, pa.int32()))
