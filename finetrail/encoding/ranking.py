"""Ranks texts for a query by the words that they share (BM25), and finds the best of many scores."""

import re
from array import array
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

WORD = re.compile(r"\w+")
DOCUMENTS_AT_ONCE = 10_000  # as Python's strings


class Bm25:
    """BM25 as Lucene has it, k1 1.5 and b 0.75 (bm25s), over one collection; it pickles.

    kind: what texts are compared by, as in terms().
    """

    def __init__(self, documents: Iterable[str], kind: str) -> None:
        import bm25s  # nothing that predicts for people needs it

        collection = Numbered(terms(document, kind) for document in documents)
        self.kind, self.size = kind, len(collection)
        self.index: Any = None  # of a collection without any term, which bm25s refuses
        if collection.vocabulary:
            self.index = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
            tokenized = bm25s.tokenization.Tokenized(ids=collection, vocab=collection.vocabulary)
            self.index.index(tokenized, show_progress=False)

    def scores(self, query: str) -> np.ndarray:
        """Return the score of each document for a query: float32 [documents], 0 if they share no term."""
        words = terms(query, self.kind) if self.index else []
        # bm25s 0.3 refuses a query without terms.
        scores: np.ndarray = self.index.get_scores(words) if words else np.zeros(self.size, dtype=np.float32)
        return scores


class Numbered:
    """The terms of documents as numbers in a flat array, 4 bytes each; going through it gives a list a document.

    bm25s (0.3) asks for no more than that, and for lists of words 60 bytes each.
    """

    def __init__(self, documents: Iterable[list[str]]) -> None:
        self.vocabulary: dict[str, int] = {}
        self.flat, self.ends = array("i"), array("q", [0])
        for document in documents:
            self.flat.extend(self.vocabulary.setdefault(term, len(self.vocabulary)) for term in document)
            self.ends.append(len(self.flat))

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __iter__(self) -> Iterator[list[int]]:
        return (self.flat[start:end].tolist() for start, end in pairwise(self.ends))


def texts_of(documents: pa.Table) -> Iterator[str]:
    """Yield title and text of each document as one text."""
    for batch in documents.select(["title", "text"]).to_batches(max_chunksize=DOCUMENTS_AT_ONCE):
        for title, text in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            yield f"{title} {text}"


class Given:
    """Scores that another ranker gave to some of the documents; it pickles.

    found: query -> rows of documents and their scores, [n] each.
    """

    def __init__(self, found: dict[str, tuple[np.ndarray, np.ndarray]], size: int) -> None:
        self.found, self.size = found, size

    def scores(self, query: str) -> np.ndarray:
        """Return the score of each document for a query: float32 [documents], 0 of those without one."""
        scores = np.zeros(self.size, dtype=np.float32)
        if query in self.found:
            rows, values = self.found[query]
            scores[rows] = values
        return scores


def terms(text: str, kind: str) -> list[str]:
    """Return the lower-cased words of a text, or the pairs of neighbouring characters in them (a lone one as it is)."""
    words = WORD.findall(text.lower())
    if kind == "words":
        return words
    return [word[i : i + 2] for word in words for i in range(max(1, len(word) - 1))]


def top(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (rows, scores) of the k highest of [m] scores, the highest first, equal ones in order."""
    k = min(k, len(scores))
    # argpartition alone does not suffice: it chooses arbitrarily among equal scores at the border.
    candidates = np.flatnonzero(scores >= np.partition(scores, -k)[-k])
    rows = candidates[np.argsort(-scores[candidates], kind="stable")][:k]
    return rows, scores[rows]


def hard_negatives(
    scores: np.ndarray, known: np.ndarray, positives: np.ndarray, depth: int, most: int, below: float
) -> list[tuple[np.ndarray, int]]:
    """Choose negatives for each positive of one query: (rows, the best first; how many were left out as too good).

    scores: [m], above 0 where a document has to do with the query; known: rows that are no negatives; positives: rows.
    Of the `depth` best others, those below a share of the positive's score are kept, and the best `most` of them taken:
    what scores nearly as high as the positive, or higher, is likely to be relevant and not judged (TopK-PercPos of
    NV-Retriever, Moreira et al. 2024).
    """
    rows, found = top(scores, depth + len(known))
    candidates = ~np.isin(rows, known) & (found > 0)
    rows, found = rows[candidates][:depth], found[candidates][:depth]
    chosen = []
    for positive in positives:
        kept = found < below * scores[positive]
        chosen.append((rows[kept][:most], int((~kept).sum())))
    return chosen
