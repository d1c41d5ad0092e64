"""Turns the records of all stages into one self-contained HTML page, without network access, paths and timestamps."""

from collections.abc import Mapping
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from markupsafe import Markup

from finetrail import layout, licenses
from finetrail.reporting import plots, rendering, views
from finetrail.reporting.rendering import words
from finetrail.reporting.summary import FINAL_SPLIT, Headline, Results, Row, baselines, headline, machines, verdict

MAX_ROWS = 200  # of a plain table; the CSV file has all
TOP_CONFUSIONS = 10
CONFUSION = "confusion"  # the table whose cells link to the worst errors
KINDS = ("labels", "confusion", "reliability", "slices", "plain")  # in the order of the page

VERDICTS = {
    "beats": "beats it: the whole interval is better",
    "ahead": "ahead of it, but the interval does not exclude it",
    "level": "level with it",
    "behind": "does not beat it",
}


def render(task: str, recipe: str, results: Results, timings: Mapping[str, Any] | None = None) -> str:
    """Render the page; sections with empty records are left out.

    timings: measured by finetrail.exporting on this machine. The stage's page has none, so that equal runs give equal
    bytes.
    """
    environment = rendering.environment(Path(__file__).parent)
    environment.filters["highlighted"] = views.highlighted
    best = results.training.get("best_update")
    charts, sentences = views.curves(results.history, best, ["loss", results.training.get("best_metric", "loss")])
    tables, cells = _tables(results)
    shares = views.shares(results.checks)
    rendered = environment.get_template("page.html.j2").render(
        task=task,
        recipe=recipe,
        results=results,
        timings=timings,
        final=FINAL_SPLIT,
        splits=[split for split in layout.SPLITS if split in results.evaluation],
        max_rows=MAX_ROWS,
        concerns=concerns(results),
        training=without(results.training, "machine"),
        corpus=origin(results.corpus),
        model=origin(results.model),
        machines=machines(results.training, results.evaluation),
        **_headline_parts(results),
        charts=charts,
        sentences=sentences,
        history=views.history_rows(results.history),
        tables=tables,
        errors=list(zip(results.errors, cells, strict=True)),
        shares=dict(islice(shares.items(), MAX_ROWS)),
        labels=len(shares),
        axis=views.axis,
    )
    return rendered.lstrip()  # blank lines of the macros


def without(record: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return a record without a key, also in nested records."""
    return {
        name: without(value, key) if isinstance(value, Mapping) else value
        for name, value in record.items()
        if name != key
    }


def origin(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return a provenance for the page: one hash instead of the list of files, and a note if the licence is unknown."""
    shown = {key: origin(value) if isinstance(value, Mapping) else value for key, value in provenance.items()}
    shown.pop("files", None)
    return shown | ({"license": licenses.shown(shown)} if "license" in shown else {})


def concerns(results: Results) -> list[str]:
    """List the concerns that a reader should know before trusting the scores, one sentence each."""
    found = []
    if (limit := results.counts["settings"].get("limit")) is not None:
        found.append(f"Only a quick look: at most {limit:,} examples of each split were used (limit).")
    found += results.training.get("notes", []) + results.evaluation.get("notes", [])
    return [*found, *(f"{concern}." for concern in results.concerns)]


def top_confusions(rows: list[Row]) -> list[Row]:
    """Return the most frequent confusions of two labels."""
    wrong = [row for row in rows if row["reference"] != row["prediction"] and row["count"]]
    return sorted(wrong, key=lambda row: (-row["count"], row["reference"], row["prediction"]))[:TOP_CONFUSIONS]


def _headline_parts(results: Results) -> dict[str, Any]:
    """Collect the page's first section: the score, its figure, and its comparison with each baseline."""
    result: Headline = headline(results.evaluation)
    others = baselines(results.evaluation)
    compared = [(name, value, kind := verdict(result, value), VERDICTS[kind]) for name, value in others.items()]
    metrics = [key for key in results.evaluation[FINAL_SPLIT] if not key.endswith(("_low", "_high"))]
    values = [result.value, *others.values(), result.low, result.high]
    return {
        "headline": result,
        "compared": compared,
        "metrics": metrics,
        "headline_axis": views.axis(values),
    }


def figures(results: Results) -> dict[str, str]:
    """Draw the headline, and each CSV of the evaluation that has a figure: name -> SVG."""
    metric, others = results.evaluation["headline"], baselines(results.evaluation)
    beside = {words(name): value for name, value in others.items()}
    drawn = {"headline": plots.headline(headline(results.evaluation), beside)}
    for name, rows in results.tables.items():
        final = _final(rows)
        match _kind(rows, metric):
            case "labels":
                drawn[name] = plots.label_bars(final, _of_labels(rows, metric))
            case "confusion":
                drawn[name] = plots.confusion(final)
            case "reliability":
                drawn[name] = plots.reliability(final)
    return drawn


def _tables(results: Results) -> tuple[list[dict[str, Any]], list[str | None]]:
    """Prepare the tables of evaluation, scores of labels first; also return each error's cell of the confusion."""
    metric, tables = results.evaluation["headline"], []
    cells: list[str | None] = [None] * len(results.errors)
    for name, rows in results.tables.items():
        kind, final = _kind(rows, metric), _final(rows)
        table: dict[str, Any] = {"name": name, "rows": rows, "kind": kind, "splits": _by_split(rows), "final": final}
        match kind:
            case "labels":
                table["metric"] = _of_labels(rows, metric)
                # Tables by_... have an order of their own, such as ranges.
                table["in_order"] = name.startswith("by_")
                by_support = sorted(final, key=lambda row: (-row["support"], row["label"]))
                table["final"] = final if table["in_order"] else by_support
            case "confusion":
                errors = results.errors if name == CONFUSION else []
                table["matrix"], found = views.matrix(final, errors)
                table["top"] = top_confusions(final)
                cells = found or cells
            case "reliability":
                spec, svg = views.reliability_spec(final), Markup(plots.reliability(final))
                table["chart"] = views.Chart(name, spec, svg)
        tables += [table] if rows else []
    return sorted(tables, key=lambda table: (KINDS.index(table["kind"]), table["name"])), cells


def _kind(rows: list[Row], metric: str) -> str:
    """Return the kind of a table, by its columns; it decides how the table is shown."""
    columns = set(rows[0]) if _final(rows) else set()
    if {"reference", "prediction", "count"} <= columns:
        return "confusion"
    if {"label", "support", _of_labels(rows, metric)} <= columns:
        return "labels"
    if {"slicing", "slice", "score", "low", "high", "worse"} <= columns:
        return "slices"
    return "reliability" if {"confidence", "accuracy", "count"} <= columns else "plain"


def _of_labels(rows: list[Row], metric: str) -> str:
    """Return the metric of single labels: the headline, or F1 if the headline covers all labels together (accuracy)."""
    return metric if rows and metric in rows[0] else "f1"


def _final(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row.get("split", FINAL_SPLIT) == FINAL_SPLIT]


def _by_split(rows: list[Row]) -> list[tuple[str | None, list[Row]]]:
    return [(split, list(group)) for split, group in groupby(rows, key=lambda row: row.get("split"))]
