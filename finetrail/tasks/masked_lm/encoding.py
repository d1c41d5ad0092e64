"""Turns texts into blocks of tokens, and masks those of validation and test once, without torch.

A block is framed as the tokenizer frames a text ([CLS] ... [SEP]): so the model saw texts in pretraining. The course
cuts a stream of framed texts anywhere. Joined texts are parted by what ends a text, as RoBERTa's FULL-SENTENCES.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
from tokenizers import models, pre_tokenizers

from finetrail import layout
from finetrail.encoding import ragged
from finetrail.encoding import tokenizer as tokenizers
from finetrail.encoding.blocks import too_short
from finetrail.encoding.engines import Batch, Features, OrderedMap
from finetrail.encoding.masking import FIRST, LATER, SPECIAL, mask, masking
from finetrail.encoding.windows import Windows
from finetrail.errors import UserError
from finetrail.labels import IGNORE_INDEX
from finetrail.tasks.masked_lm.settings import Tokenize

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Optional in tasks/contract.py, and not used here.
TOGETHER = needed = None

PIECES = pa.list_(pa.int8())
TEXTS = pa.schema([("example", pa.int32()), ("input_ids", pa.list_(pa.int32())), ("pieces", PIECES)])
FEATURES = pa.schema(
    [
        ("example", pa.int32()),  # row in data/corpus of the text that the block begins in
        ("input_ids", pa.list_(pa.int32())),  # of validation and test: masked; labels hold the original tokens
        ("pieces", PIECES),  # SPECIAL, FIRST or LATER of each token, which masking needs
        ("labels", pa.list_(pa.int32())),  # null where training draws the masks
    ]
)

# Few texts in a call: their Encodings, some 100 bytes a token, then fit into the processor's cache.
TEXTS_A_CALL = 256


def load_tokenizer(folder: Path, settings: Tokenize, train: Callable[[], Iterator[pa.Table]]) -> Any:
    """Load the base model's tokenizer; UserError if it has no mask token."""
    tokenizer = tokenizers.load_tokenizer(folder, settings.block_size)
    if tokenizer.mask_token is None:
        raise UserError(f"{folder}: the tokenizer has no mask token; expected that of a masked language model")
    return tokenizer


def target(train: Iterator[pa.Table], settings: Tokenize) -> None:
    """Return the target: None, because the model needs nothing from the corpus."""


class Tokens(NamedTuple):
    """Concatenated tokens: id, piece and text (its row in data/corpus) of each."""

    ids: np.ndarray
    pieces: np.ndarray
    examples: np.ndarray

    def where(self, which: np.ndarray | slice) -> "Tokens":
        """Return some of them: bool [tokens], or a slice."""
        return Tokens(*(column[which] for column in self))


class Encoder:
    """Encodes tables of texts."""

    survey = None

    tables = dict.fromkeys(layout.SPLITS, FEATURES)

    def __init__(self, tokenizer: Any, target: None, settings: Tokenize) -> None:
        self.settings = settings
        self.backend = tokenizers.plain_backend(tokenizer)
        self.prefix, self.suffix = tokenizers.special_tokens(self.backend)
        self.capacity = settings.block_size - len(self.prefix) - len(self.suffix)
        self.special = np.zeros(1 + max(tokenizer.get_vocab().values()), dtype=bool)
        self.special[tokenizer.all_special_ids] = True
        self.begins = beginnings(self.backend, len(self.special))
        self.masking = masking(tokenizer, settings)

    def encode_table(self, name: str, batches: Iterable[Batch], ordered_map: OrderedMap = map) -> Iterator[Features]:
        """Yield the blocks of batches of (row numbers, texts), and their counts.

        Joined, a block may hold texts of several batches. Texts with a column `positions` are questions: see asked().
        """
        parts = ordered_map(self.part, batches)
        first = next(parts, None)
        if first is None:
            return
        parts = chain([first], parts)
        if first[1].schema == FEATURES:
            yield from ((blocks, {"examples": count}) for count, blocks in parts)
            return
        number = 0  # of the next block, which seeds its masks
        for texts, tokens, sizes in self._joined(parts) if self.settings.join_documents else self._apart(parts):
            kept = self._kept(tokens, sizes)
            blocks = self.framed(tokens.where(np.repeat(kept, sizes)), sizes[kept])
            yield (
                self._masked(blocks, number) if name != "train" else blocks,
                {
                    "examples": texts,
                    "features": len(blocks),
                    "tokens": len(blocks["input_ids"].combine_chunks().values),
                    "tokens_dropped": int(sizes[~kept].sum()),
                },
            )
            number += len(blocks)

    def nothing(self, counts: dict[str, int]) -> str:
        """Return the message for a table that gives no block."""
        return too_short(counts, self.settings)

    def part(self, batch: Batch) -> tuple[int, pa.Table]:
        """Return how many texts a batch has, and their TEXTS; of questions, their FEATURES."""
        rows, examples = batch
        questions = "positions" in examples.column_names
        return len(rows), self.asked(examples, rows) if questions else self.encode(examples, rows)

    def encode(self, examples: pa.Table, rows: np.ndarray) -> pa.Table:
        """Tokenize texts (column text), without special tokens: TEXTS.

        rows: int [len(examples)], values of the column `example`.
        """
        texts = examples["text"].to_pylist()
        starts = range(0, max(len(texts), 1), TEXTS_A_CALL)
        parts = [self._tokenized(texts[start : start + TEXTS_A_CALL]) for start in starts]
        sizes, ids, pieces = (np.concatenate(column) for column in zip(*parts, strict=True))
        return pa.table(
            [pa.array(rows, pa.int32()), ragged.lists(sizes, ids), ragged.lists(sizes, pieces).cast(PIECES)],
            schema=TEXTS,
        )

    def _tokenized(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the number of tokens of each text, and id and piece of each token."""
        # The fast call leaves out offsets and words.
        call = self.backend.encode_batch if self.begins is None else self.backend.encode_batch_fast
        encodings = call(texts, add_special_tokens=False)
        lists = [encoding.ids for encoding in encodings]
        sizes = np.fromiter(map(len, lists), np.int64, len(lists))
        ids = np.fromiter(chain.from_iterable(lists), np.int32, sizes.sum())
        if self.begins is None:
            words = chain.from_iterable(encoding.word_ids for encoding in encodings)
            begins = np.diff(np.fromiter(words, np.int64, len(ids)), prepend=-1) != 0
            begins[ragged.bounds(sizes)[:-1][sizes > 0]] = True
        else:
            begins = self.begins[ids]
        return sizes, ids, np.where(self.special[ids], SPECIAL, np.where(begins, FIRST, LATER))

    def _apart(self, parts: Iterator[tuple[int, pa.Table]]) -> Iterator[tuple[int, Tokens, np.ndarray]]:
        """Yield, batch by batch, the number of texts, their tokens, and the sizes of the blocks these fall into."""
        for count, texts in parts:
            tokens, lengths = _flat(texts)
            yield count, tokens, Windows(lengths, self.capacity, self.capacity).size

    def _joined(self, parts: Iterator[tuple[int, pa.Table]]) -> Iterator[tuple[int, Tokens, np.ndarray]]:
        """Yield the same of one stream of all texts: what fills no block goes to the next batch; its end comes last."""
        rest = Tokens(*(np.empty(0, dtype=np.int64) for _ in range(3)))
        started = False
        for count, texts in parts:
            tokens = self._separated(*_flat(texts))
            if not started:
                tokens = tokens.where(slice(len(self.suffix), None))
            started = started or len(tokens.ids) > 0
            stream = Tokens(*map(np.concatenate, zip(rest, tokens, strict=True)))
            whole = len(stream.ids) // self.capacity
            end = whole * self.capacity
            yield count, stream.where(slice(end)), np.full(whole, self.capacity)
            rest = stream.where(slice(end, None))
        yield 0, rest, np.array([len(rest.ids)])

    def _separated(self, tokens: Tokens, lengths: np.ndarray) -> Tokens:
        """Put a separator before each text that has tokens; it belongs to the text that follows."""
        sizes = lengths[lengths > 0]
        rows = tokens.examples[ragged.bounds(sizes)[:-1]]
        return Tokens(
            ragged.framed(tokens.ids, sizes, self.suffix, []),
            ragged.framed(tokens.pieces, sizes, [SPECIAL] * len(self.suffix), []),
            np.repeat(rows, sizes + len(self.suffix)),
        )

    def _kept(self, tokens: Tokens, sizes: np.ndarray) -> np.ndarray:
        """Return which blocks stay: not those with nothing to mask, nor a remainder that is to be dropped."""
        block = np.repeat(np.arange(len(sizes)), sizes)
        maskable = np.bincount(block[tokens.pieces != SPECIAL], minlength=len(sizes)) > 0
        return maskable & (sizes == self.capacity) if self.settings.remainder == "drop" else maskable

    def framed(self, tokens: Tokens, sizes: np.ndarray) -> pa.Table:
        """Frame consecutive blocks of these sizes: FEATURES, labels null."""
        framed = sizes + len(self.prefix) + len(self.suffix)
        marks = [SPECIAL] * len(self.prefix), [SPECIAL] * len(self.suffix)
        return pa.table(
            [
                pa.array(tokens.examples[ragged.bounds(sizes)[:-1]], pa.int32()),
                ragged.lists(framed, ragged.framed(tokens.ids, sizes, self.prefix, self.suffix)),
                ragged.lists(framed, ragged.framed(tokens.pieces, sizes, *marks)).cast(PIECES),
                pa.nulls(len(sizes), FEATURES.field("labels").type),
            ],
            schema=FEATURES,
        )

    def _masked(self, blocks: pa.Table, number: int) -> pa.Table:
        """Mask blocks, each by a generator of its own number, so that no other block and no batch matters."""
        ids, pieces = (blocks[name].combine_chunks() for name in ("input_ids", "pieces"))
        bounds, flat, kinds = ids.offsets.to_numpy(), ids.values.to_numpy(), pieces.values.to_numpy()
        masked, labels = flat.copy(), flat.copy()
        for block, (start, stop) in enumerate(zip(bounds[:-1], bounds[1:], strict=True), start=number):
            generator = np.random.default_rng([self.settings.mask_seed, block])
            masked[start:stop], labels[start:stop] = mask(flat[start:stop], kinds[start:stop], self.masking, generator)
        columns = (
            blocks["example"],
            ragged.lists(np.diff(bounds), masked),
            pieces,
            ragged.lists(np.diff(bounds), labels),
        )
        return pa.table(list(columns), schema=FEATURES)

    def asked(self, examples: pa.Table, rows: np.ndarray) -> pa.Table:
        """Turn people's questions into FEATURES, one block or more each; their labels are the mask token.

        A text asks at its mask tokens; input_ids, which are a whole block, at `positions`, or at their mask tokens.
        UserError if there is nothing to predict, or if the input is not a block.
        """
        blocks = []
        for row, question in zip(rows, examples.to_pylist(), strict=True):
            of_one = self._given(question, row) if question["text"] is None else self._text(question, row)
            blocks.append(of_one)
        return pa.concat_tables(blocks)

    def _text(self, question: dict[str, Any], row: int) -> pa.Table:
        tokens, lengths = _flat(self.encode(pa.table({"text": [question["text"]]}), np.array([row])))
        sizes = Windows(lengths, self.capacity, self.capacity).size
        blocks = self.framed(tokens, sizes[sizes > 0])
        ids = blocks["input_ids"].combine_chunks()
        asked = ids.values.to_numpy() == self.masking.mask_token_id
        if not asked.any():
            token = self.backend.id_to_token(self.masking.mask_token_id)
            raise UserError(f"input {question['id']!r}: no {token} in its text; expected one where a word is wanted")
        return self._labelled(blocks, asked)

    def _given(self, question: dict[str, Any], row: int) -> pa.Table:
        ids, where = np.array(question["input_ids"], dtype=np.int64), f"input {question['id']!r}"
        if not 0 < len(ids) <= self.settings.block_size:
            raise UserError(f"{where}: {len(ids)} input_ids; expected 1 to {self.settings.block_size} (block_size)")
        if not ((ids >= 0) & (ids < len(self.special))).all():
            raise UserError(f"{where}: an id that is no token; expected input_ids from 0 to {len(self.special) - 1}")
        asked = ids == self.masking.mask_token_id
        if question["positions"] is not None:
            asked = np.isin(np.arange(len(ids)), question["positions"])
            if outside := [index for index in question["positions"] if not 0 <= index < len(ids)]:
                raise UserError(f"{where}: position {outside[0]} of {len(ids)} input_ids; expected 0 to {len(ids) - 1}")
        if not asked.any():
            raise UserError(f"{where}: nothing to predict; expected positions, or mask tokens in input_ids")
        sizes = np.array([len(ids)])
        pieces = np.where(self.special[ids], SPECIAL, FIRST)
        columns = pa.array([row], pa.int32()), ragged.lists(sizes, ids), ragged.lists(sizes, pieces).cast(PIECES)
        return self._labelled(pa.table([*columns, pa.nulls(1, FEATURES.field("labels").type)], schema=FEATURES), asked)

    def _labelled(self, blocks: pa.Table, asked: np.ndarray) -> pa.Table:
        sizes = np.diff(blocks["input_ids"].combine_chunks().offsets.to_numpy())
        labels = ragged.lists(sizes, np.where(asked, self.masking.mask_token_id, IGNORE_INDEX))
        return blocks.set_column(FEATURES.get_field_index("labels"), "labels", labels)


def _flat(texts: pa.Table) -> tuple[Tokens, np.ndarray]:
    """Return the tokens of TEXTS, and the number of each text's."""
    ids, pieces = (texts[name].combine_chunks() for name in ("input_ids", "pieces"))
    sizes = np.diff(ids.offsets.to_numpy())
    return Tokens(ids.values.to_numpy(), pieces.values.to_numpy(), np.repeat(texts["example"].to_numpy(), sizes)), sizes


def beginnings(backend: "Tokenizer", size: int) -> np.ndarray | None:
    """Return which tokens begin a word, bool [size of the vocabulary]; None if tokens do not show it.

    WordPiece puts "##" before all but a word's first piece, and BERT's pre-tokenizer, which parts words at punctuation,
    lets no word begin so. Other tokenizers go without a sign at least at punctuation.
    """
    bert = isinstance(backend.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
    if not (bert and isinstance(backend.model, models.WordPiece) and backend.model.continuing_subword_prefix == "##"):
        return None
    added = backend.get_added_tokens_decoder()
    tokens = (backend.id_to_token(index) or "" for index in range(size))
    return np.array([index in added or not token.startswith("##") for index, token in enumerate(tokens)])
