"""Turns numbers into SVG figures: the same numbers give the same bytes, and the page's CSS sets the colours.

They are the files of metrics/plots. A page shows them if its script does not run, and prints them.
"""

import io
import math
import re
import unicodedata
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from finetrail.reporting.summary import Headline, Row, Series

# CSS variables that the page defines for light and dark; the value is the color in a viewer without the page.
INK, MUTED, GRID, ON_COLOR = "#1c2430", "#5f6b7a", "#dde2e8", "#fffffe"
BLUE, ORANGE, GREEN, GREY = "#2463c4", "#c4540a", "#0b8068", "#9aa5b1"
CSS_NAMES = {
    **{INK: "ink", MUTED: "muted", GRID: "grid", ON_COLOR: "on-color"},
    **{BLUE: "blue", ORANGE: "orange", GREEN: "green", GREY: "grey"},
}
STYLES = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (GREY, "D"))
SPLIT_STYLES = dict(zip(("train", "validation", "test"), STYLES, strict=False))

MAX_LABELS = 40  # more would be illegible; the tables have all
MAX_NAME = 28  # columns of a name before it is cut
# Characters that a label may hold and XML 1.0 may not.
NOT_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
COLUMN_INCHES = 0.083  # of one character at 9 pt, on the wide side: the reader's font is not known here

STYLE: dict[str, Any] = {
    # Text stays text: it can be searched, is read aloud, takes the page's font, and has glyphs for any script.
    "svg.fonttype": "none",
    # matplotlib's own font: where text is measured, every machine measures the same.
    "font.family": "DejaVu Sans",
    "font.size": 9,
    # A label may hold a dollar sign, which would start a formula.
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.formatter.useoffset": False,
    "figure.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}


def styles(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return the colour and the marker of each line: a split's own, or those of its place among others."""
    return [SPLIT_STYLES.get(name, STYLES[place % len(STYLES)]) for place, name in enumerate(names)]


def curve(name: str, by_split: Mapping[str, Series], best_step: int | None) -> str:
    """Draw one quantity by update, a line for each split or run; best_step marks the kept checkpoint."""
    with _style(f"curve {name}"):
        figure = Figure(figsize=(3.35, 2.3))
        axes = _axes(figure, left=0.58, right=0.12, top=0.36, bottom=0.42)
        for (color, marker), (split, points) in zip(styles(by_split), by_split.items(), strict=True):
            # Many points make a line, few must be seen one by one.
            shape: dict[str, Any] = {"marker": marker, "markersize": 4.5} if len(points) <= 15 else {}
            axes.plot(*zip(*points, strict=True), color=color, label=split, **shape)
        if best_step is not None:
            axes.axvline(best_step, color=MUTED, linewidth=1, linestyle=(0, (2, 2)), label="best", zorder=1)
        axes.set(title=name, xlabel="update")
        axes.grid(axis="x", visible=False)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(_tick))
        _legend(axes, figure)
        return _to_svg(figure)


def headline(score: Headline, baselines: Mapping[str, float]) -> str:
    """Draw the headline score with its interval above the baselines' scores."""
    names = ["this model", *baselines]
    values = [score.value, *baselines.values()]
    with _style("headline"):
        figure = Figure(figsize=(6.6, 0.62 + 0.38 * len(names)))
        axes = _axes(figure, left=_left(names), right=0.75, top=0.1, bottom=0.45)
        colors = [BLUE, *[GREY] * len(baselines)]
        axes.barh(range(len(names)), values, height=0.56, color=colors)
        if score.low is not None and score.high is not None:
            axes.plot([score.low, score.high], [0, 0], color=INK, linewidth=1.6, marker="|", markersize=9)
        for row, value in enumerate(values):
            end = max(value, score.high or 0) if row == 0 else value
            axes.annotate(f"{value:.3f}", (end, row), (7, 0), textcoords="offset points", va="center")
        axes.set(xlabel=score.metric, xlim=limits([*values, score.low or 0, score.high or 0]))
        _rows(axes, names)
        return _to_svg(figure)


def label_bars(rows: Sequence[Row], metric: str) -> str:
    """Draw one bar a label, the most frequent label first, with its support; the axis ends at 1, or at the largest."""
    ranked = sorted(rows, key=lambda row: (-row["support"], row["label"]))[:MAX_LABELS]
    names = [row["label"] for row in ranked]
    with _style(f"labels {metric}"):
        figure = Figure(figsize=(8.6, 0.7 + 0.27 * len(names)))
        axes = _axes(figure, left=_left(names), right=1.35, top=0.28, bottom=0.42)
        values = [row[metric] if isinstance(row[metric], int | float) else 0 for row in ranked]
        axes.barh(range(len(names)), values, height=0.62, color=BLUE)
        beside = axes.get_yaxis_transform()
        for row, value in enumerate(values):
            shown = f"{value:.3f}" if value < 10 else f"{value:.0f}"
            axes.text(1.07, row, shown, transform=beside, ha="right", va="center")
            support = f"{ranked[row]['support']:,}"
            axes.text(1.19, row, support, transform=beside, ha="right", va="center", color=MUTED)
        for right, title in ((1.07, metric), (1.19, "support")):
            axes.annotate(title, (right, 1), (0, 5), xycoords="axes fraction", textcoords="offset points", ha="right")
        axes.set(xlabel=metric, xlim=(0, max(1, *values)))
        _rows(axes, names)
        return _to_svg(figure)


def reliability(rows: Sequence[Row]) -> str:
    """Draw the accuracy of the predictions of each confidence, beside the line of perfect calibration.

    After Guo et al. 2017; rows are bins with their mean confidence, and empty bins are left out.
    """
    bins = [row for row in rows if row["count"]]
    with _style("reliability"):
        figure = Figure(figsize=(5.2, 3.6))
        axes = _axes(figure, left=0.62, right=0.2, top=0.3, bottom=0.5)
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (2, 2)), label="calibrated", zorder=1)
        confidences, accuracies = ([row[name] for row in bins] for name in ("confidence", "accuracy"))
        axes.bar(confidences, accuracies, width=0.045, color=BLUE, label="accuracy")
        for row in bins:
            place = (row["confidence"], row["accuracy"])
            axes.annotate(f"{row['count']:,}", place, (0, 3), textcoords="offset points", ha="center", fontsize=7)
        axes.set(xlim=(0, 1.03), ylim=(0, 1.08), xlabel="confidence", ylabel="share that is right")
        axes.grid(axis="x", visible=False)
        _legend(axes, figure)
        return _to_svg(figure)


def confusion(rows: Sequence[Row]) -> str:
    """Draw the predictions of each reference label, as shares of its row: right in blue, wrong in orange.

    Shares and two colours keep the errors readable where one label (O, say) holds nearly all counts.
    """
    names, counts, _ = confusion_counts(rows)
    cell = 0.44 if len(names) <= 20 else 0.34
    side = cell * len(names)
    totals = {name: sum(counts.get((name, other), 0) for other in names) for name in names}
    titles = [f"{_cut(name)} ({totals[name]:,})" for name in names]
    left = max(_left(titles, cut=False), 1.6)
    above, right = 0.65 * _left(names), 0.77 * _left(names)  # sine and cosine of the 40 degrees of the column names
    with _style("confusion"):
        figure = Figure(figsize=(left + side + right, above + side + 0.35))
        axes = _axes(figure, left=left, right=right, top=above + 0.25, bottom=0.1)
        for (reference, prediction), count in counts.items():
            place = names.index(prediction), names.index(reference)
            _cell(axes, place, count / totals[reference], 8 if cell > 0.4 else 7)
        axes.set(xlim=(-0.5, len(names) - 0.5))
        _rows(axes, titles, cut=False)
        axes.xaxis.tick_top()
        slanted: dict[str, Any] = {"rotation": 40, "rotation_mode": "anchor", "ha": "left", "color": INK}
        axes.set_xticks(range(len(names)), [_cut(name) for name in names], **slanted)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.grid(visible=False)
        above_rows: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "color": MUTED}
        axes.annotate("prediction →", (0, 1), (-6, 22), ha="right", **above_rows)
        axes.annotate("↓ reference (count)", (0, 1), (-6, 8), ha="right", **above_rows)
        return _to_svg(figure)


class Counted(NamedTuple):
    """A confusion matrix: the names of its rows and columns, counts by pair, and the name that each label goes by."""

    names: list[str]
    counts: dict[tuple[str, str], int]
    shown: dict[str, str]


def confusion_counts(rows: Sequence[Row]) -> Counted:
    """Sum counts by pair; the most frequent references first, all beyond MAX_LABELS as one."""
    support: dict[str, int] = {}
    for row in rows:
        support[row["reference"]] = support.get(row["reference"], 0) + row["count"]
        support.setdefault(row["prediction"], 0)
    names = sorted(support, key=lambda name: (-support[name], name))
    kept, rest = names[:MAX_LABELS], names[MAX_LABELS:]
    shown = {name: name for name in kept} | dict.fromkeys(rest, f"{len(rest)} others")
    counts: dict[tuple[str, str], int] = {}
    for row in rows:
        pair = shown[row["reference"]], shown[row["prediction"]]
        counts[pair] = counts.get(pair, 0) + row["count"]
    return Counted(list(dict.fromkeys(shown.values())), {pair: n for pair, n in counts.items() if n}, shown)


def _cell(axes: Axes, place: tuple[int, int], share: float, size: float) -> None:
    """Draw one cell of the confusion matrix; opacity is the share, so that it works on light and dark pages."""
    column, row = place
    color = BLUE if column == row else ORANGE
    axes.add_patch(Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, facecolor=color, linewidth=0, alpha=share))
    if share >= 0.01:
        text_color = ON_COLOR if share > 0.75 else INK
        axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center_baseline", color=text_color, fontsize=size)


def _style(name: str) -> AbstractContextManager[None]:
    """Set the page's style; the name makes a figure's ids stable, and unlike those of the page's other figures."""
    style: Any = STYLE | {"svg.hashsalt": name}
    return matplotlib.rc_context(style)


def _to_svg(figure: Figure) -> str:
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # The reader's browser draws the text; matplotlib's own font need not have its glyphs.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font", category=UserWarning)
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    # matplotlib numbers its groups anew in each figure: nothing refers to these ids, and a page must not repeat one.
    svg = re.sub(r'<g id="[^"]+"', "<g", svg)
    for color, name in CSS_NAMES.items():
        svg = svg.replace(color, f"var(--{name}, {color})")
    return NOT_XML.sub("\N{REPLACEMENT CHARACTER}", svg).strip()


def _axes(figure: Figure, left: float, right: float, top: float, bottom: float) -> Axes:
    """Add axes with margins in inches: fixed, so that no measured text moves them."""
    width, height = figure.get_size_inches()
    return figure.add_axes(
        (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    )


def _rows(axes: Axes, names: Sequence[str], cut: bool = True) -> None:
    """Name the rows of a horizontal chart, the first on top."""
    axes.set_yticks(range(len(names)), [_cut(name) if cut else name for name in names], color=INK)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)


def _legend(axes: Axes, figure: Figure) -> None:
    """Put the legend in one line at the upper right, above the plot."""
    spacing: dict[str, Any] = {"columnspacing": 1.0, "handlelength": 1.3, "handletextpad": 0.4, "borderaxespad": 0.0}
    width, height = figure.get_size_inches()
    entries = len(axes.get_legend_handles_labels()[1])
    anchor = (axes.get_position().x1, 1 - 0.08 / height)
    figure.legend(loc="upper right", bbox_to_anchor=anchor, ncols=entries, fontsize=8, labelcolor=MUTED, **spacing)


def _left(names: Sequence[str], cut: bool = True) -> float:
    """Return the inches that the longest of the names needs beside an axis."""
    return 0.22 + COLUMN_INCHES * max(_columns(_cut(name) if cut else name) for name in names)


def _columns(name: str) -> int:
    """Count the character cells of a name: East Asian wide characters take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in name)


def _cut(name: str) -> str:
    """Shorten a name to MAX_NAME columns."""
    if _columns(name) <= MAX_NAME:
        return name
    while _columns(name) > MAX_NAME - 1:
        name = name[:-1]
    return f"{name}…"


def _tick(value: float, _: int | None = None) -> str:
    """Format a tick: learning rates in powers of ten, all else as it is."""
    return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.3g}"


def limits(values: Sequence[float]) -> tuple[float, float]:
    """Return the limits of a bar's axis: 0 and 1 for scores, else the next 1, 2 or 5 of a decimal place.

    So runs with similar scores have the same axis, and their figures can be compared side by side.
    """
    low, high = min(values), max(values)
    return -_beyond(-low) if low < 0 else 0.0, 1.0 if high <= 1 else _beyond(high)


def _beyond(value: float) -> float:
    """Return the smallest of ..., 0.1, 0.2, 0.5, 1, 2, 5, ... that leaves a bar of this value some room."""
    place = 10.0 ** math.floor(math.log10(1.18 * value))
    return next(step * place for step in (1, 2, 5, 10) if step * place >= 1.18 * value)
