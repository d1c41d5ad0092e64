"""Turns the trials of a search into its result: a table, importances, and a comparison with the default settings."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.study import StudyDirection

from finetrail import compare
from finetrail.comparison import pairs, runs, words
from finetrail.comparison.pairs import Compared
from finetrail.errors import UserError
from finetrail.searching.space import Scalar
from finetrail.searching.trials import FINISHED, UNFINISHED, Begun, Trial

RELIABLE = 10  # finished trials for each field; with fewer, importances change from search to search


@dataclass(frozen=True)
class Ending:
    """The results of a search so far."""

    name: str
    wanted: int  # trials
    begun: Begun
    trials: list[Trial]
    importance: dict[str, float]  # field -> share of the variance of the metric; empty if unknown
    lower_is_better: bool  # of the metric
    compared: Compared | None  # the best against the default settings, on test
    not_compared: str  # why there is no comparison

    @property
    def finished(self) -> list[Trial]:
        """The trials that have an experiment."""
        return [trial for trial in self.trials if trial.state == FINISHED]

    @property
    def best(self) -> Trial | None:
        """The best on validation; of equals the first."""
        return best(self.trials, self.lower_is_better)


def ending(root: Path, name: str, wanted: int, begun: Begun, trials: list[Trial], study: optuna.Study) -> Ending:
    """Collect the results of a search."""
    lower = study.direction == StudyDirection.MINIMIZE
    compared, reason = _compared(root, trials, lower)
    return Ending(name, wanted, begun, trials, importance(study, list(begun.own)), lower, compared, reason)


def best(trials: list[Trial], lower_is_better: bool) -> Trial | None:
    """Return the finished trial with the best value; of equals the first."""
    finished = [trial for trial in trials if trial.state == FINISHED]
    sign = -1 if lower_is_better else 1
    return max(finished, key=lambda trial: sign * (trial.value or 0.0), default=None)


def importance(study: optuna.Study, fields: list[str]) -> dict[str, float]:
    """Return the share of each field in the variance of the metric, by fANOVA (Hutter et al. 2014); {} if unknown."""
    try:
        found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0), params=fields)
    except (ValueError, RuntimeError):  # no trial with all fields, or no variance
        return {}
    return dict(found) if any(found.values()) else {}


def as_text(found: Ending) -> str:
    """Return the report as text."""
    return "\n\n".join([table(found), *_counts(found), *_importance(found), *_verdict(found)])


def as_json(found: Ending) -> dict[str, Any]:
    """Return the same as JSON values."""
    compared = found.compared
    chosen = found.best
    return {
        "search": found.name,
        "metric": found.begun.metric,
        "default": found.begun.own,
        "trials": [asdict(trial) for trial in found.trials],
        "best": chosen.number if chosen else None,
        "importance": found.importance,
        "importance_is_reliable": is_reliable(found),
        "comparison": _record(compared) if compared else None,
        "is_noise": _is_noise(compared) if compared else None,
        "is_better": _is_better(compared) if compared else None,
    }


def _record(compared: Compared) -> dict[str, Any]:
    p_values, of_slices = words.corrected([compared]), words.corrected_slices([compared])
    return compare.record(compared, p_values[0], of_slices[0], compare.DEFAULTS)


def table(found: Ending) -> str:
    """Return the trials as a Markdown table."""
    fields, chosen = list(found.begun.own), found.best
    rows = [
        f"| trial | {found.begun.metric} | epochs | {' | '.join(fields)} | experiment |",
        f"| --- | --- | --- |{' --- |' * len(fields)} --- |",
    ]
    for trial in found.trials:
        settings = found.begun.own if trial.is_default else trial.settings
        cells = [f"{trial.number}{' (default)' if trial.is_default else ''}", _value(trial, trial == chosen)]
        cells += [str(trial.epochs), *(shown(settings.get(field)) for field in fields)]
        rows.append(f"| {' | '.join(cells)} | {trial.revision or trial.state} |")
    return "\n".join(rows)


def is_reliable(found: Ending) -> bool:
    """Return True if there are enough trials for importances."""
    return len(found.finished) >= RELIABLE * len(found.begun.own)


def shown(value: Scalar) -> str:
    """Return a value of a setting for people."""
    return f"{value:.3g}" if isinstance(value, float) else "null" if value is None else str(value)


def _value(trial: Trial, is_best: bool) -> str:
    value = "–" if trial.value is None else f"{trial.value:.4f}"
    return f"**{value}**" if is_best else value


def _counts(found: Ending) -> list[str]:
    states = [trial.state for trial in found.trials]
    counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    lines = [f"{found.name}: {len(states)} of {found.wanted} trials: {counted}."]
    if len(states) < found.wanted or UNFINISHED in states:
        lines[0] += " The same command resumes it."
    lines += [f"trial {trial.number} failed: {trial.reason}" for trial in found.trials if trial.reason]
    return ["\n".join(lines)]


def _importance(found: Ending) -> list[str]:
    if not found.importance:
        return []
    shares = ", ".join(f"{field} {share:.2f}" for field, share in found.importance.items())
    text = f"Share of the variance of {found.begun.metric} (fANOVA, {len(found.finished)} finished trials): {shares}."
    if not is_reliable(found):
        text += f" Unreliable: expected {RELIABLE} finished trials for each of {len(found.begun.own)} fields."
    return [text]


def _verdict(found: Ending) -> list[str]:
    chosen, compared = found.best, found.compared
    if chosen is None:
        return []
    if chosen.is_default:
        return [f"No trial is better on validation than the default settings, {found.begun.metric} {chosen.value:.4f}."]
    lines = [
        f"{chosen.revision} is the best of {len(found.finished)} on validation, and was chosen by that: its "
        f"{found.begun.metric} there, {chosen.value:.4f}, is likely too good. No trial was chosen by test: report that."
    ]
    if compared is None:
        return [*lines, f"It was not compared with the default settings: {found.not_compared}"]
    p_values = words.corrected([compared])[0]
    lines += [words.table(compared, p_values), words.verdict(compared, p_values, compare.DEFAULTS)]
    if not _is_better(compared):
        how = "within noise of" if _is_noise(compared) else "worse than"
        lines.append(
            f"warning: on test, {chosen.revision} is {how} the default settings; keep those, or compare both over "
            "several seeds."
        )
    return lines


def _is_noise(compared: Compared) -> bool:
    p_values = words.corrected([compared])[0]
    return words.is_noise(p_values[compared.headline], compare.DEFAULTS)


def _is_better(compared: Compared) -> bool:
    return not _is_noise(compared) and words.is_better(compared, compared.headline, compared.scores[compared.headline])


def _compared(root: Path, trials: list[Trial], lower_is_better: bool) -> tuple[Compared | None, str]:
    """Compare the best trial with the default settings on test; or say why that cannot be."""
    chosen, default = best(trials, lower_is_better), next((trial for trial in trials if trial.is_default), None)
    if chosen is None or chosen.is_default:
        return None, ""
    if default is None or default.revision is None:
        return None, "their trial is not finished"
    try:
        first, second = (runs.system(root, str(trial.revision)) for trial in (default, chosen))
        return pairs.compare(root, first, second, compare.DEFAULTS), ""
    except UserError as error:
        return None, str(error)
