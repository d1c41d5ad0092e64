"""Turns the records of all stages into one self-contained HTML page: no network, no script, no timing, no path."""

from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from finetrail import layout
from finetrail.reporting import plots
from finetrail.reporting.summary import (
    FINAL_SPLIT,
    Headline,
    Results,
    Row,
    Series,
    baselines,
    headline,
    machines,
    verdict,
)

FIRST_ERRORS = 20  # the rest are folded away
MAX_ROWS = 200  # of a table that no figure stands for; the file has them all
TOP_CONFUSIONS = 10

# What to know about a count of the corpus's or the tokenizer's that should be zero. Other counts are shown as they are.
CONCERNS = {
    "duplicates": "occur more than once in the split: they count double",
    "empty_examples": "examples without content were dropped",
    "empty_tokens": "tokens without content were met",
    "own_document_left_out": "queries are not to find the document of their own id, as it is not judged relevant",
    "repaired_transitions": "labels stood where their scheme does not allow them, and were repaired",
    "bad_conversations": "cannot be used (the log has the first), and were left out",
    "conversations_left_out": "are refused by the chat template, and were left out",
    "answers_in_no_window": "are longer than a window: the model cannot give them",
    "answers_within_tokens": "begin or end inside a token: no span of tokens gives them exactly",
    "completions_truncated": "are longer than a block leaves them: the model neither learns nor is scored on their end",
    "ids_with_file_name": "stand in another file of the split too, as those of translations do, and got its name",
    "left_out_by_limit": "were left out for a quick look: it is easier to find a document among few than among all",
    "examples_truncated": "were cut to the length of a feature",
    "without_relevant_documents": "queries have no document to be found, and were left out",
    "words_without_subwords": "words came out of the tokenizer as nothing: the model never sees them",
}
VERDICTS = {
    "beats": "beats it: the whole interval is better",
    "ahead": "ahead of it, but the interval does not exclude it",
    "level": "level with it",
    "behind": "does not beat it",
}


def render(task: str, recipe: str, results: Results) -> str:
    """Render the page; sections whose records are empty are left out."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    drawn = figures(results)
    environment.filters.update(number=number, score=score, words=words, flat=flat)
    return environment.get_template("page.html.j2").render(
        task=task,
        recipe=recipe,
        results=results,
        final=FINAL_SPLIT,
        splits=[split for split in layout.SPLITS if split in results.evaluation],
        first_errors=FIRST_ERRORS,
        max_rows=MAX_ROWS,
        concerns=concerns(results),
        training=without(results.training, "machine"),
        # The list of their files is in their provenance.json; its one hash is enough for a reader.
        corpus=without(results.corpus, "files"),
        model=model_record(results.model),
        machines=machines(results.training, results.evaluation),
        **_headline_parts(results),
        headline_figure=Markup(drawn["headline"]),
        curves=curves(results.history, results.training),
        tables=_tables(results, drawn),
        shares=label_shares(results.checks),
    )


def without(record: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return a record without one of its keys."""
    return {name: value for name, value in record.items() if name != key}


def model_record(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page tells of the base model, and of its teacher where it has one."""
    shown = without(model, "files")
    return shown | ({"teacher": without(model["teacher"], "files")} if model.get("teacher") else {})


def curves(history: Mapping[str, Series], training: Mapping[str, Any]) -> list[tuple[str, Markup]]:
    """Draw each quantity of the history once, with a line for each split that has it; losses first, rates last."""
    by_name: dict[str, dict[str, Series]] = {}
    for name, series in sorted(history.items()):
        split, _, metric = name.rpartition("/")
        by_name.setdefault(metric, {})[split] = series
    best = training.get("best_update")
    order = {"loss": 0, training.get("best_metric"): 1, "lr": 3}
    names = sorted(by_name, key=lambda name: (order.get(name, 2), name))
    return [(name, Markup(plots.curve(name, by_name[name], best))) for name in names]


def concerns(results: Results) -> list[str]:
    """List what a reader should know before trusting the scores: one sentence each."""
    found = []
    if (limit := results.counts["settings"].get("limit")) is not None:
        found.append(f"Only a quick look: at most {limit:,} examples of each split were used (limit).")
    found += results.training.get("notes", []) + results.evaluation.get("notes", [])
    found += [f"{note}." for note in results.checks.get("notes", [])]
    for source in (results.checks, results.counts):
        for split, counts in source["splits"].items():
            for name, text in CONCERNS.items():
                if counts.get(name):
                    found.append(f"{split}: {counts[name]:,} {words(name)} ({text}).")
    for pair, count in results.checks.get("leakage", {}).items():
        if count:
            first, second = pair.split("/")
            found.append(f"Leakage: {count:,} of {second} also in {first}; scores on {second} are flattered by that.")
    for split, labels in results.checks.get("unseen_labels", {}).items():
        if labels:
            named = ", ".join(f"{label} ({count:,})" for label, count in labels.items())
            found.append(f"{split}: labels that train lacks can never be predicted: {named}.")
    return found


def label_shares(checks: Mapping[str, Any]) -> Markup | None:
    """Draw how the labels are distributed over the splits, where the corpus has labels."""
    by_split = {split: counts["labels"] for split, counts in checks["splits"].items() if counts.get("labels")}
    return Markup(plots.label_shares(by_split)) if by_split else None


def top_confusions(rows: list[Row]) -> list[Row]:
    """Return the most frequent confusions of two labels."""
    wrong = [row for row in rows if row["reference"] != row["prediction"] and row["count"]]
    return sorted(wrong, key=lambda row: (-row["count"], row["reference"], row["prediction"]))[:TOP_CONFUSIONS]


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
    """Format a score with three decimals; what is no fraction as number() does."""
    return f"{value:.3f}" if isinstance(value, float) else number(value)


def words(name: str) -> str:
    """Turn a key into words."""
    return name.replace("_", " ")


def flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a nested record to dotted keys; a list becomes one line, and an empty one None."""
    found: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = ", ".join(map(str, value)) or None if isinstance(value, list) else value
    return found


def _headline_parts(results: Results) -> dict[str, Any]:
    """Collect the page's first section: the score, its figure, and how it stands to each baseline."""
    result: Headline = headline(results.evaluation)
    others = baselines(results.evaluation)
    compared = [(name, value, kind := verdict(result, value), VERDICTS[kind]) for name, value in others.items()]
    metrics = [key for key in results.evaluation[FINAL_SPLIT] if not key.endswith(("_low", "_high"))]
    return {
        "headline": result,
        "compared": compared,
        "metrics": metrics,
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


def _tables(results: Results, drawn: Mapping[str, str]) -> list[dict[str, Any]]:
    """Prepare the evaluation's CSVs: scores of labels first, then confusions, then all others by name."""
    metric, tables = results.evaluation["headline"], []
    for name, rows in results.tables.items():
        kind = _kind(rows, metric)
        table: dict[str, Any] = {"name": name, "rows": rows, "kind": kind, "splits": _by_split(rows)}
        table["figure"] = Markup(drawn[name]) if name in drawn else None
        table["top"] = top_confusions(_final(rows)) if kind == "confusion" else []
        tables += [table] if rows else []
    order = ["labels", "confusion", "reliability", "plain"]
    return sorted(tables, key=lambda table: (order.index(table["kind"]), table["name"]))


def _kind(rows: list[Row], metric: str) -> str:
    """Tell what a table is by its columns, and so which figure it gets."""
    columns = set(rows[0]) if _final(rows) else set()
    if {"reference", "prediction", "count"} <= columns:
        return "confusion"
    if {"label", "support", _of_labels(rows, metric)} <= columns:
        return "labels"
    return "reliability" if {"confidence", "accuracy", "count"} <= columns else "plain"


def _of_labels(rows: list[Row], metric: str) -> str:
    """Return the metric of single labels: the headline, or F1 where that is of all labels together (accuracy)."""
    return metric if rows and metric in rows[0] else "f1"


def _final(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row.get("split", FINAL_SPLIT) == FINAL_SPLIT]


def _by_split(rows: list[Row]) -> list[tuple[str | None, list[Row]]]:
    return [(split, list(group)) for split, group in groupby(rows, key=lambda row: row.get("split"))]
