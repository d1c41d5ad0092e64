"""Turns comparisons into one self-contained HTML page: no network, no script, no path."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from finetrail import reporting
from finetrail.comparison import words
from finetrail.comparison.pairs import Compared
from finetrail.comparison.words import Corrected
from finetrail.evaluation.significance import Difference, Settings

MOST_CHANGES = 500  # of each comparison; --json has all of them


def render(
    comparisons: list[Compared], p_values: list[Corrected], of_slices: list[list[float]], settings: Settings
) -> str:
    """Render the page."""
    environment = Environment(
        loader=FileSystemLoader([Path(__file__).parent, *reporting.__path__]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        comparisons=list(zip(comparisons, p_values, of_slices, strict=True)),
        settings=settings,
        words=words,
        span=span,
        most_changes=MOST_CHANGES,
    )


def span(one: Difference, width: float) -> dict[str, float]:
    """Return where the interval, the difference and 0 are on an axis of this width, in its units."""
    reach = 1.1 * max(abs(one.low), abs(one.high), abs(one.difference)) or 1.0
    places = {"low": one.low, "high": one.high, "difference": one.difference, "zero": 0.0}
    return {name: round(width * (value + reach) / (2 * reach), 1) for name, value in places.items()}
