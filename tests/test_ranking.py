"""Negatives are the best of a ranking but for those that are likely to be relevant; BM25 pickles."""

import pickle

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from finetrail.encoding.ranking import Bm25, hard_negatives


def naive(
    scores: list[float], known: set[int], positive: int, depth: int, most: int, below: float
) -> tuple[list[int], int]:
    """One document after the other, as the paper tells it."""
    others = [row for row, score in enumerate(scores) if row not in known and score > 0]
    candidates = sorted(others, key=lambda row: (-scores[row], row))[:depth]
    kept = [row for row in candidates if scores[row] < below * scores[positive]]
    return kept[:most], len(candidates) - len(kept)


@given(
    st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.9, 2.0, 3.5, 4.0]), min_size=2, max_size=12),
    st.data(),
)
def test_negatives_are_those_of_the_paper(scores: list[float], data: st.DataObject) -> None:
    rows = st.integers(0, len(scores) - 1)
    positives = data.draw(st.lists(rows, unique=True, max_size=3), "positives")
    known = set(positives) | set(data.draw(st.lists(rows, max_size=2), "known"))
    depth, most = data.draw(st.integers(1, 13), "depth"), data.draw(st.integers(1, 4), "most")
    below = data.draw(st.sampled_from([0.5, 0.95, 1.0]), "below")

    found = hard_negatives(
        np.array(scores), np.array(sorted(known), dtype=int), np.array(positives, dtype=int), depth, most, below
    )

    assert [(kept.tolist(), left_out) for kept, left_out in found] == [
        naive(scores, known, positive, depth, most, below) for positive in positives
    ]


def test_an_index_sent_to_another_process_scores_the_same() -> None:
    index = Bm25(["the cat sat", "a dog", ""], "words")

    sent = pickle.loads(pickle.dumps(index))

    for query in ("cat dog", "?!"):
        assert sent.scores(query).tolist() == index.scores(query).tolist()
    assert index.scores("cat dog").tolist()[2] == 0 < min(index.scores("cat dog")[:2])
