"""Tells whether two recipes differ by more than chance: their runs over several seeds, from DVC's experiments.

python -m finetrail.compare text_classification/bbc-news text_classification/bbc-news-adapted
"""

import argparse
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scipy import stats

from finetrail import layout, params, stage
from finetrail.errors import UserError
from finetrail.tasks import LOWER_IS_BETTER

CONFIDENCE = 0.95
SPLIT = "test"

# Content of a metrics.json.
Record = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """The headline of two recipes by seed, and their mean difference (second minus first) with its t-interval."""

    metric: str
    seeds: list[int]
    first: list[float]
    second: list[float]
    difference: float
    low: float
    high: float

    @property
    def is_noise(self) -> bool:
        """Tell whether the interval holds 0: seeds alone explain the difference."""
        return self.low <= 0 <= self.high


def compare(first: list[Record], second: list[Record]) -> Comparison:
    """Pair the runs of two recipes by their seed; UserError where fewer than two seeds are common.

    A paired t-interval over seeds (Dror et al. 2018): it covers initial weights and order of batches, and not the
    choice of the test examples, for which each run has its bootstrap interval.
    """
    metric = first[0]["headline"]
    if metric != second[0]["headline"]:
        raise UserError(f"headlines are {metric} and {second[0]['headline']}; expected recipes that are scored alike")
    corpora = [{record["corpus"]["sha256"] for record in records} for records in (first, second)]
    if corpora[0] != corpora[1] or len(corpora[0]) > 1:
        raise UserError("the runs are of different corpora, by their sha256; expected the same for both recipes")
    by_seed = [{record["seed"]: float(record[SPLIT][metric]) for record in records} for records in (first, second)]
    seeds = sorted(by_seed[0].keys() & by_seed[1].keys())
    if len(seeds) < 2:
        raise UserError(
            f"{len(seeds)} seeds in both recipes: expected two or more, such as dvc exp run -S seed=1, then -S seed=2"
        )
    firsts, seconds = ([of_seed[seed] for seed in seeds] for of_seed in by_seed)
    differences = [b - a for a, b in zip(firsts, seconds, strict=True)]
    spread = stdev(differences) / len(seeds) ** 0.5
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(seeds) - 1)) * spread
    middle = mean(differences)
    return Comparison(metric, seeds, firsts, seconds, middle, middle - reach, middle + reach)


def table(names: tuple[str, str], found: Comparison) -> str:
    """Return the scores by seed as a Markdown table."""
    rows = [f"| seed | {names[0]} | {names[1]} | difference |", "| --- | --- | --- | --- |"]
    for seed, a, b in zip(found.seeds, found.first, found.second, strict=True):
        rows.append(f"| {seed} | {a:.4f} | {b:.4f} | {b - a:+.4f} |")
    rows.append(f"| mean | {mean(found.first):.4f} | {mean(found.second):.4f} | {found.difference:+.4f} |")
    return "\n".join(rows)


def verdict(names: tuple[str, str], found: Comparison) -> str:
    """Return in one sentence whether the difference is noise."""
    interval = (
        f"{found.difference:+.4f} {found.metric} [{found.low:+.4f}, {found.high:+.4f}] over {len(found.seeds)} seeds"
    )
    if found.is_noise:
        return f"{names[1]} against {names[0]}: {interval}: noise: the interval holds 0."
    better = (found.difference > 0) != (found.metric in LOWER_IS_BETTER)
    return f"{names[1]} against {names[0]}: {interval}: {'better' if better else 'worse'}, and not by chance alone."


def experiments(root: Path) -> list[Record]:
    """Read metrics.json of every DVC experiment of a repository, and of its last commit."""
    refs = _git(root, "for-each-ref", "--format=%(refname)", "refs/exps").split()
    revisions = [ref for ref in refs if not ref.startswith(("refs/exps/exec", "refs/exps/stash", "refs/exps/celery"))]
    found = []
    for revision in ["HEAD", *revisions]:
        try:
            found.append(json.loads(_git(root, "show", f"{revision}:{layout.METRICS.as_posix()}")))
        except subprocess.CalledProcessError:
            continue  # an experiment that ended before its report
    return found


def runs(records: list[Record], name: str, settings: dict[str, dict[str, Any]]) -> list[Record]:
    """Return the runs of TASK/RECIPE with these settings by section, as far as told; UserError where there is none."""
    task, _, recipe = name.partition("/")
    chosen = [record for record in records if (record["task"], record["recipe"]) == (task, recipe)]
    alike = [record for record in chosen if _has(record, settings)]
    if not alike:
        there = ", ".join(sorted({f"{record['task']}/{record['recipe']}" for record in records})) or "none"
        raise UserError(
            f"{name}: {len(chosen)} experiments, none with the recipe's settings of {' and '.join(settings)}; "
            f"expected runs of it, such as dvc exp run -S seed=1; those there are of {there}"
        )
    return alike


def _has(record: Record, settings: dict[str, dict[str, Any]]) -> bool:
    told = {section: record.get(section, {}) for section in settings}
    return all(told[of].get(key, value) == value for of, values in settings.items() for key, value in values.items())


def _settings(name: str) -> dict[str, dict[str, Any]]:
    task, _, recipe = name.partition("/")
    loaded = params.load_recipe(task, recipe)
    settings = {section: getattr(loaded, section).model_dump(mode="json") for section in ("tokenize", "train")}
    del settings["train"]["precision"]  # runs tell the one that was effective
    return settings


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=root, check=True, capture_output=True, text=True, encoding="utf-8"
    ).stdout


def main() -> None:
    """Print the table and the verdict."""
    parser = argparse.ArgumentParser(prog="python -m finetrail.compare", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("first", metavar="TASK/RECIPE", help="what is to be beaten")
    parser.add_argument("second", metavar="TASK/RECIPE", help="what may be better")
    options = parser.parse_args()
    names = (options.first, options.second)
    records = experiments(Path.cwd())
    found = compare(*(runs(records, name, _settings(name)) for name in names))
    print(table(names, found))
    print(f"\n{verdict(names, found)}")


if __name__ == "__main__":
    stage.run(main)
