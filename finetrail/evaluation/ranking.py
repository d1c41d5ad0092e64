"""Scores rankings against judgements, by the definitions of trec_eval, and orders a first stage's candidates anew."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from finetrail.evaluation.splits import slice_columns

CUTOFF = 10  # of mrr and ndcg
RECALL_CUTOFFS = (1, 10, 100)
DEPTH = 100  # of a ranking


def per_query(rankings: Sequence[Sequence[str]], relevance: Sequence[Mapping[str, int]]) -> dict[str, np.ndarray]:
    """Return each score of each query: float64 [queries] by name.

    rankings: documents' ids, the best first; relevance: grades above 0 of the relevant documents. As trec_eval's
    recall_K, recip_rank of the first 10, and ndcg_cut_10: a grade is its gain, and the ideal ranking has all of them.
    """
    scores: dict[str, list[float]] = {"ndcg@10": [], "mrr@10": [], **{f"recall@{cut}": [] for cut in RECALL_CUTOFFS}}
    for ranking, grades in zip(rankings, relevance, strict=True):
        gains = np.array([grades.get(document, 0) for document in ranking], dtype=np.float64)
        hits = np.flatnonzero(gains)
        ideal = np.sort(np.array(list(grades.values()), dtype=np.float64))[::-1]
        scores["ndcg@10"].append(_dcg(gains) / _dcg(ideal))
        scores["mrr@10"].append(1 / (hits[0] + 1) if len(hits) and hits[0] < CUTOFF else 0.0)
        for cut in RECALL_CUTOFFS:
            scores[f"recall@{cut}"].append(float((hits < cut).sum() / len(grades)))
    return {name: np.array(values) for name, values in scores.items()}


def _dcg(gains: np.ndarray) -> float:
    top = gains[:CUTOFF]
    return float((top / np.log2(np.arange(2, len(top) + 2))).sum())


def graded(judged: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return the grades of a query's judgements by document."""
    return {document["id"]: document["relevance"] for document in judged}


def reordered(predictions: pa.Table, scores: np.ndarray) -> pa.Table:
    """Return a row for each query of candidates, ordered by scores [rows], the highest first.

    Of equal scores, the first stage's order stays. Columns: id (of the query's first row), text (the query), references
    (its judgements), ranked (ids of documents), best (the first one's text). A document that occurs twice for a
    query counts once.
    """
    candidates = predictions["candidate"].combine_chunks()
    queries, documents = (candidates.field(name).to_pylist() for name in ("query", "document"))
    first_stage = candidates.field("score").to_numpy(zero_copy_only=False)
    rows_of: dict[str, list[int]] = {}
    # lexsort sorts by the last key first; ties in both keep their order.
    for row in np.lexsort((-first_stage, -scores)).tolist():
        rows_of.setdefault(queries[row], []).append(row)
    order = list(dict.fromkeys(queries))
    first = {query: row for row, query in reversed(list(enumerate(queries)))}
    starts = pa.array([first[query] for query in order])
    return pa.table(
        {
            "id": predictions["id"].take(starts),
            "text": predictions["text"].take(starts),
            "references": pc.struct_field(predictions["candidate"], "judged").take(starts),
            "ranked": [list(dict.fromkeys(documents[row] for row in rows_of[query])) for query in order],
            "best": predictions["text_pair"].take(pa.array([rows_of[query][0] for query in order])),
            **{name: column.take(starts) for name, column in slice_columns(predictions).items()},
        }
    )


def of_queries(units: pa.Table) -> dict[str, np.ndarray]:
    """Return each score of each row of reordered(): float64 [queries] by name."""
    return per_query(units["ranked"].to_pylist(), [graded(judged) for judged in units["references"].to_pylist()])
