"""Turns vectors of queries and documents into the rank of relevant documents, for validation while a model trains."""

import numpy as np
import pyarrow as pa

from finetrail.tasks.retrieval.settings import Target

# Names among the loss and validate()'s scores, any of which train.best_metric and a search may name.
LOWER_IS_BETTER = ("loss",)

CUTOFF = 10  # of mrr
ROWS_AT_ONCE = 1024  # of the matrix of similarities


def validate(reduced: tuple[np.ndarray, np.ndarray], features: pa.Table, target: Target) -> dict[str, float]:
    """Return mrr@10 of the validation queries among the relevant documents of all of them.

    Queries with the same tokens are one, with the relevant documents of all. reduced: the vectors of each feature's
    query and relevant document, float [features, width]. A document that is as near as the relevant one counts as
    nearer, so that equal vectors for all documents score 0. As in search, the document with the query's own id counts
    only if it is relevant.
    """
    queries, documents = (vectors.astype(np.float32) for vectors in reduced)
    keys = np.array([keys[0] for keys in features["documents"].to_pylist()], dtype=np.int64)
    pool, first_document = np.unique(keys, return_index=True)
    feature: dict[tuple[int, ...], int] = {}  # the first of a query
    no_others: dict[tuple[int, ...], list[int]] = {}  # the relevant documents, and that of its own id
    examples = features["example"].to_numpy()
    _, first, of_feature = np.unique(examples, return_index=True, return_inverse=True)
    columns = [features[name].take(first).to_pylist() for name in ("input_ids", "relevant")]
    tokens = [tuple(of_one) for of_one in columns[0]]
    for row, of_one, known in zip(first.tolist(), tokens, columns[1], strict=True):
        feature.setdefault(of_one, row)
        no_others.setdefault(of_one, []).extend(known)
    relevant: dict[tuple[int, ...], list[int]] = {}  # each has a feature, of which it is the first document
    for number, key in zip(of_feature.tolist(), keys.tolist(), strict=True):
        relevant.setdefault(tokens[number], []).append(key)
    rows, asked = np.array(list(feature.values())), list(feature)
    ranks = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        similarities = queries[rows[start : start + ROWS_AT_ONCE]] @ documents[first_document].T
        for similarity, query in zip(similarities, asked[start:], strict=False):
            others = similarity[~np.isin(pool, no_others[query])]
            ranks.append(1 + (others >= similarity[np.isin(pool, relevant[query])].max()).sum())
    found = np.array(ranks)
    return {"mrr@10": float(np.where(found <= CUTOFF, 1 / found, 0).mean())}
