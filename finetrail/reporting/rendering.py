"""Provides the templates and the script of the pages, with a policy that forbids any other script."""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

HERE = Path(__file__).parent
# uPlot 1.6.32 as npm has it, https://registry.npmjs.org/uplot/-/uplot-1.6.32.tgz; tests hold the files against hashes.
# It zooms and reads values out in 50 KB, without dependencies, eval() or markup of its own from strings; libraries of
# all kinds of charts (Plotly, ECharts, Vega) have 20 times that, and Vega needs eval(), which the policy forbids.
# All other charts are tables with bars, which need no library and can be read aloud.
UPLOT = HERE / "uplot"


def environment(folder: Path) -> Environment:
    """Return the environment of a folder's templates, with the templates that all pages share."""
    made = Environment(
        loader=FileSystemLoader([folder, HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(number=number, score=score, words=words, flat=flat, percent=percent, texts=texts)
    code = script()
    made.globals.update(script=Markup(code), policy=policy(code), chart_style=Markup(_read(UPLOT / "uPlot.min.css")))
    return made


def script() -> str:
    """Return the script of all pages: the chart library with its licence, and the code that uses it."""
    return f"/*\n{_read(UPLOT / 'LICENSE')}*/\n{_read(UPLOT / 'uPlot.iife.min.js')}{_read(HERE / 'page.js')}"


def policy(code: str) -> str:
    """Return the Content Security Policy: no network, no other page, and only this very script."""
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    nothing = "default-src 'none'; base-uri 'none'; form-action 'none'"
    return f"{nothing}; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def number(value: Any) -> str:
    """Format a setting or a count for people."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def score(value: Any) -> str:
    """Format a score with three decimals; other values as number() does."""
    return f"{value:.3f}" if isinstance(value, float) else number(value)


def percent(share: float) -> str:
    """Format a share of the whole: "40%", "0.12%"."""
    return f"{100 * share:#.2g}%" if share < 0.1 else f"{100 * share:.0f}%"


def words(name: str) -> str:
    """Turn a key into words."""
    return name.replace("_", " ")


def texts(rows: Iterable[Mapping[str, Any]]) -> set[str]:
    """Return the names of the columns that hold text."""
    return {name for row in rows for name, value in row.items() if isinstance(value, str)}


def flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a nested record to dotted keys; a list becomes one line, and an empty one None."""
    found: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            value = {str(place): item for place, item in enumerate(value, start=1)}
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = ", ".join(map(str, value)) or None if isinstance(value, list) else value
    return found


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
