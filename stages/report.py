"""Turns the records of all stages into record.json and metrics.json, which Git keeps, and a page and its figures."""

import csv
from pathlib import Path
from typing import Any

from finetrail import layout
from finetrail.params import load
from finetrail.reporting import page, summary
from finetrail.reporting.summary import Results, Row, Series
from finetrail.stage import log, outputs, read_json, run, write_json

LONGEST_FIELD = 2**31 - 1  # csv's own is 131,072 characters; a prompt may be longer
# Columns of names, where "1" and "nan" are labels and not numbers.
TEXT_COLUMNS = {"split", "part", "label", "reference", "prediction"}


def read_results() -> Results:
    """Read what all earlier stages recorded; UserError where a record is missing."""
    return Results(
        checks=read_json(layout.CORPUS_CHECKS),
        corpus=read_json(layout.CORPUS_PROVENANCE),
        model=read_json(layout.MODEL_PROVENANCE),
        counts=read_json(layout.TOKENIZED_COUNTS),
        training=read_json(layout.TRAINING_RECORD),
        history=read_history(layout.TRAIN_HISTORY / "plots" / "metrics"),
        evaluation=read_json(layout.EVALUATION_METRICS),
        tables={path.stem: read_rows(path, ",") for path in sorted(layout.EVALUATION.glob("*.csv"))},
        # A task whose errors cannot be listed (a language model's) writes none.
        errors=read_json(layout.EVALUATION_ERRORS) if layout.EVALUATION_ERRORS.is_file() else [],
        export=read_json(layout.EXPORT_METRICS),
    )


def read_history(folder: Path) -> dict[str, Series]:
    """Read DVCLive's TSV files, SPLIT/METRIC.tsv with the columns step and METRIC, to (step, value) in order."""
    history = {}
    for path in sorted(folder.rglob("*.tsv")):
        name = path.relative_to(folder).with_suffix("").as_posix()
        history[name] = [(row["step"], row[path.stem]) for row in read_rows(path, "\t")]
    return history


def read_rows(path: Path, delimiter: str) -> list[Row]:
    """Read a delimited file with a header, numbers as numbers."""
    csv.field_size_limit(LONGEST_FIELD)
    with path.open(encoding="utf-8", newline="") as lines:
        return [
            {key: text if key in TEXT_COLUMNS else read_value(text) for key, text in row.items()}
            for row in csv.DictReader(lines, delimiter=delimiter)
        ]


def read_value(text: str) -> Any:
    """Read an int or a float; nothing is None, and other text stays."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text or None


def main() -> None:
    """Assemble the record, the page, and its figures as files."""
    params = load("report")
    results = read_results()
    with outputs(layout.RECORD, layout.METRICS, layout.REPORT, layout.PLOTS) as [record, metrics, html, plots]:
        write_json(record, summary.summarize(params.task, params.recipe, results))
        write_json(metrics, summary.metrics(results.evaluation))
        html.write_text(page.render(params.task, params.recipe, results), encoding="utf-8")
        plots.mkdir()
        for name, svg in page.figures(results).items():
            (plots / f"{name}.svg").write_text(svg + "\n", encoding="utf-8")
    log(f"report: {summary.sentence(results.evaluation)}")


if __name__ == "__main__":
    run(main)
