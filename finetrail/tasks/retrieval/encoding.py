"""Turns queries and documents into features, without torch.

A query gives one feature for each relevant document, which is what training takes; searching reads the first of them.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from finetrail import layout
from finetrail.encoding import ragged
from finetrail.encoding import tokenizer as tokenizers
from finetrail.encoding.engines import Batch, Features, OrderedMap
from finetrail.errors import UserError
from finetrail.tasks.retrieval.settings import Tokenize

TEXTS = pa.schema([("example", pa.int32()), ("input_ids", pa.list_(pa.int32()))])
PAIRS = pa.schema(
    [
        ("example", pa.int32()),  # row of the query in data/corpus
        ("input_ids", pa.list_(pa.int32())),  # of the query
        ("document_input_ids", pa.list_(pa.list_(pa.int32()))),  # of a relevant document, and of the hard negatives
        ("documents", pa.list_(pa.int64())),  # keys of these documents,
        # And of all that are relevant to the query, so no negatives of it; behind these, where the source numbers its
        # documents itself, that of the query's own id, which is none either: search leaves it out.
        ("relevant", pa.list_(pa.int64())),
    ]
)


class Texts(NamedTuple):
    """Tokens of texts, one behind the other, and what was cut off."""

    ids: np.ndarray
    sizes: np.ndarray
    cut: np.ndarray  # tokens that a text lost


def load_tokenizer(folder: Path, settings: Tokenize, train: Callable[[], Iterator[pa.Table]]) -> Any:
    """Load the base model's tokenizer, for running text."""
    return tokenizers.load_tokenizer(folder, max(settings.max_length, settings.max_query_length))


def target(train: Iterator[pa.Table], settings: Tokenize) -> dict[str, Any]:
    """Return how a text becomes a vector, which training, search and the exported model share."""
    shared = ("pooling", "max_length", "query_prefix", "document_prefix")
    return {name: getattr(settings, name) for name in shared}


def needed(queries: pa.Table) -> list[str]:
    """Return the ids of the documents that rows of queries name: tokenize.limit keeps these."""
    lists = (pc.list_flatten(queries[name]) for name in ("relevant", "negatives"))
    return [given for structs in lists for given in pc.struct_field(structs, "id").to_pylist()]


class Encoder:
    """Encodes tables of queries, and of documents."""

    tables = dict.fromkeys(layout.SPLITS, PAIRS) | {"documents": TEXTS}

    def __init__(self, tokenizer: Any, target: dict[str, Any], settings: Tokenize) -> None:
        self.backend = tokenizer.backend_tokenizer
        # A saved tokenizer may carry the truncation and padding of its first use.
        self.backend.no_truncation()
        self.backend.no_padding()
        self.prefix, self.suffix = tokenizers.special_tokens(self.backend)
        self.settings = settings
        extra = len(self.prefix) + len(self.suffix)
        for name in ("max_query_length", "max_length"):
            if getattr(settings, name) <= extra:
                raise UserError(
                    f"tokenize.{name}: {getattr(settings, name)} is room for special tokens alone; "
                    f"expected more than {extra}"
                )

    def encode_table(self, name: str, batches: Iterable[Batch], ordered_map: OrderedMap = map) -> Iterator[Features]:
        """Return the features and their counts of each batch of (row numbers, queries or documents)."""
        return ordered_map(self.part, batches)

    def encode(self, examples: pa.Table, rows: np.ndarray) -> pa.Table:
        """Turn queries into PAIRS, documents into TEXTS; a query without relevant documents has empty lists there.

        rows: int [len(examples)], what the column `example` says of each.
        """
        return self.part((rows, examples))[0]

    def part(self, batch: Batch) -> Features:
        """Return the features of one batch, and their counts."""
        rows, examples = batch
        if "query" in examples.column_names:
            return self._pairs(examples, rows)
        texts = self._documents(examples)
        features = pa.table([pa.array(rows, pa.int32()), ragged.lists(texts.sizes, texts.ids)], schema=TEXTS)
        return features, {"examples": len(examples), "features": len(features)} | _counts([texts])

    def _pairs(self, examples: pa.Table, rows: np.ndarray) -> Features:
        queries = self._texts(examples["query"], self.settings.query_prefix, self.settings.max_query_length)
        relevant, negatives = (_filled(examples[name]) for name in ("relevant", "negatives"))
        negatives = pc.list_slice(negatives, 0, self.settings.max_negatives)
        known, given = (pc.list_value_length(lists).to_numpy() for lists in (relevant, negatives))
        pool = [
            pa.Table.from_struct_array(pc.list_flatten(lists)).select(["id", "title", "text"])
            for lists in (relevant, negatives)
        ]
        documents = self._documents(pa.concat_tables(pool))
        keys = np.concatenate([_keys(part["id"]) for part in pool])
        # Features and, of each, its documents by their row in the pool: the relevant one, then the negatives.
        example = np.repeat(np.arange(len(examples)), np.maximum(known, 1))
        has_document = np.flatnonzero(known[example] > 0)
        negative = _rows(given, example[has_document]) + len(pool[0])
        owner = np.concatenate([has_document, np.repeat(has_document, given[example[has_document]])])
        order = np.argsort(owner, kind="stable")
        chosen = np.concatenate([np.arange(len(pool[0])), negative])[order]
        sizes = np.bincount(owner, minlength=len(example))
        tokens = _taken(documents, chosen)
        query_tokens = _taken(queries, example)
        columns = [
            pa.array(rows[example], pa.int32()),
            ragged.lists(query_tokens.sizes, query_tokens.ids),
            pa.ListArray.from_arrays(
                pa.array(ragged.bounds(sizes), pa.int32()), ragged.lists(tokens.sizes, tokens.ids)
            ),
            _key_lists(sizes, keys[chosen]),
            _key_lists(known[example], keys[_rows(known, example)]),
        ]
        if b"document_ids" in (examples.schema.metadata or {}):
            columns[-1] = _with_own(columns[-1], _keys(examples["id"])[example])
        features = pa.table(columns, schema=PAIRS)
        counts = {"examples": len(examples), "features": len(features), "negatives": int(given.sum())}
        return features, counts | _counts([queries, documents])

    def _documents(self, examples: pa.Table) -> Texts:
        # As BEIR joins them: a title is the beginning of its text.
        joined = pc.utf8_trim_whitespace(pc.binary_join_element_wise(examples["title"], examples["text"], " "))
        return self._texts(joined, self.settings.document_prefix, self.settings.max_length)

    def _texts(self, texts: pa.ChunkedArray, prefix: str, most: int) -> Texts:
        """Tokenize distinct texts once, cut what is beyond `most` tokens, and put the special tokens around."""
        distinct = texts.combine_chunks().dictionary_encode()
        encodings = self.backend.encode_batch_fast(
            [prefix + text for text in distinct.dictionary.to_pylist()], add_special_tokens=False
        )
        lengths = np.array([len(encoding) for encoding in encodings], dtype=np.int64)
        ids = np.fromiter((i for encoding in encodings for i in encoding.ids), np.int64, lengths.sum())
        extra = len(self.prefix) + len(self.suffix)
        kept = np.minimum(lengths, most - extra)
        body = ragged.gather(ids, ragged.bounds(lengths)[:-1], kept)
        whole = Texts(ragged.framed(body, kept, self.prefix, self.suffix), kept + extra, lengths - kept)
        return _taken(whole, distinct.indices.to_numpy())


def _taken(texts: Texts, rows: np.ndarray) -> Texts:
    """Return these of the texts, in this order, perhaps some of them several times."""
    sizes = texts.sizes[rows]
    return Texts(ragged.gather(texts.ids, ragged.bounds(texts.sizes)[:-1][rows], sizes), sizes, texts.cut[rows])


def _rows(lengths: np.ndarray, lists: np.ndarray) -> np.ndarray:
    """Return the rows, in the flat values of lists of these lengths, of the values of some of the lists."""
    return ragged.gather(np.arange(lengths.sum()), ragged.bounds(lengths)[:-1][lists], lengths[lists])


def _filled(lists: pa.ChunkedArray) -> pa.Array:
    """Return lists with an empty one for null: inference knows no relevant documents."""
    array = lists.combine_chunks()
    return pc.if_else(array.is_valid(), array, pa.scalar([], array.type))


def _keys(ids: pa.ChunkedArray) -> np.ndarray:
    """Return 64 bits of each id, the same in every process: int64 [ids]."""
    return pd.util.hash_array(ids.to_numpy().astype(object), categorize=False).view(np.int64)


def _with_own(relevant: pa.Array, own: np.ndarray) -> pa.Array:
    """Put the key of each query's own id behind those of its relevant documents, where it is not among them."""
    lists = relevant.to_pylist()
    return pa.array(
        [keys if key in keys else [*keys, key] for keys, key in zip(lists, own.tolist(), strict=True)],
        relevant.type,
    )


def _key_lists(sizes: np.ndarray, keys: np.ndarray) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(ragged.bounds(sizes), pa.int32()), pa.array(keys, pa.int64()))


def _counts(parts: list[Texts]) -> dict[str, int]:
    return {
        "tokens": int(sum(part.sizes.sum() for part in parts)),
        "texts_truncated": int(sum((part.cut > 0).sum() for part in parts)),
        "tokens_truncated": int(sum(part.cut.sum() for part in parts)),
    }
