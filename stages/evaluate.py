"""Turns the trained model and the held-out splits into data/predictions.parquet and the scores, metrics/evaluation."""

from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from transformers import AutoTokenizer

from finetrail import layout, params, stage, tasks
from finetrail.evaluation import bootstrap, inference, splits

HELD_OUT = ("validation", "test")


def main() -> None:
    """Predict and score validation and test, with intervals and baselines."""
    declared = params.load("evaluate")
    modeling, scoring = (tasks.module(declared.task, part) for part in ("modeling", "scoring"))
    settings, label_names = declared.evaluate, stage.read_json(layout.LABEL_NAMES)
    forward = inference.torch_forward(modeling.load_model(layout.TRAINED).to(inference.device()))
    pad_token_id = AutoTokenizer.from_pretrained(layout.TRAINED).pad_token_id
    train, _ = splits.load("train")
    metrics: dict[str, Any] = {"headline": scoring.headline(label_names), "confidence": settings.bootstrap.confidence}
    baselines, predictions = {}, {}
    for split in HELD_OUT:
        examples, features = splits.load(split)
        predicted = scoring.predict(examples, features, label_names, forward, pad_token_id, settings.batch_size)
        metrics[split] = with_intervals(scoring, predicted, label_names, settings.bootstrap)
        guesses = scoring.baselines(train, examples, label_names)
        baselines[split] = {name: scoring.score(guess, label_names) for name, guess in guesses.items()}
        predictions[split] = predicted
        stage.log(summary(split, metrics[split], metrics["headline"], baselines[split]))
    write(predictions, metrics | {"baselines": baselines}, scoring, label_names, settings.worst_errors)


def with_intervals(scoring: Any, predicted: pa.Table, label_names: list[str], settings: Any) -> dict[str, float]:
    """Return each score with the ends of its interval: f1, f1_low, f1_high, ..."""
    scores = scoring.score(predicted, label_names)
    counts, to_scores = scoring.statistics(predicted, label_names)
    ends = bootstrap.intervals(counts, to_scores, settings)
    rows = (
        {name: value, f"{name}_low": ends[name][0], f"{name}_high": ends[name][1]} for name, value in scores.items()
    )
    return {name: value for row in rows for name, value in row.items()}


def summary(split: str, scores: dict[str, float], headline: str, baselines: dict[str, dict[str, float]]) -> str:
    """Return one line: the headline with its interval, and what it has to beat."""
    others = ", ".join(f"{name.replace('_', ' ')} {values[headline]:.4f}" for name, values in baselines.items())
    low, high = scores[f"{headline}_low"], scores[f"{headline}_high"]
    return f"evaluate: {split}: {headline} {scores[headline]:.4f} [{low:.4f}, {high:.4f}]; baselines: {others}"


def write(
    predictions: dict[str, pa.Table], metrics: dict[str, Any], scoring: Any, label_names: list[str], most_errors: int
) -> None:
    """Write predictions as Parquet; metrics, and tables for plots and people, as JSON and CSV."""
    with stage.output(layout.PREDICTIONS) as file, stage.output(layout.EVALUATION) as evaluation:
        evaluation.mkdir()
        named = [table.add_column(0, "split", [[split] * len(table)]) for split, table in predictions.items()]
        pq.write_table(pa.concat_tables(named), file, compression="zstd")
        tables: dict[str, list[dict[str, Any]]] = {}
        for split, predicted in predictions.items():
            for name, rows in scoring.tables(predicted, label_names).items():
                tables.setdefault(name, []).extend({"split": split} | row for row in rows)
        for name, rows in tables.items():
            pd.DataFrame(rows).to_csv(evaluation / f"{name}.csv", index=False, lineterminator="\n")
        stage.write_json(evaluation / layout.EVALUATION_METRICS.name, metrics)
        stage.write_json(
            evaluation / layout.EVALUATION_ERRORS.name, scoring.worst_errors(predictions["test"], most_errors)
        )


if __name__ == "__main__":
    stage.run(main)
