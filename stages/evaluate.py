"""Turns the trained model and the held-out splits into data/predictions.parquet and the scores, metrics/evaluation."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from transformers import AutoTokenizer

from finetrail import layout, numerics, params, stage, tasks
from finetrail.evaluation import bootstrap, inference, slices, splits
from finetrail.evaluation.inference import Forward
from finetrail.evaluation.splits import Encoded
from finetrail.progress import working
from finetrail.schema import Evaluate

if TYPE_CHECKING:
    from finetrail.tasks.contract import Loading, Row, Scoring

HELD_OUT = ("validation", "test")
FINAL_SPLIT = "test"
BEFORE = "before_training"
MODELS = ("before training", "trained")

# Split -> predictions of one model.
Predictions = dict[str, pa.Table]


def main() -> None:
    """Predict and score validation and test, with intervals and baselines."""
    declared = params.load("evaluate")
    numerics.use(declared.numerics, declared.threads)
    numerics.use_tf32(declared.numerics)
    loading, scoring = tasks.module(declared.task, "loading"), tasks.module(declared.task, "scoring")
    lower_is_better = tasks.module(declared.task, "metrics").LOWER_IS_BETTER
    settings, target = declared.evaluate, stage.read_json(layout.TARGET)
    held_out, shared = {split: splits.load(split) for split in HELD_OUT}, splits.load_shared()
    train, load = splits.load("train"), loader(loading, shared, target, settings)
    model = load(layout.TRAINED)
    trained, for_later = predict(scoring, model, held_out), candidates(scoring, model, {"train": train} | held_out)
    before = predict(scoring, load(layout.WEIGHTS), held_out) if scoring.base_is_baseline(layout.WEIGHTS) else {}
    settings, trained, choices = settled(scoring, trained, target, settings)
    headline, data = scoring.headline(target, settings), Data(train, held_out, trained, before)
    beside = scoring.beside(target, settings) if scoring.beside else []
    whole = scores(scoring, data, shared, target, settings)
    parts = {name: scores(scoring, data.part(name), shared, target, settings) for name in splits.parts(data.train)}
    for split in HELD_OUT:
        for name, found in {"": whole, **parts}.items():
            shown = f"{split}: {name}" if name else split
            stage.log(summary(shown, found[split], [headline, *beside], found["baselines"][split]))
    tables = all_tables(scoring, trained, before, target, settings)
    tables |= {"parts": parts_table(parts, data, headline)} if parts else {}
    if of_slices := sliced(scoring, data, headline, headline in lower_is_better, target, settings):
        tables["slices"] = of_slices
    errors = scoring.worst_errors(trained[FINAL_SPLIT], settings.worst_errors, target, settings)
    metrics = {"headline": headline, "confidence": settings.bootstrap.confidence, **choices, **whole}
    metrics["lower_is_better"] = sorted(set(lower_is_better) & {name for split in HELD_OUT for name in whole[split]})
    metrics |= {"beside": beside} if beside else {}
    metrics |= {"parts": parts} if parts else {}
    write(trained, for_later, metrics | {"machine": numerics.record(declared.numerics)}, tables, errors)


class Data(NamedTuple):
    """What is scored: examples, predictions of the trained model, and those of the base model if it does the task."""

    train: Encoded
    held_out: dict[str, Encoded]
    trained: Predictions
    before: Predictions

    def part(self, name: str) -> "Data":
        """Return the data of one part of a mixture."""
        return Data(
            splits.parts(self.train)[name],
            {split: splits.parts(encoded)[name] for split, encoded in self.held_out.items()},
            *(
                {split: splits.of_part(table, name) for split, table in predicted.items()}
                for predicted in (self.trained, self.before)
            ),
        )


def scores(
    scoring: "Scoring", data: Data, shared: dict[str, Encoded], target: object, settings: Evaluate
) -> dict[str, dict[str, Any]]:
    """Return the scores of each split with their intervals, and those of its baselines."""
    found: dict[str, dict[str, Any]] = {
        split: with_intervals(scoring, predicted, target, settings) for split, predicted in data.trained.items()
    }
    baselines = {}
    for split, encoded in data.held_out.items():
        with working(f"{split}: baselines"):
            guesses = scoring.baselines(data.train, encoded, shared, target, settings)
        guesses |= {BEFORE: data.before[split]} if data.before else {}
        baselines[split] = {name: scoring.score(guess, target, settings) for name, guess in guesses.items()}
    return found | {"baselines": baselines}


def parts_table(parts: dict[str, dict[str, Any]], data: Data, headline: str) -> list[dict[str, Any]]:
    """Return a row for each part of a mixture and split: its size, its headline score, and its baselines."""
    rows = []
    for split in HELD_OUT:
        for name, found in parts.items():
            others = {other: values[headline] for other, values in found["baselines"][split].items()}
            ends = {f"{headline}_{end}": found[split].get(f"{headline}_{end}") for end in ("low", "high")}
            examples = len(splits.parts(data.held_out[split])[name].examples)
            row = {"split": split, "part": name, "examples": examples, headline: found[split][headline]}
            rows.append(row | ends | others)
    return rows


def sliced(
    scoring: "Scoring", data: Data, headline: str, lower_is_better: bool, target: object, settings: Evaluate
) -> list[dict[str, Any]]:
    """Return the scores of slices of the test split, and log the slices that are worse than the rest."""
    units = scoring.units(data.trained[FINAL_SPLIT])
    found = slices.scores(
        units,
        scoring.slicings(units, data.train.examples, target),
        slices.of_task(scoring, headline, lower_is_better, target, settings),
        settings.bootstrap,
    )
    for line in slices.summary(found):
        stage.log(f"evaluate: {FINAL_SPLIT}: worse than the rest: {line}")
    return found


class Model(NamedTuple):
    """A model and what its predictions depend on, in the order of the arguments of a task's scoring."""

    shared: dict[str, Encoded]
    target: object
    forward: Forward
    tokenizer: Any
    settings: Evaluate


def loader(
    loading: "Loading", shared: dict[str, Encoded], target: object, settings: Evaluate
) -> Callable[[Path], Model]:
    """Return the function that loads a model from its folder."""
    tokenizer = AutoTokenizer.from_pretrained(layout.TRAINED)

    def load(folder: Path) -> Model:
        forward = inference.torch_forward(loading.load_model(folder).to(inference.device()))  # type: ignore[arg-type]  # of _Wrapped
        return Model(shared, target, forward, tokenizer, settings)

    return load


def predict(scoring: "Scoring", model: Model, held_out: dict[str, Encoded]) -> Predictions:
    """Return the predictions of a model for each split."""
    return {
        name: splits.predict(encoded, lambda split: scoring.predict(split, *model))
        for name, encoded in held_out.items()
    }


def candidates(scoring: "Scoring", model: Model, given: dict[str, Encoded]) -> Predictions:
    """Return a model's candidates for later runs, such as that of a reranker; empty if the task has none."""
    if scoring.candidates is None:
        return {}
    found = {name: scoring.candidates(split, *model, to_learn=name == "train") for name, split in given.items()}
    for name, table in found.items():
        if table is not None:
            stage.log(f"evaluate: candidates: {name}: {len(table):,}")
    return {name: table for name, table in found.items() if table is not None}


def with_intervals(scoring: "Scoring", predicted: pa.Table, target: object, settings: Evaluate) -> dict[str, float]:
    """Return each score with the ends of its interval: f1, f1_low, f1_high, ..."""
    scores = scoring.score(predicted, target, settings)
    units = scoring.units(predicted)
    ends = bootstrap.intervals(len(units), scoring.statistics(units, target, settings), settings.bootstrap)
    rows = (
        {name: value} | ({f"{name}_low": ends[name][0], f"{name}_high": ends[name][1]} if name in ends else {})
        for name, value in scores.items()
    )
    return {name: value for row in rows for name, value in row.items()}


def settled(
    scoring: "Scoring", predictions: Predictions, target: object, settings: Evaluate
) -> tuple[Evaluate, Predictions, dict[str, Any]]:
    """Return settings and predictions with the choices that the task makes on validation, and a record of these."""
    if scoring.settle is None:
        return settings, predictions, {}
    values, predictions, notes = scoring.settle(predictions, target, settings)
    for note in notes:
        stage.log(f"evaluate: warning: {note}")
    for name, value in values.items():
        stage.log(f"evaluate: {name}: {value}, chosen on train and validation")
    choices = {name: part for name, part in (("settled", values), ("notes", notes)) if part}
    return settings.model_copy(update=values), predictions, choices


def summary(split: str, scores: dict[str, float], metrics: list[str], baselines: dict[str, dict[str, float]]) -> str:
    """Return one line: the headline and the metrics shown with it, each with its interval and its baselines."""
    parts = []
    for metric in metrics:
        others = ", ".join(f"{name.replace('_', ' ')} {values[metric]:.4f}" for name, values in baselines.items())
        low, high = scores[f"{metric}_low"], scores[f"{metric}_high"]
        parts.append(f"{metric} {scores[metric]:.4f} [{low:.4f}, {high:.4f}]; baselines: {others}")
    return f"evaluate: {split}: {'; '.join(parts)}"


def all_tables(
    scoring: "Scoring", trained: Predictions, before: Predictions, target: object, settings: Evaluate
) -> "dict[str, list[Row]]":
    """Return the tables for plots and the report: name -> rows of all splits.

    In tables of single examples (rows with an id), the base model's row is above the trained model's.
    """
    tables: dict[str, list[Row]] = {}
    for split, predicted in trained.items():
        earlier = scoring.tables(before[split], target, settings) if before else {}
        for name, rows in scoring.tables(predicted, target, settings).items():
            if before and rows and "id" in rows[0]:
                pairs = zip(earlier[name], rows, strict=True)
                rows = [{"model": model, **row} for pair in pairs for model, row in zip(MODELS, pair, strict=True)]
            tables.setdefault(name, []).extend({"split": split, **row} for row in rows)
    return tables


def write(
    predictions: Predictions,
    for_later: Predictions,
    metrics: dict[str, Any],
    tables: "dict[str, list[Row]]",
    errors: list[dict[str, Any]],
) -> None:
    """Write predictions and candidates as Parquet; metrics, and tables for plots and people, as JSON and CSV."""
    with stage.outputs(layout.PREDICTIONS, layout.CANDIDATES, layout.EVALUATION) as [file, folder, evaluation]:
        folder.mkdir()
        # Also if there are no candidates: DVC warns of an empty folder.
        stage.write_json(folder / "counts.json", {split: len(table) for split, table in for_later.items()})
        for split, table in for_later.items():
            pq.write_table(table, layout.table_file(folder, split), compression="zstd")
        evaluation.mkdir()
        named = [table.add_column(0, "split", [[split] * len(table)]) for split, table in predictions.items()]
        pq.write_table(pa.concat_tables(named), file, compression="zstd")
        for name, rows in tables.items():
            pd.DataFrame(rows).to_csv(
                # Quoted: a carriage return in a text would start a row.
                evaluation / f"{name}.csv",
                index=False,
                lineterminator="\n",
                quoting=csv.QUOTE_NONNUMERIC,
            )
        stage.write_json(evaluation / layout.EVALUATION_METRICS.name, metrics)
        stage.write_json(evaluation / layout.EVALUATION_ERRORS.name, errors)


if __name__ == "__main__":
    stage.run(main)
