"""Turns questions and contexts into pairs of token ids, with labels and the characters of each token, without torch.

The two texts of a pair are tokenized independently of each other, so each distinct text is tokenized once and pairs are
gathered with numpy. A context that is too long becomes overlapping windows, laid out as the tokenizers library lays out
overflowing tokens with truncation="only_second".
"""

import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from finetrail import layout
from finetrail.encoding import ragged
from finetrail.encoding import tokenizer as tokenizers
from finetrail.encoding.engines import Batch, Features, OrderedMap
from finetrail.encoding.windows import Windows
from finetrail.errors import UserError
from finetrail.tasks.question_answering.settings import NULL_POSITION, Target, Tokenize

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Optional in tasks/contract.py, and not used here.
TOGETHER = needed = None

# Examples of a table that are encoded at once, few enough that whole web pages as contexts fit into memory.
EXAMPLES_A_CALL = 512
# KINDS has an entry for each character of the first two planes: white space, or a character that continues the one
# before it, such as a combining accent or the later parts of a decomposed Hangul syllable. SELECTORS, which select
# variants of Han characters, are beyond these planes.
BLANK, CONTINUES = 1, 2
SELECTORS = 0xE0100, 0xE01EF
KINDS = np.array(
    [
        BLANK if chr(code).isspace() else CONTINUES * (unicodedata.category(chr(code))[0] == "M")
        for code in range(0x20000)
    ],
    dtype=np.uint8,
)
KINDS[0x1160:0x1200] = CONTINUES


def load_tokenizer(folder: Path, settings: Tokenize, train: Callable[[], Iterator[pa.Table]]) -> Any:
    """Load the base model's tokenizer; it has token types only if the model has more than one."""
    return tokenizers.load_tokenizer(folder, settings.max_length)


def target(train: Iterator[pa.Table], settings: Tokenize) -> Target:
    """Return whether train has questions without an answer, so that a model can learn to give none."""
    lengths = (pc.min(pc.list_value_length(batch["answers"])).as_py() for batch in train)
    return {"unanswerable": min(lengths, default=1) == 0}


def features_schema(types: bool) -> pa.Schema:
    """Return the columns of the features, with token_type_ids if the model takes them."""
    ids = pa.list_(pa.int32())
    return pa.schema(
        [
            ("example", pa.int32()),  # row of the question in data/corpus
            ("input_ids", ids),
            *([("token_type_ids", ids)] if types else []),
            # First and last token of the first answer in input_ids: NULL_POSITION where this window does not hold it
            # whole; null where answers are not known.
            ("start_positions", pa.int32()),
            ("end_positions", pa.int32()),
            # Where the window begins in input_ids, and the characters of its tokens in the context, as Tokens has them.
            ("context_start", pa.int32()),
            ("starts", ids),
            ("ends", ids),
        ]
    )


class Encoder:
    """Encodes tables of questions with their contexts."""

    survey = nothing = None

    def __init__(self, tokenizer: Any, target: Target, settings: Tokenize) -> None:
        self.backend = tokenizers.plain_backend(tokenizer)
        self.frame, self.settings = pair_frame(self.backend), settings
        self.trims = trims_offsets(self.backend)
        self.capacity = settings.max_length - len(self.frame.ids)  # for a question and a window
        step = self.capacity - settings.max_question_length - settings.stride
        if step < 1:
            raise UserError(
                f"tokenize.stride: {settings.stride} leaves windows beside a question of "
                f"{settings.max_question_length} tokens no room to advance in {self.capacity}"
            )
        self.tables = dict.fromkeys(layout.SPLITS, features_schema("token_type_ids" in tokenizer.model_input_names))

    def encode_table(self, name: str, batches: Iterable[Batch], ordered_map: OrderedMap = map) -> Iterator[Features]:
        """Yield the features of some examples at a time, and their counts."""
        return chain.from_iterable(ordered_map(self.part, batches))

    def part(self, batch: Batch) -> list[Features]:
        """Return the features of one batch, some examples at a time, and their counts."""
        rows, examples = batch
        starts = range(0, len(rows), EXAMPLES_A_CALL)
        return [
            self._encode(examples[start : start + EXAMPLES_A_CALL], rows[start : start + EXAMPLES_A_CALL])
            for start in starts
        ]

    def encode(self, examples: pa.Table, rows: np.ndarray) -> pa.Table:
        """Turn examples (question, context, answers: null where they are not known) into features_schema().

        rows: int [len(examples)], values of the column `example`.
        """
        return self._encode(examples, rows)[0]

    def _encode(self, examples: pa.Table, rows: np.ndarray) -> Features:
        questions, question = _encode_distinct(self.backend, examples["question"], self.trims)
        contexts, context = _encode_distinct(self.backend, examples["context"], self.trims)
        asked = np.diff(questions.bounds)[question]
        kept = np.minimum(asked, self.settings.max_question_length)
        example, first, size = self._windows(kept, np.diff(contexts.bounds)[context])
        token = contexts.bounds[context[example]] + first  # where each window begins in contexts
        runs = questions.bounds[question[example]], kept[example], token, size
        sizes, ids, types = _joined(self.frame, questions.ids, contexts.ids, *runs)
        context_start = self.frame.before + kept[example] + self.frame.between
        spans, wider = _answer_tokens(examples["answers"], contexts, context)
        positions = _positions(spans[example], first, size, context_start)
        unknown = examples["answers"].is_null().to_numpy()[example]
        columns = {
            "example": rows[example],
            "input_ids": ragged.lists(sizes, ids),
            "token_type_ids": ragged.lists(sizes, types),
            "start_positions": pa.array(positions[:, 0], pa.int32(), mask=unknown),
            "end_positions": pa.array(positions[:, 1], pa.int32(), mask=unknown),
            "context_start": context_start,
            "starts": ragged.lists(size, ragged.gather(contexts.starts, token, size)),
            "ends": ragged.lists(size, ragged.gather(contexts.ends, token, size)),
        }
        schema = self.tables["train"]
        features = pa.table([pa.array(columns[name], schema.field(name).type) for name in schema.names], schema=schema)
        return features, _counts(examples["answers"], example, sizes, positions) | {
            "answers_within_tokens": int(wider.sum()),
            "examples_truncated": int((asked > kept).sum()),
            "tokens_truncated": int((asked - kept).sum()),
        }

    def _windows(self, questions: np.ndarray, contexts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return example, first token and size of the windows over contexts of these lengths, in order of the examples.

        Windows beside questions of one length have one capacity.
        """
        parts = []
        for length in np.unique(questions):
            members, capacity = np.flatnonzero(questions == length), self.capacity - int(length)
            windows = Windows(contexts[members], capacity, capacity - self.settings.stride)
            parts.append((members[windows.sentence], windows.start, windows.size))
        example, start, size = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(example, kind="stable")
        return example[order], start[order], size[order]


class Frame(NamedTuple):
    """The special tokens of a pair, in order, and how many of them are before and between the two texts."""

    ids: list[int]
    types: list[int]
    before: int
    between: int
    text_types: tuple[int, int]


def pair_frame(backend: "Tokenizer") -> Frame:
    """Read from the tokenizer how it joins two texts."""
    encoding = backend.encode("a", "b")
    first, second = ([place for place, of in enumerate(encoding.sequence_ids) if of == text] for text in (0, 1))
    special = [place for place, of in enumerate(encoding.sequence_ids) if of is None]
    return Frame(
        ids=[encoding.ids[place] for place in special],
        types=[encoding.type_ids[place] for place in special],
        before=first[0],
        between=second[0] - first[-1] - 1,
        text_types=(encoding.type_ids[first[0]], encoding.type_ids[second[0]]),
    )


class Tokens(NamedTuple):
    """The tokens of several texts, concatenated: those of text i are from bounds[i] to bounds[i + 1]."""

    ids: np.ndarray
    # Their characters in their text, without white space around them; equal where a token is nothing else.
    starts: np.ndarray
    ends: np.ndarray
    bounds: np.ndarray


def trims_offsets(backend: "Tokenizer") -> bool:
    """Return True if the offsets of a byte-level token ("Ġriver") leave out its blank.

    Where the pre-tokenizer put that blank there, as RobBERT's does before each word, it takes the first letter instead.
    """
    post = backend.post_processor
    parts = [] if post is None else [json.loads(post.__getstate__())]
    parts = [one for part in parts for one in part.get("processors", [part])]
    return any(part.get("trim_offsets", False) for part in parts)


def _encode_distinct(backend: "Tokenizer", column: pa.ChunkedArray, trims: bool) -> tuple[Tokens, np.ndarray]:
    """Return the tokens of each distinct text, and the index of the text of each row."""
    encoded = column.combine_chunks().dictionary_encode()
    texts = encoded.dictionary.to_pylist()
    encodings = backend.encode_batch(texts, add_special_tokens=False)
    ids = [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]
    characters = [_characters(text, encoding.offsets, trims) for text, encoding in zip(texts, encodings, strict=True)]
    starts, ends = np.concatenate(characters).T
    bounds = ragged.bounds(np.array([len(of_text) for of_text in ids]))
    return Tokens(np.concatenate(ids), starts, ends, bounds), encoded.indices.to_numpy()


def _characters(text: str, offsets: list[tuple[int, int]], trims: bool) -> np.ndarray:
    """Return start and end of each token, without white space around it and with whole characters: int64 [tokens, 2].

    SentencePiece and some byte-level tokenizers count the blank before a word to it; normalizers lose the place of an
    accent that they remove or compose. trims: as trims_offsets() tells.
    """
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    kinds, places = KINDS[np.minimum(codes, len(KINDS) - 1)], np.arange(len(text))
    kinds[(codes >= SELECTORS[0]) & (codes <= SELECTORS[1])] = CONTINUES
    starts, ends = np.array(offsets, dtype=np.int64).reshape(-1, 2).T
    blank, continues = kinds == BLANK, kinds == CONTINUES
    if trims:
        starts = _with_holes(kinds == 0, starts, ends)
    ends = np.append(0, np.maximum.accumulate(np.where(blank, 0, places + 1)))[ends]
    starts = np.minimum(_next(~blank)[starts], ends)
    whole_starts = np.append(np.maximum.accumulate(np.where(continues, 0, places)), len(text))[starts]
    whole = np.stack([whole_starts, _next(~continues)[ends]], axis=1)
    return np.where((starts < ends)[:, None], whole, np.stack([starts, ends], axis=1))


def _with_holes(letter: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return starts that take in the letters just before them that are in no token: int64 [tokens].

    letter: bool [characters]. They belong to the first token that starts after them, and go no farther to the left
    than to where another token begins or ends.
    """
    begun, ended = (np.bincount(side[starts < ends], minlength=len(letter) + 1) for side in (starts, ends))
    hole = np.append(False, letter & (np.cumsum(begun - ended)[:-1] == 0))  # by where a letter ends: [characters + 1]
    edges = ~hole
    edges[starts] = edges[ends] = True
    begins = np.maximum.accumulate(np.where(edges, np.arange(len(hole)), 0))
    first = np.unique(starts, return_index=True)[1]
    taken = first[hole[starts[first]]]
    found = starts.copy()
    found[taken] = begins[starts[taken] - 1]
    return found


def _next(found: np.ndarray) -> np.ndarray:
    """Return for each place, and for the end, the next place at or after it that is found: [n + 1]."""
    places = np.append(np.where(found, np.arange(len(found)), len(found)), len(found))
    return np.minimum.accumulate(places[::-1])[::-1]


def _joined(
    frame: Frame,
    questions: np.ndarray,
    contexts: np.ndarray,
    question_start: np.ndarray,
    question_size: np.ndarray,
    window_start: np.ndarray,
    window_size: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return sizes of the features, and flat their ids and token types, from runs of questions' and contexts' ids."""
    special, before, inside = len(frame.ids), frame.before, frame.before + frame.between
    context = special + len(questions)
    starts = np.broadcast_arrays(0, special + question_start, before, context + window_start, inside)
    lengths = np.broadcast_arrays(before, question_size, frame.between, window_size, special - inside)
    runs = np.stack(starts, axis=1).ravel(), np.stack(lengths, axis=1).ravel()
    ids = np.concatenate([frame.ids, questions, contexts]).astype(np.int64)
    types = np.concatenate([frame.types, np.repeat(frame.text_types, [len(questions), len(contexts)])]).astype(np.int64)
    return np.sum(lengths, axis=0), ragged.gather(ids, *runs), ragged.gather(types, *runs)


def _answer_tokens(answers: pa.ChunkedArray, contexts: Tokens, context: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return first and last token of each example's first answer, -1 if it has none: [examples, 2].

    And whether these tokens hold more than the answer, which then cannot be given exactly: a particle after a Korean
    noun, the end of a number. bool [examples].
    """
    spans, wider = np.full((len(context), 2), -1), np.zeros(len(context), dtype=bool)
    for row, of_row in enumerate(answers.to_pylist()):
        if of_row:
            part = slice(*contexts.bounds[context[row] :][:2])
            start, end = of_row[0]["start"], of_row[0]["start"] + len(of_row[0]["text"])
            starts, ends = contexts.starts[part], contexts.ends[part]
            covering = np.flatnonzero((starts < end) & (ends > start) & (starts < ends))
            if len(covering):  # empty if the tokenizer drops all of its characters
                spans[row] = covering[0], covering[-1]
                wider[row] = starts[covering[0]] < start or ends[covering[-1]] > end
    return spans, wider


def _positions(spans: np.ndarray, first: np.ndarray, size: np.ndarray, context_start: np.ndarray) -> np.ndarray:
    """Return the position of each window's answer in its feature; NULL_POSITION if the window does not contain it."""
    inside = (spans[:, 0] >= first) & (spans[:, 1] < first + size)
    return np.where(inside[:, None], spans + (context_start - first)[:, None], NULL_POSITION)


def _counts(answers: pa.ChunkedArray, example: np.ndarray, sizes: np.ndarray, positions: np.ndarray) -> dict[str, int]:
    windows = np.bincount(example)
    found = np.bincount(example, positions[:, 0] != NULL_POSITION) > 0
    answered = pc.fill_null(pc.list_value_length(answers), 0).to_numpy() > 0
    return {
        "examples": len(windows),
        "features": len(example),
        "tokens": int(sizes.sum()),
        "examples_in_windows": int((windows > 1).sum()),
        "answers_in_no_window": int((answered & ~found).sum()),
    }
