"""What holds for every task: its pipeline runs, its bytes repeat, and inference answers as evaluation predicted."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML
from toys import TOYS, projects

from finetrail import inference, layout, params, tasks
from finetrail.evaluation import splits
from stages import download_corpus, download_model, evaluate, export, report, tokenize, train

STAGES = (download_corpus, download_model, tokenize, train, evaluate, export, report)


def test_every_task_has_a_toy() -> None:
    assert sorted(TOYS) == tasks.names()


@pytest.fixture(scope="module")
def at(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Path]]:
    """Return the function that enters the project of a task, run once through all stages."""
    with projects(request, *STAGES) as enter:
        yield enter


@pytest.fixture(params=tasks.names())
def task(request: pytest.FixtureRequest, at: Callable[[str], Path], restored_torch: None) -> str:
    at(request.param)
    return str(request.param)


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def stored() -> pa.Table:
    return pq.read_table(layout.PREDICTIONS, filters=[("split", "=", "test")]).drop_columns("split")


def inputs(task: str) -> list[dict[str, Any]]:
    """Return the test split as people would ask: rows of the corpus, or blocks where the task packs texts."""
    encoded = splits.load("test")
    rows = encoded.features if task == "masked_lm" else encoded.examples
    return [TOYS[task].ask(row) for row in rows.to_pylist()]


def test_the_headline_has_an_interval_and_baselines(task: str) -> None:
    metrics = read(layout.RECORD)
    name = metrics["headline"]
    for split in ("validation", "test"):
        scores = metrics[split]
        assert scores[f"{name}_low"] <= scores[name] <= scores[f"{name}_high"]
        assert metrics["baselines"][split]
    assert metrics["export"]["onnx_fp32"]["disagreements"] == 0


def test_every_score_has_an_interval(task: str) -> None:
    evaluation = read(layout.EVALUATION_METRICS)
    for split in ("validation", "test"):
        names = {name for name in evaluation[split] if not name.endswith(("_low", "_high"))}
        assert {name for name in names if f"{name}_low" in evaluation[split]} >= {evaluation["headline"]}
        assert all(isinstance(evaluation[split][name], float) for name in names)


def test_predictions_have_an_id_references_and_confidences_or_scores(task: str) -> None:
    names = set(stored().column_names)
    assert {"id", "references", "predictions"} <= names
    assert len(names & {"confidences", "scores"}) == 1


def test_two_runs_can_be_compared(task: str) -> None:
    """The statistic of two runs' stacked rows gives each run's scores by weights of 1 and 0; as comparison/ has it."""
    scoring, target = tasks.module(task, "scoring"), read(layout.TARGET)
    settings = params.load("evaluate").evaluate
    units = scoring.units(stored())
    n = len(units)
    half = np.concatenate([np.ones((1, n)), np.zeros((1, n))], axis=1)
    statistic = scoring.statistics(pa.concat_tables([units, units.take(np.arange(n)[::-1])]), target, settings)
    scores = scoring.score(stored(), target, settings)
    for weights in (half, half[:, ::-1]):
        found = {name: float(values[0]) for name, values in statistic(weights).items()}
        assert found == pytest.approx({name: scores[name] for name in found})
    outcomes = scoring.outcomes(units, target, settings)
    assert len(outcomes) == n
    for outcome in outcomes:
        assert outcome.keys() == {"score", "input", "reference", "prediction"}
        assert isinstance(outcome["score"], float)
        assert all(isinstance(outcome[name], str) for name in ("input", "reference", "prediction"))


def test_the_report_shows_the_scores_the_tables_and_the_errors(task: str) -> None:
    page = layout.REPORT.read_text(encoding="utf-8")
    assert read(layout.RECORD)["headline"] in page
    for path in layout.EVALUATION.glob("*.csv"):
        assert path.stem.replace("_", " ").capitalize() in page
        assert len(pd.read_csv(path))
    assert (layout.PLOTS / "headline.svg").is_file()


@pytest.mark.parametrize("runtime", ["torch", "onnx"])
def test_inference_gives_exactly_the_predictions_that_evaluation_stored(task: str, runtime: Any) -> None:
    documents = None
    if (layout.CORPUS / "documents.parquet").is_file():
        documents = pq.read_table(layout.CORPUS / "documents.parquet").to_pylist()
    predict = inference.load(layout.EXPORTED, runtime, documents=documents)
    serving = tasks.module(task, "serving")
    asked = inputs(task)
    ids = [str(number) for number in range(len(asked))]
    expected = serving.answers(stored())
    found = predict(asked)
    assert [one["id"] for one in found] == ids and len(expected) == len(ids)
    for one, other in zip(found, expected, strict=True):
        assert comparable(one) == comparable(other)


def comparable(answer: dict[str, Any]) -> Any:
    """Return an answer without its id, and with numbers that may differ in their last digits rounded."""
    rounded = json.loads(json.dumps(answer), parse_float=lambda text: round(float(text), 4))
    rounded.pop("id", None)
    return rounded


def test_inference_does_not_depend_on_what_else_is_asked(task: str) -> None:
    documents = None
    if (layout.CORPUS / "documents.parquet").is_file():
        documents = pq.read_table(layout.CORPUS / "documents.parquet").to_pylist()
    predict = inference.load(layout.EXPORTED, "torch", documents=documents)
    asked = inputs(task)[:3]
    alone = [predict([one])[0] for one in asked]
    assert list(map(comparable, predict(asked))) == list(map(comparable, alone))


def test_training_and_evaluation_again_give_the_same_bytes(task: str) -> None:
    kept = [layout.TRAINED / "model.safetensors", layout.PREDICTIONS, layout.EVALUATION_METRICS, layout.TARGET]
    before = [path.read_bytes() for path in kept]
    for stage in (tokenize, train, evaluate):
        stage.main()
    assert [path.read_bytes() for path in kept] == before


def test_features_do_not_depend_on_how_examples_come(task: str) -> None:
    declared, encoding = read(layout.TOKENIZED_COUNTS)["settings"], tasks.module(task, "encoding")
    settings = tasks.module(task, "settings").Tokenize(**declared, engine="local", num_proc=1)
    tokenizer = encoding.load_tokenizer(layout.TRAINED, settings, tokenize.train)
    encoder = encoding.Encoder(tokenizer, read(layout.TARGET), settings)
    for table in encoder.tables:
        whole = list(tokenize.read(layout.table_file(layout.CORPUS, table), None))
        parts = [(rows[i : i + 5], examples.slice(i, 5)) for rows, examples in whole for i in range(0, len(rows), 5)]
        together, apart = (
            pa.concat_tables(features for features, _ in encoder.encode_table(table, iter(batches)))
            for batches in (whole, parts)
        )
        assert together.combine_chunks() == apart.combine_chunks()


def test_a_limit_takes_fewer_examples_of_each_split(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(name, tmp_path)
    shutil.copytree("recipes", tmp_path / "recipes")
    (tmp_path / "data").mkdir()
    for name in ("corpus", "model"):
        (tmp_path / "data" / name).symlink_to(Path("data", name).absolute())
    monkeypatch.chdir(tmp_path)
    params = YAML().load(layout.PARAMS)
    params["limit"] = 5
    YAML().dump(params, layout.PARAMS)
    tokenize.main()
    counts = read(layout.TOKENIZED_COUNTS)["splits"]
    assert [counts[split]["examples"] for split in layout.SPLITS] == [5, 5, 5]


def test_the_exported_folder_stands_alone(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(layout.EXPORTED, tmp_path / "model")
    documents = [{"id": "a", "text": "Anna lives in Oslo ."}] if task == "retrieval" else None
    asked = inputs(task)[:2]
    monkeypatch.chdir(tmp_path)
    assert len(inference.load(Path("model"), documents=documents)(asked)) == 2
