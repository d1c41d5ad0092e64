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
from finetrail.encoding.engines import UNTIMED, Batch, Features, OrderedMap
from finetrail.encoding.ranking import Bm25, Given, hard_negatives, texts_of
from finetrail.errors import UserError
from finetrail.tasks.retrieval.settings import Negatives, Target, Tokenize

# Optional in tasks/contract.py, and not used here.
TOGETHER = None

DOCUMENT = ["id", "title", "text"]
TEXTS = pa.schema([("example", pa.int32()), ("input_ids", pa.list_(pa.int32()))])
PAIRS = pa.schema(
    [
        ("example", pa.int32()),  # row of the query in data/corpus
        ("input_ids", pa.list_(pa.int32())),  # of the query
        ("document_input_ids", pa.list_(pa.list_(pa.int32()))),  # of a relevant document, and of the hard negatives
        ("documents", pa.list_(pa.int64())),  # keys of these documents,
        # And of all that are relevant to the query, so no negatives of it; if the source has
        # ids of documents, followed by that of the query's own id, which is no negative either: search leaves it out.
        ("relevant", pa.list_(pa.int64())),
    ]
)


class Texts(NamedTuple):
    """Concatenated tokens of texts, and the truncated counts."""

    ids: np.ndarray
    sizes: np.ndarray
    cut: np.ndarray  # tokens that a text lost


class Mined(NamedTuple):
    """Documents, and which of them are mined negatives of each pair of a query and a relevant document."""

    documents: pa.Table
    sizes: np.ndarray  # how many a pair has [pairs]
    rows: np.ndarray  # theirs, pair after pair, the best first
    counts: dict[str, int]


def load_tokenizer(folder: Path, settings: Tokenize, train: Callable[[], Iterator[pa.Table]]) -> Any:
    """Load the base model's tokenizer, for running text."""
    return tokenizers.load_tokenizer(folder, max(settings.max_length, settings.max_query_length))


def target(train: Iterator[pa.Table], settings: Tokenize) -> Target:
    """Return how a text becomes a vector, which training, search and the exported model share."""
    return {
        "pooling": settings.pooling,
        "dimensions": settings.dimensions,
        "max_length": settings.max_length,
        "query_prefix": settings.query_prefix,
        "document_prefix": settings.document_prefix,
    }


def needed(queries: pa.Table) -> list[str]:
    """Return the ids of the documents that rows of queries name: tokenize.limit keeps these."""
    lists = (pc.list_flatten(queries[name]) for name in ("relevant", "negatives"))
    return [given for structs in lists for given in pc.struct_field(structs, "id").to_pylist()]


class Encoder:
    """Encodes tables of queries, and of documents."""

    nothing = None

    tables = dict.fromkeys(layout.SPLITS, PAIRS) | {"documents": TEXTS}

    def __init__(self, tokenizer: Any, target: Target, settings: Tokenize) -> None:
        self.backend = tokenizers.plain_backend(tokenizer)
        self.prefix, self.suffix = tokenizers.special_tokens(self.backend)
        self.settings = settings
        self.miner: Miner | None = None
        extra = len(self.prefix) + len(self.suffix)
        for name in ("max_query_length", "max_length"):
            if getattr(settings, name) <= extra:
                raise UserError(
                    f"tokenize.{name}: {getattr(settings, name)} is enough only for the special tokens; "
                    f"expected more than {extra}"
                )

    def encode_table(self, name: str, batches: Iterable[Batch], ordered_map: OrderedMap = map) -> Iterator[Features]:
        """Return the features and their counts of each batch of (row numbers, queries or documents)."""
        return ordered_map(self.mined_part if self.miner and name == "train" else self.part, batches)

    def survey(self, read: Callable[[str], pa.Table]) -> None:
        """Look through whole tables before they are encoded: negatives of train are mined in all documents."""
        mining = self.settings.negatives
        if mining is not None:
            train, documents = read("train"), read("documents")
            if mining.terms is not None:
                ranker: Bm25 | Given = Bm25(texts_of(documents), mining.terms)
            else:
                ranker = given_ranker(train, documents, read(layout.RANKINGS))
            self.miner = Miner(train, documents, mining, ranker)

    def encode(self, examples: pa.Table, rows: np.ndarray) -> pa.Table:
        """Turn queries into PAIRS, documents into TEXTS; a query without relevant documents has empty lists there.

        rows: int [len(examples)], values of the column `example`.
        """
        return self.part((rows, examples))[0]

    def part(self, batch: Batch) -> Features:
        """Return the features of one batch, and their counts."""
        rows, examples = batch
        if "query" in examples.column_names:
            return self._pairs(examples, rows, nothing_mined(examples))
        texts = self._documents(examples)
        features = pa.table([pa.array(rows, pa.int32()), ragged.lists(texts.sizes, texts.ids)], schema=TEXTS)
        return features, {"examples": len(examples), "features": len(features)} | _counts([texts])

    def mined_part(self, batch: Batch) -> Features:
        """Return the features of one batch of train's queries with mined negatives, and their counts."""
        assert self.miner is not None
        rows, examples = batch
        return self._pairs(examples, rows, self.miner.mined(examples))

    setattr(mined_part, UNTIMED, True)  # a query takes as long as the collection is large

    def _pairs(self, examples: pa.Table, rows: np.ndarray, mined: Mined) -> Features:
        queries = self._texts(examples["query"], self.settings.query_prefix, self.settings.max_query_length)
        relevant, negatives = (_filled(examples[name]) for name in ("relevant", "negatives"))
        negatives = pc.list_slice(negatives, 0, self.settings.max_negatives)
        known, given = (pc.list_value_length(lists).to_numpy() for lists in (relevant, negatives))
        pool = [_structs(lists) for lists in (relevant, negatives)] + [mined.documents]
        documents = self._documents(pa.concat_tables(pool))
        keys = np.concatenate([_keys(part["id"]) for part in pool])
        # Features and, of each, its documents by their row in the pool: the relevant one, then the negatives, given
        # ones first.
        example = np.repeat(np.arange(len(examples)), np.maximum(known, 1))
        has_document = np.flatnonzero(known[example] > 0)
        negative = _rows(given, example[has_document]) + len(pool[0])
        owner = np.concatenate(
            [has_document, np.repeat(has_document, given[example[has_document]]), np.repeat(has_document, mined.sizes)]
        )
        order = np.argsort(owner, kind="stable")
        chosen = np.concatenate([np.arange(len(pool[0])), negative, mined.rows + len(pool[0]) + len(pool[1])])[order]
        sizes = np.bincount(owner, minlength=len(example))
        tokens = _taken(documents, chosen)
        query_tokens = _taken(queries, example)
        columns = [
            pa.array(rows[example], pa.int32()),
            ragged.lists(query_tokens.sizes, query_tokens.ids),
            ragged.runs(sizes, ragged.lists(tokens.sizes, tokens.ids)),
            _key_lists(sizes, keys[chosen]),
            _key_lists(known[example], keys[_rows(known, example)]),
        ]
        if has_given_ids(examples):
            columns[-1] = _with_own(columns[-1], _keys(examples["id"])[example])
        features = pa.table(columns, schema=PAIRS)
        counts = {"examples": len(examples), "features": len(features), "negatives": int(given.sum())}
        return features, counts | mined.counts | _counts([queries, documents])

    def _documents(self, examples: pa.Table) -> Texts:
        # As in BEIR, a title is put before its text.
        joined = pc.utf8_trim_whitespace(pc.binary_join_element_wise(examples["title"], examples["text"], " "))
        return self._texts(joined, self.settings.document_prefix, self.settings.max_length)

    def _texts(self, texts: pa.ChunkedArray, prefix: str, most: int) -> Texts:
        """Tokenize distinct texts once, truncate them to `most` tokens, and add the special tokens around."""
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


class Miner:
    """Finds hard negatives of train's queries in the whole collection, by the scores of a ranker; it pickles."""

    def __init__(self, train: pa.Table, documents: pa.Table, settings: Negatives, ranker: Bm25 | Given) -> None:
        self.settings, self.ranker = settings, ranker
        # Arrow cannot take from more than 2 GiB of text in a column of strings.
        large = pa.schema([(name, pa.large_string()) for name in DOCUMENT])
        self.documents = documents.select(DOCUMENT).cast(large)
        self.row = {given: row for row, given in enumerate(documents["id"].to_pylist())}
        self.judged: dict[str, set[str]] = {}  # of rows with the same query, the relevant documents of all
        for query, relevant in zip(*(train[name].to_pylist() for name in ("query", "relevant")), strict=True):
            self.judged.setdefault(query, set()).update(document["id"] for document in relevant)

    def mined(self, examples: pa.Table) -> Mined:
        """Return the negatives of each relevant document of each query."""
        depth, most, below = self.settings.depth, self.settings.per_pair, self.settings.below
        own_too = has_given_ids(examples)
        chosen: list[tuple[np.ndarray, int]] = []
        for example in examples.select(["id", "query", "relevant"]).to_pylist():
            no_negatives = self.judged[example["query"]] | ({example["id"]} if own_too else set())
            known = np.array([self.row[given] for given in sorted(no_negatives) if given in self.row], dtype=np.int64)
            positives = np.array([self.row[document["id"]] for document in example["relevant"]], dtype=np.int64)
            scores = self.ranker.scores(example["query"])
            chosen += hard_negatives(scores, known, positives, depth, most, below)
        rows, sizes = [rows for rows, _ in chosen], np.array([len(rows) for rows, _ in chosen], dtype=np.int64)
        distinct, places = np.unique(np.concatenate([*rows, np.zeros(0, dtype=np.int64)]), return_inverse=True)
        counts = {
            "mined_negatives": int(sizes.sum()),
            "likely_positives_left_out": sum(left_out for _, left_out in chosen),
            "pairs_without_mined_negatives": int((sizes == 0).sum()),
        }
        documents = self.documents.take(distinct).cast(pa.schema([(name, pa.string()) for name in DOCUMENT]))
        return Mined(documents, sizes, places, counts)


def given_ranker(train: pa.Table, documents: pa.Table, rankings: pa.Table) -> Given:
    """Return the scores of a ranking for train's queries; UserError if it has none for any of them, or above 0.

    Rows of train with the same text are one query, with the ranking of the first row that has one.
    """
    row_of = pd.Index(documents["id"].to_pylist())
    found = pd.DataFrame(
        {"row": row_of.get_indexer(rankings["document"].to_pylist()), "score": rankings["score"].to_numpy()}
    )
    by_id = dict(iter(found.groupby(rankings["query"].to_pandas())))
    scores: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, query in zip(train["id"].to_pylist(), train["query"].to_pylist(), strict=True):
        if name in by_id and query not in scores:
            scores[query] = (by_id[name]["row"].to_numpy(), by_id[name]["score"].to_numpy())
    if not scores:
        ours, theirs = train["id"][0].as_py(), rankings["query"][0].as_py()
        raise UserError(
            f"corpus.rankings: no query of train is among them, which are such as {theirs!r}; "
            f"expected ids such as {ours!r}"
        )
    if not any((values > 0).any() for _, values in scores.values()):
        raise UserError(
            "corpus.rankings: no score is above 0; expected positive ones, for tokenize.negatives.below is a share"
        )
    return Given(scores, len(documents))


def nothing_mined(examples: pa.Table) -> Mined:
    """Return that no pair of these queries has mined negatives."""
    pairs = pc.sum(pc.list_value_length(examples["relevant"])).as_py() or 0
    documents = pa.schema([(name, pa.string()) for name in DOCUMENT]).empty_table()
    return Mined(documents, np.zeros(pairs, dtype=np.int64), np.zeros(0, dtype=np.int64), {})


def has_given_ids(examples: pa.Table) -> bool:
    """Return True if the source has ids of documents, so that a query's id may be that of a document."""
    return b"document_ids" in (examples.schema.metadata or {})


def _structs(lists: pa.Array) -> pa.Table:
    return pa.Table.from_struct_array(pc.list_flatten(lists)).select(DOCUMENT)


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
    """Append the key of each query's own id to those of its relevant documents, if it is not among them."""
    lists = relevant.to_pylist()
    return pa.array(
        [keys if key in keys else [*keys, key] for keys, key in zip(lists, own.tolist(), strict=True)],
        relevant.type,
    )


def _key_lists(sizes: np.ndarray, keys: np.ndarray) -> pa.Array:
    return ragged.runs(sizes, pa.array(keys, pa.int64()))


def _counts(parts: list[Texts]) -> dict[str, int]:
    return {
        "tokens": int(sum(part.sizes.sum() for part in parts)),
        "texts_truncated": int(sum((part.cut > 0).sum() for part in parts)),
        "tokens_truncated": int(sum(part.cut.sum() for part in parts)),
    }
