"""Turns comparisons into one self-contained HTML page: no network, no path."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from finetrail.comparison import words
from finetrail.comparison.pairs import Compared
from finetrail.comparison.runs import System
from finetrail.comparison.words import Corrected
from finetrail.evaluation.significance import Difference, Settings
from finetrail.reporting import rendering, views
from finetrail.reporting.committed import MACHINES, RESULTS, SETTINGS
from finetrail.reporting.summary import FINAL_SPLIT, Series

MOST_CHANGES = 500  # of each comparison; --json has all of them

# Of each system, by its name: SPLIT/METRIC -> (update, value) in order.
Curves = Mapping[str, Mapping[str, Series]]


class Scored(NamedTuple):
    """The headline of a system; one run has the interval that its own record.json has."""

    name: str
    score: float
    low: float | None
    high: float | None


def render(
    comparisons: list[Compared],
    p_values: list[Corrected],
    of_slices: list[list[float]],
    settings: Settings,
    systems: list[System],
    curves: Curves,
) -> str:
    """Render the page. systems: the first one, and then that of each comparison; curves: of those that have them."""
    runs = [scored(comparisons, place, system) for place, system in enumerate(systems)]
    environment = rendering.environment(Path(__file__).parent)
    rendered = environment.get_template("page.html.j2").render(
        comparisons=list(zip(comparisons, p_values, of_slices, strict=True)),
        settings=settings,
        words=words,
        span=span,
        most_changes=MOST_CHANGES,
        runs=runs,
        bars=views.axis([value for one in runs for value in one[1:]]),
        charts=charts(curves),
        settings_that_differ=differing(systems),
        sizes=sizes(systems),
    )
    return rendered.lstrip()


def scored(comparisons: list[Compared], place: int, system: System) -> Scored:
    """Return the headline of the system at this place: 0 is what the others are compared with."""
    one = comparisons[max(0, place - 1)]
    score, record = one.scores[one.headline], system.runs[0].record[FINAL_SPLIT]
    ends = (record.get(f"{one.headline}_{end}") if len(system.runs) == 1 else None for end in ("low", "high"))
    return Scored(system.name, score.second if place else score.first, *ends)


def charts(curves: Curves) -> list[views.Chart]:
    """Draw each quantity of training once, with a line for each system; what has a single point is left out."""
    by_name: dict[str, dict[str, Series]] = {}
    for system, history in curves.items():
        for name, series in history.items():
            by_name.setdefault(name, {})[system] = series
    return [
        views.lines_chart(name, lines) for name, lines in sorted(by_name.items()) if max(map(len, lines.values())) > 1
    ]


def differing(systems: list[System]) -> dict[str, dict[str, str]]:
    """Return the settings that are not the same in all first runs: name -> system -> value."""
    parts = ("task", "recipe", *SETTINGS, *MACHINES)
    recorded = {of.name: rendering.flat({part: of.runs[0].record.get(part) for part in parts}) for of in systems}
    keys = list(dict.fromkeys(key for record in recorded.values() for key in record))
    rows = {key: {name: rendering.number(record.get(key)) for name, record in recorded.items()} for key in keys}
    return {
        key: row for key, row in rows.items() if len(set(row.values())) > 1 and key.rpartition(".")[2] not in RESULTS
    }


def sizes(systems: list[System]) -> dict[str, dict[str, float]]:
    """Return the size of each exported form, in MiB: system -> form -> size."""
    exported = {system.name: system.runs[0].record.get("export", {}) for system in systems}
    return {
        name: {form: values["mib"] for form, values in forms.items() if "mib" in values}
        for name, forms in exported.items()
        if forms
    }


def span(one: Difference, width: float) -> dict[str, float]:
    """Return where the interval, the difference and 0 are on an axis of this width, in its units."""
    reach = 1.1 * max(abs(one.low), abs(one.high), abs(one.difference)) or 1.0
    places = {"low": one.low, "high": one.high, "difference": one.difference, "zero": 0.0}
    return {name: round(width * (value + reach) / (2 * reach), 1) for name, value in places.items()}
