"""Turns records and tables into the views of the templates: bars, a confusion matrix, charts and their numbers."""

import json
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from markupsafe import Markup, escape

from finetrail.reporting import plots
from finetrail.reporting.summary import Row, Series

FEW_POINTS = 15  # up to which a curve marks each point


class Axis(NamedTuple):
    """The range of the bars of a table."""

    low: float
    high: float

    def at(self, value: float) -> str:
        """Return the position of a value on the axis, in percent."""
        return f"{min(100, max(0, 100 * (value - self.low) / (self.high - self.low))):.2f}%"

    def between(self, first: float, second: float) -> str:
        """Return the distance of two values on the axis, in percent."""
        return f"{100 * abs(first - second) / (self.high - self.low):.2f}%"


def axis(values: Sequence[Any]) -> Axis:
    """Return the axis of these values, which starts at 0 if none is negative; None values are ignored."""
    return Axis(*plots.limits([value for value in values if isinstance(value, int | float)] or [1.0]))


class Cell(NamedTuple):
    """One cell of a confusion matrix."""

    key: str  # as errors have it too
    counted: int
    share: float  # of its row
    is_right: bool
    listed: int  # errors of this cell that the page lists
    title: str


class Matrix(NamedTuple):
    """A confusion matrix as a table: names of the columns, and a (name, count, cells) for each row."""

    columns: list[str]
    rows: list[tuple[str, int, list[Cell | None]]]


def matrix(rows: Sequence[Row], errors: Sequence[Row]) -> tuple[Matrix, list[str | None]]:
    """Return a confusion matrix, and the key of each error's cell; None if it has no cell."""
    counted = plots.confusion_counts(rows)
    places = {label: counted.names.index(name) for label, name in counted.shown.items()}
    keys = [_key(places, error) for error in errors]
    table = []
    for row, reference in enumerate(counted.names):
        total = sum(counted.counts.get((reference, other), 0) for other in counted.names)
        cells: list[Cell | None] = []
        for column, prediction in enumerate(counted.names):
            count, key = counted.counts.get((reference, prediction), 0), f"{row}-{column}"
            title = f"{reference} predicted as {prediction}: {count:,} of {total:,}"
            cell = Cell(key, count, count / total, row == column, keys.count(key), title) if count else None
            cells.append(cell)
        table.append((reference, total, cells))
    return Matrix(counted.names, table), keys


def _key(places: Mapping[str, int], error: Row) -> str | None:
    """Return the key of an error's cell. The matrix counts labels of words without their prefix (B-, I-)."""
    labels = [str(error.get(name, "")) for name in ("reference", "prediction")]
    found = [places.get(label, places.get(label[2:])) for label in labels]
    return None if None in found else f"{found[0]}-{found[1]}"


def highlighted(error: Row) -> list[tuple[str, Markup]]:
    """Return an error's context with its token marked: verbatim, or with the expected and predicted entities.

    spans of an error are [start, end, kind], in characters of the context: left, token and right with blanks between.
    """
    parts = [part for part in (error["left"], error["token"], error["right"]) if part]
    text, start = " ".join(parts), len(error["left"]) + 1 if error["left"] else 0
    token = (start, start + len(error["token"]))
    spans = error.get("spans", {})
    named = [(words, spans[of]) for words, of in (("expected", "references"), ("predicted", "predictions")) if spans]
    return [(name, _marked(text, token, found)) for name, found in named or [("", [])]]


def _marked(text: str, token: tuple[int, int], spans: Sequence[Sequence[Any]]) -> Markup:
    cuts = sorted({0, len(text), *token, *(edge for start, end, _ in spans for edge in (start, end))})
    pieces = []
    for start, end in pairwise(cuts):
        piece = escape(text[start:end])
        if token[0] <= start < token[1]:
            piece = Markup("<mark>{}</mark>").format(piece)
        for first, last, kind in spans:
            if first <= start < last:
                label = Markup("<small>{}</small>").format(kind) if end == last else ""
                piece = Markup('<span class="entity">{}{}</span>').format(piece, label)
        pieces.append(piece)
    return Markup("").join(pieces)


class Chart(NamedTuple):
    """A chart as input of the script, and as an SVG."""

    title: str
    spec: str
    svg: Markup


def curves(history: Mapping[str, Series], best: int | None, first: Sequence[str]) -> tuple[list[Chart], list[str]]:
    """Draw one chart per quantity of the history, with a line per split; a single point becomes a sentence instead.

    first: metrics that come first, in this order; others follow by name, and the learning rate is last.
    """
    by_name: dict[str, dict[str, Series]] = {}
    for name, series in sorted(history.items()):
        split, _, metric = name.rpartition("/")
        by_name.setdefault(metric, {})[split] = series
    order = {name: place for place, name in enumerate(first)} | {"lr": len(first) + 1}
    charts, sentences = [], []
    for name in sorted(by_name, key=lambda name: (order.get(name, len(first)), name)):
        lines = by_name[name]
        if max(map(len, lines.values())) > 1:
            charts.append(lines_chart(name, lines, best))
        else:
            sentences += [
                f"{split} {name}: {y:.4g} at update {x:,}" for split, points in lines.items() for x, y in points
            ]
    return charts, sentences


def lines_chart(name: str, lines: Mapping[str, Series], best: int | None = None) -> Chart:
    """Draw lines by update; best: the update that is marked."""
    return Chart(name, lines_spec(lines, best), Markup(plots.curve(name, lines, best)))


def lines_spec(lines: Mapping[str, Series], best: int | None) -> str:
    """Return lines by update, on one axis of all their updates."""
    steps = sorted({step for points in lines.values() for step, _ in points})
    values = [{step: float(f"{value:.6g}") for step, value in points} for points in lines.values()]
    colors = [plots.CSS_NAMES[color] for color, _ in plots.styles(lines)]
    series = [
        {"label": name, "color": color, "kind": "points" if len(points) <= FEW_POINTS else "line"}
        for (name, points), color in zip(lines.items(), colors, strict=True)
    ]
    data = [steps, *([of_one.get(step) for step in steps] for of_one in values)]
    # uPlot would show a constant 0 on an axis to 100.
    flat = {} if any(value for of_one in values for value in of_one.values()) else {"y": [0, 1]}
    return _json({"label": "update", "series": series, "data": data, "best": best, "synced": True} | flat)


def reliability_spec(rows: Sequence[Row]) -> str:
    """Return the accuracy of each confidence, with the line on which the two are equal."""
    bins = sorted((row for row in rows if row["count"]), key=lambda row: row["confidence"])
    columns = [[row[name] for row in bins] for name in ("confidence", "accuracy", "count")]
    series = [
        {"label": "calibrated", "color": "muted", "kind": "guide"},
        {"label": "accuracy", "color": "blue", "kind": "points"},
        {"label": "predictions", "color": "muted", "kind": "legend"},
    ]
    # The diagonal reaches both ends.
    ends = [[0.0, *columns[0], 1.0], [None, *columns[1], None], [None, *columns[2], None]]
    return _json({"label": "confidence", "series": series, "data": [ends[0], *ends], "range": [0, 1]})


def history_rows(history: Mapping[str, Series]) -> list[Row]:
    """Return the numbers of all charts by update: a row for each, a column for each quantity of a split."""
    values = {name: dict(series) for name, series in sorted(history.items())}
    steps = sorted({step for series in values.values() for step in series})
    return [
        {"update": step} | {name.replace("/", " "): series.get(step) for name, series in values.items()}
        for step in steps
    ]


class Share(NamedTuple):
    """The share of a split with a label, and its position on the logarithmic axis; None if no example has the label."""

    split: str
    color: str
    share: float
    place: str | None


def shares(checks: Mapping[str, Any]) -> dict[str, list[Share]]:
    """Return each label's share of each split, the most frequent first; {} if the corpus has no labels."""
    by_split = {split: counts["labels"] for split, counts in checks["splits"].items() if counts.get("labels")}
    if not by_split:
        return {}
    totals = {split: sum(counts.values()) for split, counts in by_split.items()}
    found = {split: {name: n / totals[split] for name, n in counts.items()} for split, counts in by_split.items()}
    log = axis_of_shares([share for of_one in found.values() for share in of_one.values() if share])
    first = next(iter(by_split.values()))
    names = sorted({label for counts in by_split.values() for label in counts}, key=lambda x: (-first.get(x, 0), x))

    def of(label: str, split: str) -> Share:
        share = found[split].get(label, 0.0)
        return Share(
            split, plots.CSS_NAMES[plots.SPLIT_STYLES[split][0]], share, log.at(math.log10(share)) if share else None
        )

    return {label: [of(label, split) for split in by_split] for label in names}


def axis_of_shares(values: Sequence[float]) -> Axis:
    """Return the axis of the shares' logarithms: from the decade of the smallest to the whole."""
    return Axis(min(-1.0, float(math.floor(math.log10(min(values))))) - 0.05, 0.05)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
