"""Whether `finetrail.compare` is calibrated: simulations on the real predictions of two finished runs.

python -m benchmarks.significance FIRST SECOND    (revisions, as finetrail.compare takes them)

Test splits are drawn from the examples with replacement, and a coin gives the two predictions of each to two systems. A
fair coin makes no difference: then 5 in 100 tests should call it significant. A coin that favours the second plants
one: then as many tests should find it as the normal approximation computes.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse, stats

from benchmarks import keep
from finetrail import tasks
from finetrail.comparison import pairs, runs
from finetrail.evaluation.bootstrap import Statistic
from finetrail.evaluation.significance import Difference, Settings, differences

SETTINGS = Settings(samples=500, confidence=0.95, seed=0)
LEVEL = 1 - SETTINGS.confidence
FAIR_TRIALS, TRIALS = 2000, 400
# Probability that the second system has the better of two predictions that score differently.
FAVOURS = (0.6, 0.7, 0.8)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("first")
    parser.add_argument("second")
    options = parser.parse_args()
    first, second = (
        pairs.evaluated(Path.cwd(), runs.system(Path.cwd(), name).runs[0]) for name in (options.first, options.second)
    )
    units, other = first.units, pairs.aligned(first, second)
    scoring = tasks.module(first.run.record["task"], "scoring")
    statistic = scoring.statistics(pairs.joined(first, units, other), first.target, first.settings)
    outcomes = [
        np.array([row["score"] for row in scoring.outcomes(table, first.target, first.settings)])
        for table in (units, other)
    ]
    gaps, metric = outcomes[1] - outcomes[0], first.run.record["headline"]
    generator = np.random.default_rng(0)
    none = [trial(statistic, gaps, 0.5, generator)[metric] for _ in range(FAIR_TRIALS)]
    found: dict[str, Any] = {
        "recipe": f"{first.run.record['task']}/{first.run.record['recipe']}",
        "metric": metric,
        "examples": len(gaps),
        "that_score_differently": int((gaps != 0).sum()),
        "no_difference": {
            "trials": FAIR_TRIALS,
            "significant": float(np.mean([one.p <= LEVEL for one in none])),
            "intervals_without_0": float(np.mean([one.low > 0 or one.high < 0 for one in none])),
        },
    }
    for favour in FAVOURS:
        found[f"planted_by_{favour:.0%}"] = planted(
            [trial(statistic, gaps, favour, generator)[metric] for _ in range(TRIALS)]
        )
    keep("significance", found, found["recipe"])


def trial(
    statistic: Statistic, gaps: np.ndarray, favour: float, generator: np.random.Generator
) -> dict[str, Difference]:
    """Compare two systems on a drawn test split; gaps [n]: by how much the second run's prediction is better."""
    n = len(gaps)
    drawn = generator.integers(n, size=n)
    to_second = generator.random(n) < np.where(gaps[drawn] == 0, 0.5, np.where(gaps[drawn] > 0, favour, 1 - favour))
    first, second = np.where(to_second, drawn, drawn + n), np.where(to_second, drawn + n, drawn)
    places = sparse.csr_array(
        (np.ones(2 * n), (np.arange(2 * n), np.concatenate([first, second]))), shape=(2 * n, 2 * n)
    )
    return differences([lambda weights: statistic(weights @ places)], n, SETTINGS)


def planted(trials: list[Difference]) -> dict[str, float]:
    """Return how often a planted difference was found, and how often it should be."""
    gaps = np.array([one.difference for one in trials])
    beyond = abs(gaps.mean()) / gaps.std()
    return {
        "difference": round(float(gaps.mean()), 4),
        "detectable": round(float(np.mean([one.detectable for one in trials])), 4),
        "significant": float(np.mean([one.p <= LEVEL for one in trials])),
        "computed_power": round(float(stats.norm.sf(stats.norm.ppf(1 - LEVEL / 2) - beyond)), 3),
    }


if __name__ == "__main__":
    main()
