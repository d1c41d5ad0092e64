"""Turns rankings and judgements into scores per query; training never imports it."""

import numpy as np
import pyarrow as pa

from finetrail.evaluation import ranking

LOWER_IS_BETTER: tuple[str, ...] = ()

OF_DIMENSIONS = "ranked_"  # and a number: the column with the ranking by that many dimensions


def per_query(predictions: pa.Table) -> dict[str, np.ndarray]:
    """Return each score of each query: float64 [queries] by name; ndcg@10_N is of the first N dimensions."""
    grades = [ranking.graded(judged) for judged in predictions["references"].to_pylist()]
    scores = ranking.per_query(predictions["ranked"].to_pylist(), grades)
    for name in predictions.column_names:
        if name.startswith(OF_DIMENSIONS):
            of_beginning = ranking.per_query(predictions[name].to_pylist(), grades)["ndcg@10"]
            scores[f"ndcg@10_{name.removeprefix(OF_DIMENSIONS)}"] = of_beginning
    return scores
