"""Turns the records of all stages into the content of record.json and metrics.json, and the headline into words."""

from dataclasses import dataclass
from typing import Any

from finetrail import layout
from finetrail.upgrades import SCHEMA_VERSION, VERSION

FINAL_SPLIT = "test"

Row = dict[str, Any]
Series = list[tuple[int, float]]


@dataclass(frozen=True)
class Results:
    """The records of all stages, as read: no field is specific to a task, and what a task lacks is empty."""

    checks: dict[str, Any]
    concerns: list[str]  # from checks and counts, one sentence each
    corpus: dict[str, Any]
    model: dict[str, Any]
    counts: dict[str, Any]
    training: dict[str, Any]
    history: dict[str, Series]  # "train/loss" -> (step, value) in order
    evaluation: dict[str, Any]
    tables: dict[str, list[Row]]  # file name without its ending -> rows
    errors: list[Row]
    export: dict[str, Any]


@dataclass(frozen=True)
class Headline:
    """One score with its bootstrap interval; None where evaluation gave no interval."""

    metric: str
    value: float
    low: float | None
    high: float | None
    lower_is_better: bool


def summarize(task: str, recipe: str, results: Results) -> dict[str, Any]:
    """Assemble record.json: what ran, on what, and how well; floats with six significant digits."""
    evaluation = results.evaluation
    metric = evaluation["headline"]
    examples = {split: counts["examples"] for split, counts in results.counts["splits"].items()}
    summary = {
        "task": task,
        "recipe": recipe,
        "seed": results.training["seed"],
        "model": _identity(results.model) | _student(results.model),
        "corpus": _identity(results.corpus) | _beside(results.corpus) | {"examples": examples},
        "concerns": results.concerns,
        "tokenize": results.counts["settings"],
        "train": {key: value for key, value in results.training.items() if key not in ("seed", "machine", "notes")},
        **machines(results.training, evaluation),
        "headline": metric,
        "lower_is_better": evaluation["lower_is_better"],
        "settled": evaluation.get("settled"),
        **{split: evaluation[split] for split in layout.SPLITS if split in evaluation},
        "parts": {
            name: {split: scores[split] for split in layout.SPLITS if split in scores}
            for name, scores in evaluation.get("parts", {}).items()
        },
        # metrics/evaluation has all scores of the baselines; here they would bury the run's own.
        "baselines": {split: _baseline_scores(evaluation, split, metric) for split in evaluation.get("baselines", {})},
        "export": results.export,
        SCHEMA_VERSION: VERSION,
    }
    return _without_empty(_rounded(summary))


def metrics(evaluation: dict[str, Any]) -> dict[str, Any]:
    """Assemble metrics.json: the few scores by which runs are compared, the most important first.

    Each is a column of `dvc exp show` and a row of `dvc metrics diff`; record.json has all scores.
    """
    name = evaluation["headline"]
    best = next(iter(baselines(evaluation).values()), None)
    shown = {
        FINAL_SPLIT: {key: evaluation[FINAL_SPLIT].get(key) for key in (name, f"{name}_low", f"{name}_high")}
        | {key: evaluation[FINAL_SPLIT][key] for key in evaluation.get("beside", [])},
        "validation": {name: evaluation.get("validation", {}).get(name)},
        "best_baseline": best,
        "parts": {
            part: {FINAL_SPLIT: {name: scores[FINAL_SPLIT][name]}}
            for part, scores in evaluation.get("parts", {}).items()
        },
    }
    kept = {key: _without_empty(value) if isinstance(value, dict) else value for key, value in shown.items()}
    return _without_empty(_rounded(kept))


def machines(training: dict[str, Any], evaluation: dict[str, Any]) -> dict[str, Any]:
    """Return the machine that computed the model and, if it is another one, that of its evaluation: name -> record."""
    own, evaluated = training["machine"], evaluation["machine"]
    return {"machine": own} if evaluated == own else {"machine": own, "machine_of_evaluation": evaluated}


def headline(evaluation: dict[str, Any], split: str = FINAL_SPLIT) -> Headline:
    """Return the headline metric of a split."""
    metric, scores = evaluation["headline"], evaluation[split]
    low, high = (scores.get(f"{metric}_{end}") for end in ("low", "high"))
    return Headline(metric, scores[metric], low, high, metric in evaluation["lower_is_better"])


def baselines(evaluation: dict[str, Any], split: str = FINAL_SPLIT) -> dict[str, float]:
    """Return the baselines' headline scores on a split, the best first."""
    scores = _baseline_scores(evaluation, split, evaluation["headline"])
    sign = 1 if evaluation["headline"] in evaluation["lower_is_better"] else -1
    return dict(sorted(scores.items(), key=lambda item: (sign * item[1], item[0])))


def verdict(score: Headline, baseline: float) -> str:
    """Compare a score with a baseline: beats (its whole interval is better), ahead, level or behind."""
    sign = -1 if score.lower_is_better else 1
    worst = score.low if sign > 0 else score.high
    if score.value == baseline:
        return "level"
    if sign * score.value < sign * baseline:
        return "behind"
    return "beats" if worst is not None and sign * worst > sign * baseline else "ahead"


def sentence(evaluation: dict[str, Any]) -> str:
    """Return the headline result in one line."""
    score = headline(evaluation)
    text = f"{score.metric} {score.value:.3f} on {FINAL_SPLIT}"
    if score.low is not None and score.high is not None:
        text += f" ({evaluation['confidence'] * 100:.4g}% interval {score.low:.3f} to {score.high:.3f})"
    text += "".join(f", {name} {evaluation[FINAL_SPLIT][name]:.3f}" for name in evaluation.get("beside", []))
    best = next(iter(baselines(evaluation).items()), None)
    return f"{text}; best baseline: {best[0]} {best[1]:.3f}" if best else text


def _identity(provenance: dict[str, Any]) -> dict[str, Any]:
    identity: dict[str, Any] = {key: provenance[key] for key in ("name", "sha256") if key in provenance}
    commit = provenance["resolved"].get("commit")
    return identity | {"commit": commit} if commit else identity


def _beside(provenance: dict[str, Any]) -> dict[str, Any]:
    """Return the identities of a corpus's additional sources, such as rankings."""
    return {name: _identity(origin) for name, origin in provenance.get("beside", {}).items()}


def _student(provenance: dict[str, Any]) -> dict[str, Any]:
    """Return the layers and the teacher of a model that has them."""
    known = {key: provenance[key] for key in ("layers", "teacher") if key in provenance}
    return known | ({"teacher": _identity(known["teacher"])} if "teacher" in known else {})


def _baseline_scores(evaluation: dict[str, Any], split: str, metric: str) -> dict[str, float]:
    of_split = evaluation.get("baselines", {}).get(split, {})
    return {name: scores[metric] for name, scores in of_split.items() if metric in scores}


def _without_empty(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if value not in ({}, None)}


def _rounded(value: Any) -> Any:
    """Keep six significant digits of every float: more is noise in a diff, fewer would lose a learning rate."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value
