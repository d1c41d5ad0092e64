"""Turns the records of all stages into record.json and metrics.json, which Git keeps, and a page and its figures."""

from finetrail import layout
from finetrail.params import load
from finetrail.reporting import page, summary
from finetrail.reporting.records import read_results
from finetrail.stage import log, outputs, run, write_json


def main() -> None:
    """Assemble the record, the page, and its figures as files."""
    params = load("report")
    results = read_results(params.task)
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
