"""Turns the record.json of Git and that of a run into one sentence: how they differ, and why."""

from typing import Any

from finetrail.reporting.summary import FINAL_SPLIT
from finetrail.upgrades import SCHEMA_VERSION, record

Record = dict[str, Any]

# Sections of record.json with settings; the others are scores.
SETTINGS = ("seed", "model", "corpus", "tokenize", "train")
MACHINES = ("machine", "machine_of_evaluation")
# Keys of the section train that are results.
RESULTS = {"best_value", "best_update", "updates", "epochs_done", "stopped_early", "features_of_parts"}
MOST_CAUSES = 4  # that the sentence lists
WORDS = {"instructions": "CPU instructions", "cpu": "CPU", "device_name": "GPU", "cuda": "CUDA"}


def difference(committed: Record, now: Record) -> str | None:
    """Return how a run's scores differ from the committed scores of the same recipe, and the possible causes.

    None if the recipes differ, or if Git's record has an earlier form.
    """
    try:
        return _difference(committed, now)
    except (KeyError, TypeError, ValueError):
        return None


def _difference(committed: Record, now: Record) -> str | None:
    if any(committed.get(key) != now[key] for key in ("task", "recipe", "headline")):
        return None
    committed, now = (
        {key: value for key, value in record(one).items() if key != SCHEMA_VERSION} for one in (committed, now)
    )
    if committed == now:
        return "the same scores, in every digit"
    metric = now["headline"]
    before, value = committed[FINAL_SPLIT][metric], now[FINAL_SPLIT][metric]
    if before == value:
        text = f"{metric} is the same ({value:.3f}), other values differ"
    else:
        low, high = (committed[FINAL_SPLIT].get(f"{metric}_{end}") for end in ("low", "high"))
        text = f"{metric} differs from Git's {before:.3f} by {value - before:+.3f}"
        if low is not None and high is not None:
            text += f", {'inside' if low <= value <= high else 'outside'} its interval"
    causes = [*_changes(committed, now, SETTINGS), *_changes(committed, now, MACHINES)]
    if len(causes) > MOST_CAUSES:
        causes[MOST_CAUSES - 1 :] = [
            f"and {len(causes) - MOST_CAUSES + 1} more (dvc metrics diff --targets metrics/record.json)"
        ]
    return f"{text}: {', '.join(causes) or 'nothing that is recorded differs: code, or another library'}"


def _changes(committed: Record, now: Record, parts: tuple[str, ...]) -> list[str]:
    """Return "other KEY (A there, B here)" for each value of these sections that differs."""
    there, here = _flat(committed, parts), _flat(now, parts)
    keys = [key for key in here | there if there.get(key) != here.get(key) and key.rpartition(".")[2] not in RESULTS]
    return [f"other {_words(key)} ({_shown(there, key)} there, {_shown(here, key)} here)" for key in keys]


def _flat(metrics: Record, parts: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in parts:
        value = metrics.get(part)
        found |= {f"{part}.{key}": item for key, item in value.items()} if isinstance(value, dict) else {part: value}
    return {key: value for key, value in found.items() if value is not None}


def _shown(values: dict[str, Any], key: str) -> str:
    return str(values[key]) if key in values else "not recorded"


def _words(key: str) -> str:
    part, _, name = key.rpartition(".")
    where = " of the evaluation" if part == "machine_of_evaluation" else ""
    return f"{WORDS.get(name, name.replace('_', ' '))}{where}" if part in MACHINES else key
