"""Turns features and a model's outputs into rankings of documents, and those into scores, tables and baselines."""

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from finetrail.corpus.candidates import CANDIDATE, GRADES
from finetrail.encoding.ranking import Bm25, texts_of, top
from finetrail.errors import UserError
from finetrail.evaluation import inference, slicing
from finetrail.evaluation.bootstrap import Statistic
from finetrail.evaluation.ranking import CUTOFF, DEPTH, graded
from finetrail.evaluation.slicing import Slicing
from finetrail.evaluation.splits import Encoded, slice_columns
from finetrail.tasks.retrieval.metrics import OF_DIMENSIONS, per_query
from finetrail.tasks.retrieval.settings import RELEVANT_LABEL, Evaluate, Target

if TYPE_CHECKING:
    from finetrail.tasks.contract import Outcome, Row

# Optional in tasks/contract.py, and not used here.
beside = settle = counted = alone = None

SHOWN = 10  # documents per ranking that predictions keep with similarity and text
EXCERPT = 300  # characters
QUERY_WORDS = ((1, 4), (5, 8), (9, 16), (17, None))
RELEVANT = ((1, 1), (2, 3), (4, 9), (10, None))

SIMILARITIES_AT_ONCE = 1 << 24  # bounds the memory of a block of queries by all documents
# faiss's inverted file: about 4 * sqrt(documents) clusters, of which an eighth are searched.
CLUSTERS, SHARE_SEARCHED, LEAST_IN_CLUSTER = 4, 8, 39

TEXTS = pa.struct([("title", pa.string()), ("text", pa.string())])
# More than 2 GiB of text do not fit into a column of strings that is taken from.
LARGE_TEXTS = pa.schema([("title", pa.large_string()), ("text", pa.large_string())])

# Per query: rows of documents, the best first, and their scores.
Found = Sequence[tuple[np.ndarray, np.ndarray]]

# The vectors of a collection, as long as the model exists. Splits and requests to a server share them.
_collections: WeakKeyDictionary[inference.Forward, tuple[pa.Table, np.ndarray]] = WeakKeyDictionary()


def predict(
    split: Encoded,
    shared: dict[str, Encoded],
    target: Target,
    forward: inference.Forward,
    tokenizer: Any,
    settings: Evaluate,
) -> pa.Table:
    """Search the documents for each query; columns id, query, references, and of what is found: ranked (100 ids),
    predictions, scores and found (10 ids, their cosines, their texts); and relevant, the text to be found. Where
    queries are judged, also ranked_N (10 ids) for each N of the target's dimensions: what the first N numbers find.

    Without documents, or for texts that are no queries, the predictions are the vectors themselves.
    """
    examples, features = split
    first = np.unique(features["example"].to_numpy(), return_index=True)[1]
    vectors = _embed(features.take(first), forward, tokenizer, target, settings)
    if "documents" not in shared or "query" not in examples.column_names:
        return pa.table({"id": examples["id"], "predictions": pa.array(list(vectors), pa.list_(pa.float32()))})
    collection, known = shared["documents"].examples, _embedded(shared, forward, tokenizer, target, settings)
    search = SEARCH[settings.index]
    left_out = not_to_be_found(examples, collection)
    found = _rankings(examples, collection, search(vectors, known, _depth(left_out)), left_out)
    judged = pc.any(pc.greater(pc.list_value_length(examples["relevant"]), 0)).as_py()
    for width in (target["dimensions"] or []) if judged else []:
        best = search(shortened(vectors, width), shortened(known, width), _depth(left_out))
        ids = _ranked(collection, best, left_out, CUTOFF)
        found = found.append_column(f"{OF_DIMENSIONS}{width}", pa.array(ids, pa.list_(pa.string())))
    return found


def candidates(
    split: Encoded,
    shared: dict[str, Encoded],
    target: Target,
    forward: inference.Forward,
    tokenizer: Any,
    settings: Evaluate,
    to_learn: bool,
) -> pa.Table | None:
    """Return a row per query and document, the best documents first, as a reranker reads them.

    Columns: id, query and document (texts), labels (RELEVANT_LABEL, or none), candidate. Rows with one text are one
    query. to_learn: append the relevant documents that were not found, with their scores.
    """
    if settings.candidates is None:
        return None
    collection, known = shared["documents"].examples, _embedded(shared, forward, tokenizer, target, settings)
    queries = units(_queries(split.examples, not_to_be_found(split.examples, collection)))
    first = np.unique(split.features["example"].to_numpy(), return_index=True)[1][queries["row"].to_numpy()]
    vectors = _embed(split.features.take(first), forward, tokenizer, target, settings)
    ids, left_out = collection["id"].to_numpy(), [set(names) for names in queries["left_out"].to_pylist()]
    found = SEARCH[settings.index](vectors, known, _depth(left_out, settings.candidates))
    found = _without_those(ids, found, left_out, settings.candidates)
    judged = [graded(of_query) for of_query in queries["references"].to_pylist()]
    if to_learn:
        found = _with_relevant(found, vectors, known, ids, judged)
    return _candidate_rows(queries, collection, found, judged)


def headline(target: Target, settings: Evaluate) -> str:
    return "ndcg@10"


def score(predictions: pa.Table, target: Target, settings: Evaluate) -> dict[str, float]:
    """Return means over the queries, each in [0, 1]; ndcg@10_N uses the first N dimensions only."""
    return {name: float(values.mean()) for name, values in per_query(units(predictions)).items()}


def units(predictions: pa.Table) -> pa.Table:
    """Return a row per distinct query text, with the judgements of all rows with that text."""
    rows: dict[str, int] = {}
    judged: dict[str, dict[str, int]] = {}
    references = predictions["references"].to_pylist()
    for row, (query, of_row) in enumerate(zip(predictions["query"].to_pylist(), references, strict=True)):
        rows.setdefault(query, row)
        judged.setdefault(query, {}).update({document["id"]: document["relevance"] for document in of_row})
    merged = [[{"id": name, "relevance": grade} for name, grade in grades.items()] for grades in judged.values()]
    kept = predictions.take(list(rows.values()))
    column = kept.schema.get_field_index("references")
    return kept.set_column(column, "references", pa.array(merged, pa.list_(GRADES)))


def statistics(units: pa.Table, target: Target, settings: Evaluate) -> Statistic:
    values = per_query(units)
    return lambda weights: {name: weights @ of_queries / weights.sum(-1) for name, of_queries in values.items()}


def outcomes(units: pa.Table, target: Target, settings: Evaluate) -> "list[Outcome]":
    """Return the outcome of each query; its score is its ndcg@10."""
    return [
        {
            "score": float(ndcg),
            "input": row["query"],
            "reference": _excerpt(row["relevant"]),
            "prediction": _excerpt(row["found"][0]) if row["found"] else "",
        }
        for row, ndcg in zip(units.to_pylist(), per_query(units)["ndcg@10"], strict=True)
    ]


def slicings(units: pa.Table, train: pa.Table, target: Target) -> list[Slicing]:
    """Slice queries by length, by words that no query or document of train has, and by columns."""
    relevant = pc.list_flatten(train["relevant"])
    documents = (pc.struct_field(relevant, name).unique().to_pylist() for name in ("title", "text"))
    known = {word for text in chain(train["query"].to_pylist(), *documents) for word in slicing.words(text or "")}
    queries = units["query"].to_pylist()
    return [
        slicing.by_length("length in words", map(slicing.words, queries)),
        slicing.by_unseen(map(slicing.words, queries), known),
        *slicing.by_columns(units),
    ]


def tables(predictions: pa.Table, target: Target, settings: Evaluate) -> "dict[str, list[Row]]":
    """Return ndcg@10 by the words of a query, and by the number of its relevant documents."""
    predictions = units(predictions)
    ndcg = per_query(predictions)["ndcg@10"]
    words = np.array([len(query.split()) for query in predictions["query"].to_pylist()])
    relevant = np.array([len(grades) for grades in predictions["references"].to_pylist()])
    return {
        "by_query_length": _by_range(words, ndcg, QUERY_WORDS, "words"),
        "by_relevant_documents": _by_range(relevant, ndcg, RELEVANT, "relevant"),
    }


def worst_errors(predictions: pa.Table, most: int, target: Target, settings: Evaluate) -> "list[Row]":
    """Return the queries whose first relevant document has the lowest rank, or none; ties by the highest similarity."""
    errors = []
    for row in units(predictions).to_pylist():
        relevant = {judged["id"] for judged in row["references"]}
        rank = next((rank for rank, found in enumerate(row["ranked"], start=1) if found in relevant), None)
        if rank != 1:
            errors.append((-(rank or DEPTH + 1), -row["scores"][0], row["id"], rank, row))
    errors.sort(key=lambda error: error[:3])
    return [
        {
            "id": row["id"],
            "query": row["query"],
            "rank": rank,
            "relevant": _excerpt(row["relevant"]),
            "found": _excerpt(row["found"][0]),
            "score": round(row["scores"][0], 4),
        }
        for *_, rank, row in errors[:most]
    ]


def base_is_baseline(base_model: Path) -> bool:
    """Return True: the vectors of any encoder can be compared."""
    return True


def baselines(
    train: Encoded, split: Encoded, shared: dict[str, Encoded], target: Target, settings: Evaluate
) -> dict[str, pa.Table]:
    """Return what BM25 finds in the whole texts, without the truncation that a model needs."""
    documents = shared["documents"].examples
    left_out = not_to_be_found(split.examples, documents)
    queries = split.examples["query"].to_pylist()
    found = bm25(queries, texts_of(documents), settings.bm25_terms, _depth(left_out))
    return {"bm25": _rankings(split.examples, documents, found, left_out)}


def not_to_be_found(examples: pa.Table, documents: pa.Table) -> list[set[str]]:
    """Return the ids of documents to exclude per query: the one with the query's own id, unless it is judged relevant.

    As in BEIR, where some queries are documents too. Rows with the same text are one query. Without judgements, nothing
    is excluded.
    """
    columns = [examples[name].to_pylist() for name in ("id", "query", "relevant")]
    own: dict[str, set[str]] = {}
    if any(columns[2]):
        is_document = pc.is_in(examples["id"], value_set=documents["id"].combine_chunks()).to_pylist()
        for given, query, judged, known in zip(*columns, is_document, strict=True):
            if known and judged:
                own.setdefault(query, set()).add(given)
    for _, query, judged in zip(*columns, strict=True):
        if query in own:
            own[query] -= {document["id"] for document in judged or []}
    return [own.get(query, set()) if judged else set() for _, query, judged in zip(*columns, strict=True)]


def _depth(left_out: list[set[str]], most: int = DEPTH) -> int:
    """Return how many documents to search for, so that rankings are full after the exclusions."""
    return most + max(1, *map(len, left_out))


# --- search: the k best documents of each query ---------------------------------------------------------------------


def exact(queries: np.ndarray, documents: np.ndarray, k: int) -> Found:
    """Compare each query with each document: float32 [n, width] and [m, width], by their product.

    Ties keep the order of the collection.
    """
    step = max(1, SIMILARITIES_AT_ONCE // len(documents))
    blocks = (queries[start : start + step] @ documents.T for start in range(0, len(queries), step))
    return [top(similarities, k) for block in blocks for similarities in block]


def clustered(queries: np.ndarray, documents: np.ndarray, k: int) -> Found:
    """Compare each query with the documents of the nearest clusters (faiss's IVFFlat), which may be fewer than k.

    UserError if faiss is not installed.
    """
    try:
        import faiss
    except ImportError:
        raise UserError("evaluate.index: faiss is not installed; expected `pip install faiss-cpu`, or exact") from None
    width = documents.shape[1]
    clusters = max(1, min(int(CLUSTERS * len(documents) ** 0.5), len(documents) // LEAST_IN_CLUSTER))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, clusters, faiss.METRIC_INNER_PRODUCT)
    index.train(documents)
    index.add(documents)
    index.nprobe = -(-clusters // SHARE_SEARCHED)
    found = []
    for similarities, rows in zip(*index.search(queries, min(k, len(documents))), strict=True):
        order = np.lexsort((rows, -similarities))[: (rows >= 0).sum()]  # -1 is padding, and faiss does not order ties
        found.append((rows[order], similarities[order]))
    return found


SEARCH = {"exact": exact, "faiss": clustered}


def shortened(vectors: np.ndarray, width: int) -> np.ndarray:
    """Return the first `width` numbers of vectors [n, whole], normalized to length 1: float32 [n, width]."""
    beginnings = vectors[:, :width]
    found: np.ndarray = beginnings / np.linalg.norm(beginnings, axis=-1, keepdims=True).clip(1e-12)
    return found


def bm25(queries: Sequence[str], documents: Iterable[str], kind: str, k: int) -> Found:
    """Score each document for each query by BM25."""
    index = Bm25(documents, kind)
    return [top(index.scores(query), k) for query in queries]


# --- helpers ------------------------------------------------------------------------------------------------------


def _embed(
    features: pa.Table, forward: inference.Forward, tokenizer: Any, target: Target, settings: Evaluate
) -> np.ndarray:
    """Return a normalized vector per text, pooled as in training: float32 [texts, width]."""
    lengths = pc.list_value_length(features["input_ids"]).to_numpy()
    vectors = None
    for rows, outputs in inference.forward_batches(features, forward, tokenizer.pad_token_id, settings.batch_size):
        hidden = outputs["last_hidden_state"]
        tokens = lengths[rows, None]
        if target["pooling"] == "cls":
            pooled = hidden[:, 0]
        else:
            mask = np.arange(hidden.shape[1]) < tokens
            pooled = np.einsum("blw,bl->bw", hidden, mask.astype(hidden.dtype)) / tokens.astype(hidden.dtype)
        if vectors is None:  # a text without tokens keeps a vector of zeros
            vectors = np.zeros((len(features), hidden.shape[-1]), dtype=np.float32)
        vectors[rows] = pooled / np.linalg.norm(pooled, axis=-1, keepdims=True).clip(1e-12)
    if vectors is None:
        raise UserError("there is no token to make a vector of in any of the texts; expected some text")
    return vectors


def _embedded(
    shared: dict[str, Encoded], forward: inference.Forward, tokenizer: Any, target: Target, settings: Evaluate
) -> np.ndarray:
    """Return the vectors of the collection, computed once for a model: float32 [documents, width]."""
    encoded = shared["documents"].features
    known = _collections.get(forward)
    if known is None or known[0] is not encoded:
        known = _collections[forward] = (encoded, _embed(encoded, forward, tokenizer, target, settings))
    return known[1]


def _queries(examples: pa.Table, left_out: list[set[str]]) -> pa.Table:
    """Return queries with their row, judgements, and excluded documents."""
    judged = [_grades(of_query) for of_query in examples["relevant"].to_pylist()]
    columns = {
        "references": pa.array(judged, pa.list_(GRADES)),
        "row": pa.array(np.arange(len(examples))),
        "left_out": pa.array(map(sorted, left_out), pa.list_(pa.string())),
    }
    return pa.table({"id": examples["id"], "query": examples["query"]} | columns)


def _with_relevant(
    found: Found, queries: np.ndarray, documents: np.ndarray, ids: np.ndarray, judged: list[dict[str, int]]
) -> Found:
    """Append the relevant documents that were not found, with their cosine similarity."""
    row_of = {name: row for row, name in enumerate(ids)}
    more = []
    for (best, scores), query, grades in zip(found, queries, judged, strict=True):
        rows = np.setdiff1d(np.array([row_of[name] for name in grades], dtype=int), best)
        more.append((np.append(best, rows), np.append(scores, documents[rows] @ query)))
    return more


def _candidate_rows(queries: pa.Table, documents: pa.Table, found: Found, judged: list[dict[str, int]]) -> pa.Table:
    """Return a row per query and document found."""
    sizes = [len(rows) for rows, _ in found]
    query, rows = pa.array(np.repeat(np.arange(len(found)), sizes)), np.concatenate([rows for rows, _ in found])
    texts, blank = _texts(documents, rows), pa.scalar(" ", pa.large_string())
    joined = pc.utf8_trim_whitespace(pc.binary_join_element_wise(texts["title"], texts["text"], blank))
    names = documents["id"].take(rows)
    is_relevant = [name in judged[of] for of, name in zip(query.to_pylist(), names.to_pylist(), strict=True)]
    columns = {
        "query": queries["id"].take(query),
        "document": names,
        "score": pa.array(np.concatenate([scores for _, scores in found]), pa.float32()),
        "judged": queries["references"].take(query),
    }
    ranks = np.concatenate([np.arange(size) + 1 for size in sizes]).tolist()
    return pa.table(
        {
            "id": [f"{of}/{rank}" for of, rank in zip(columns["query"].to_pylist(), ranks, strict=True)],
            "query": queries["query"].take(query),
            "document": joined,
            "labels": pa.array([[RELEVANT_LABEL] if is_it else [] for is_it in is_relevant], pa.list_(pa.string())),
            "candidate": pa.table(columns, schema=pa.schema(list(CANDIDATE))).to_struct_array(),
        }
    )


def _rankings(examples: pa.Table, documents: pa.Table, found: Found, left_out: list[set[str]]) -> pa.Table:
    """Return the documents found for each query, without the excluded ones."""
    ids = documents["id"].to_numpy()
    found = _without_those(ids, found, left_out, DEPTH)
    shown = [rows[:SHOWN] for rows, _ in found]
    texts = _texts(documents, np.concatenate(shown)).to_pylist()
    ends = np.cumsum([0, *map(len, shown)])
    relevant = examples["relevant"].to_pylist()
    columns: dict[str, Any] = {
        "references": ([_grades(judged) for judged in relevant], pa.list_(GRADES)),
        "ranked": ([ids[rows] for rows, _ in found], pa.list_(pa.string())),
        "predictions": ([ids[rows] for rows in shown], pa.list_(pa.string())),
        "scores": ([scores[:SHOWN] for _, scores in found], pa.list_(pa.float32())),
        "found": ([texts[start:end] for start, end in zip(ends, ends[1:], strict=False)], pa.list_(TEXTS)),
        "relevant": ([_most_relevant(judged) for judged in relevant], TEXTS),
    }
    arrays = {name: pa.array(values, kind) for name, (values, kind) in columns.items()}
    return pa.table({"id": examples["id"], "query": examples["query"], **arrays, **slice_columns(examples)})


def _texts(documents: pa.Table, rows: np.ndarray) -> pa.Table:
    """Return title and text of documents by their rows, which may repeat."""
    distinct, place = np.unique(rows, return_inverse=True)
    wanted = np.zeros(len(documents), dtype=bool)
    wanted[distinct] = True
    # Not take() on the whole column, which would need it in one chunk.
    return documents.select(["title", "text"]).filter(pa.array(wanted)).cast(LARGE_TEXTS).take(place)


def _ranked(documents: pa.Table, found: Found, left_out: list[set[str]], most: int) -> list[np.ndarray]:
    """Return the ids of the best documents of each query."""
    ids = documents["id"].to_numpy()
    return [ids[rows] for rows, _ in _without_those(ids, found, left_out, most)]


def _without_those(ids: np.ndarray, found: Found, left_out: list[set[str]], most: int) -> Found:
    return [_without(ids, *each, most) for each in zip(left_out, found, strict=True)]


def _without(
    ids: np.ndarray, left_out: set[str], ranking: tuple[np.ndarray, np.ndarray], most: int
) -> tuple[np.ndarray, np.ndarray]:
    rows, scores = ranking
    kept = np.array([row for row, found in enumerate(ids[rows]) if found not in left_out][:most], dtype=int)
    return rows[kept], scores[kept]


def _grades(judged: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    return judged and [{name: document[name] for name in ("id", "relevance")} for document in judged]


def _most_relevant(judged: list[dict[str, Any]] | None) -> dict[str, str] | None:
    """Return title and text of the first of the most relevant documents."""
    if not judged:
        return None
    best = max(judged, key=lambda document: document["relevance"])
    return {name: best[name] for name in ("title", "text")}


def _by_range(
    counts: np.ndarray, ndcg: np.ndarray, ranges: Sequence[tuple[int, int | None]], unit: str
) -> list[dict[str, Any]]:
    """Return a row per range of counts that is not empty."""
    rows = []
    for low, high in ranges:
        inside = (counts >= low) & (counts <= (high or counts.max()))
        if inside.any():
            label = f"{low}+" if high is None else str(low) if low == high else f"{low}-{high}"
            rows.append(
                {"label": f"{label} {unit}", "support": int(inside.sum()), "ndcg@10": float(ndcg[inside].mean())}
            )
    return rows


def _excerpt(document: dict[str, str]) -> str:
    text = " ".join(f"{document['title']} {document['text']}".split())
    return text if len(text) <= EXCERPT else text[: EXCERPT - 1] + "…"
