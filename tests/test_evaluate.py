"""The evaluate stage on a task made here: intervals, baselines, the base model as one of them, and tables as files."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from finetrail import layout, schema
from finetrail.evaluation import inference, slicing, splits
from finetrail.evaluation.splits import Encoded
from finetrail.reporting import records
from finetrail.stage import write_json
from finetrail.tasks.token_classification import scoring
from finetrail.transfers import fetch, send
from stages import evaluate

PAD = 9
SETTINGS = schema.Evaluate(
    batch_size=2, bootstrap=schema.Bootstrap(samples=100, confidence=0.9, seed=0), worst_errors=1
)
# Each split has three examples; the second has no features, as may happen with tokenize.limit.
TABLES = {
    "train": {"id": ["r0", "r1", "r2"], "label": [0, 0, 1]},
    "validation": {"id": ["v0", "v1", "v2"], "label": [0, 1, 1]},
    "test": {"id": ["t0", "t1", "t2"], "label": [1, 0, 1]},
    "documents": {"id": ["d0"], "label": [0]},
}
FEATURES = pa.table(
    {
        "example": pa.array([0, 2], pa.int32()),
        "input_ids": pa.array([[0, 1], [1, 1, 0]], pa.list_(pa.int32())),
    }
)


# --- a task that answers 0 before it is trained, and its first token after ----------------------------------------


class Model(torch.nn.Module):
    device = torch.device("cpu")

    def __init__(self, is_trained: bool) -> None:
        super().__init__()
        self.is_trained = is_trained

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, Any]:
        logits = torch.nn.functional.one_hot(input_ids[:, 0] * int(self.is_trained), 2)
        return {"logits": logits, "hidden_states": ()}


def predict(
    split: Encoded, shared: dict[str, Encoded], target: Any, forward: Any, tokenizer: Any, settings: Any
) -> pa.Table:
    assert [list(table.examples["id"].to_pylist()) for table in shared.values()] == [["d0"]]
    found = np.zeros(len(split.examples), dtype=np.int64)
    for rows, outputs in inference.forward_batches(
        split.features, forward, tokenizer.pad_token_id, settings.batch_size
    ):
        found[rows] = outputs["logits"].argmax(-1)
    return answered(split, found)


def answered(split: Encoded, found: Any) -> pa.Table:
    examples = split.examples
    return pa.table({"id": examples["id"], "references": examples["label"], "predictions": found})


def right(predictions: pa.Table) -> np.ndarray:
    return np.asarray(predictions["references"]) == np.asarray(predictions["predictions"])


def statistics(units: pa.Table, target: Any, settings: Any) -> Callable[[np.ndarray], Any]:
    hits = right(units)
    return lambda weights: {"share": weights @ hits / weights.sum(1)}


def tables(predictions: pa.Table, target: Any, settings: Any) -> dict[str, list[dict[str, Any]]]:
    rows = zip(predictions["id"].to_pylist(), right(predictions).tolist(), strict=True)
    return {"outcomes": [{"id": name, "right": int(hit)} for name, hit in rows], "nothing": []}


SCORING = SimpleNamespace(
    predict=predict,
    # `examples` has no interval, as a score may have none.
    score=lambda table, target, settings: {"share": float(right(table).mean()), "examples": len(table)},
    units=lambda predictions: predictions,
    statistics=statistics,
    tables=tables,
    headline=lambda target, settings: "share",
    **dict.fromkeys(["beside", "candidates", "counted", "settle"]),
    slicings=lambda units, train, target: [
        slicing.by_name("id", units["id"].to_pylist(), ["t0", "t1", "t2"]),
        slicing.by_name("train", train["id"].to_pylist(), ["r0", "r2"]),
    ],
    worst_errors=lambda table, most, target, settings: [{"id": "t0", "most": most}],
    baselines=lambda train, split, shared, target, settings: {
        "first_of_train": answered(split, np.full(len(split.examples), train.examples["label"][0].as_py()))
    },
)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], dict[str, Any]]:
    """Return the function that runs the stage in tmp_path and returns its metrics; `run.loaded` are the folders."""
    monkeypatch.chdir(tmp_path)
    for folder in (layout.CORPUS, layout.TOKENIZED):
        folder.mkdir(parents=True)
    for name, columns in TABLES.items():
        pq.write_table(pa.table(columns), layout.table_file(layout.CORPUS, name))
        with pa.ipc.new_stream(str(layout.features_file(name)), FEATURES.schema) as writer:
            writer.write_table(FEATURES.slice(0, 1) if name == "documents" else FEATURES)
    write_json(layout.TARGET, None)

    def go(base_is_baseline: bool) -> dict[str, Any]:
        go.loaded = []  # type: ignore[attr-defined]

        def load_model(folder: Path) -> Model:
            go.loaded.append(folder)  # type: ignore[attr-defined]
            return Model(folder == layout.TRAINED)

        scoring = SimpleNamespace(**vars(SCORING), base_is_baseline=lambda folder: base_is_baseline)
        parts = {
            "loading": SimpleNamespace(load_model=load_model),
            "metrics": SimpleNamespace(LOWER_IS_BETTER=("examples", "not scored")),
            "scoring": scoring,
        }
        declared = SimpleNamespace(task="made-here", numerics="fast", threads=None, evaluate=SETTINGS)
        monkeypatch.setattr(evaluate.params, "load", {"evaluate": declared}.__getitem__)
        monkeypatch.setattr(evaluate.tasks, "module", lambda task, part: {"made-here": parts}[task][part])
        tokenizers = {layout.TRAINED: SimpleNamespace(pad_token_id=PAD)}
        monkeypatch.setattr(evaluate.AutoTokenizer, "from_pretrained", tokenizers.__getitem__)
        evaluate.main()
        return json.loads(layout.EVALUATION_METRICS.read_text())

    return go


def written() -> list[str]:
    return sorted(path.name for path in layout.EVALUATION.iterdir())


def test_the_base_model_is_a_baseline_where_the_task_says_so(
    run: Any, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = run(True)
    assert run.loaded == [layout.TRAINED, layout.WEIGHTS]
    # By hand: trained, the answers are 0 and 1; before, 0 and 0, as everything of the first label.
    share = {"validation": (1.0, 0.5), "test": (0.5, 0.0)}
    for split, (after, before) in share.items():
        assert metrics[split]["share"] == after
        assert metrics["baselines"][split] == {
            "first_of_train": {"share": before, "examples": 2},
            "before_training": {"share": before, "examples": 2},
        }
    assert written() == [
        "errors.json",
        "metrics.json",
        "nothing.csv",
        "outcomes.csv",
        "slices.csv",
    ]
    # For each example, the prediction before training comes before the one after it.
    outcomes = (layout.EVALUATION / "outcomes.csv").read_text().splitlines()
    assert outcomes[0] == '"split","model","id","right"'
    said = list(csv.reader(outcomes[1:]))
    assert [line[1] for line in said] == ["before training", "trained"] * 4
    assert [line[2] for line in said] == ["v0", "v0", "v2", "v2", "t0", "t0", "t2", "t2"]
    assert [line[3] for line in said if line[1] == "trained" and line[0] == "validation"] == ["1", "1"]
    assert [line[3] for line in said if line[1] == "before training" and line[2] == "v2"] == ["0"]
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("evaluate:")]
    assert lines[1].startswith("evaluate: test: share 0.5000 [")
    assert lines[1].endswith("]; baselines: first of train 0.0000, before training 0.0000")


def test_a_base_model_that_cannot_do_the_task_is_not_run(run: Any) -> None:
    metrics = run(False)
    assert run.loaded == [layout.TRAINED]
    assert list(metrics["baselines"]["test"]) == ["first_of_train"]
    assert written() == ["errors.json", "metrics.json", "nothing.csv", "outcomes.csv", "slices.csv"]


def test_each_score_has_an_interval_if_it_has_statistics(run: Any) -> None:
    metrics = run(False)
    assert (metrics["headline"], metrics["confidence"]) == ("share", 0.9)
    assert metrics["lower_is_better"] == ["examples"]  # of those that there are
    # Resampling two examples, one of them right, gives 0 and 1 a quarter of the time each.
    assert metrics["test"] == {"share": 0.5, "share_low": 0.0, "share_high": 1.0, "examples": 2}
    assert metrics["validation"] == {"share": 1.0, "share_low": 1.0, "share_high": 1.0, "examples": 2}


def test_predictions_and_errors_are_the_trained_models(run: Any) -> None:
    run(True)
    assert pq.read_table(layout.PREDICTIONS).to_pylist() == [
        {"split": "validation", "id": "v0", "references": 0, "predictions": 0},
        {"split": "validation", "id": "v2", "references": 1, "predictions": 1},
        {"split": "test", "id": "t0", "references": 1, "predictions": 0},
        {"split": "test", "id": "t2", "references": 1, "predictions": 1},
    ]
    assert json.loads(layout.EVALUATION_ERRORS.read_text()) == [{"id": "t0", "most": 1}]


def test_examples_and_features_are_read_by_table_and_shared(run: Any) -> None:
    run(False)
    assert list(splits.load_shared()) == ["documents"]
    assert splits.load_shared()["documents"].examples["id"].to_pylist() == ["d0"]
    validation = splits.load("validation")
    assert validation.examples["id"].to_pylist() == ["v0", "v2"]
    assert validation.features == FEATURES


def test_slices_are_those_of_the_trained_models_test_split(run: Any) -> None:
    run(True)
    assert (layout.EVALUATION / "slices.csv").read_text().splitlines() == [
        '"slicing","slice","examples","metric","score","low","high","rest","p_value","worse"',
        '"id","t0",1,"share",0.0,0.0,0.0,1.0,"",False',
        '"id","t2",1,"share",1.0,1.0,1.0,0.0,"",False',
        '"train","r0",1,"share",0.0,0.0,0.0,1.0,"",False',
        '"train","r2",1,"share",1.0,1.0,1.0,0.0,"",False',
    ]
    [first, *_] = records.read_rows(layout.EVALUATION / "slices.csv", ",")
    assert (first["slice"], first["p_value"], first["worse"]) == ("t0", None, False)


# --- batches ------------------------------------------------------------------------------------------------------


def test_all_inputs_are_padded_and_batches_sorted_by_length() -> None:
    ids, types = [[5], [5, 6, 7], [], [5, 6]], [[1], [0, 1, 1], [], [1, 0]]
    lists = pa.list_(pa.int32())
    features = pa.table({"input_ids": pa.array(ids, lists), "token_type_ids": pa.array(types, lists), "x": range(4)})
    seen: list[dict[str, Any]] = []

    def forward(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        assert {array.dtype for array in inputs.values()} == {np.dtype(np.int64)}
        seen.append({name: array.tolist() for name, array in inputs.items()})
        return {"sums": inputs["input_ids"].sum(1), "lengths": inputs["attention_mask"].sum(1)}

    found = list(inference.forward_batches(features, forward, PAD, 2))

    assert [rows.tolist() for rows, _ in found] == [[1, 3], [0]]
    assert seen == [
        {
            "attention_mask": [[1, 1, 1], [1, 1, 0]],
            "input_ids": [[5, 6, 7], [5, 6, PAD]],
            "token_type_ids": [[0, 1, 1], [1, 0, 0]],
        },
        {"attention_mask": [[1]], "input_ids": [[5]], "token_type_ids": [[1]]},
    ]
    assert [outputs["lengths"].tolist() for _, outputs in found] == [[3, 2], [1]]
    chunks = pa.concat_tables([features.slice(0, 1), features.slice(1, 2), features.slice(3)])
    again = list(inference.forward_batches(chunks.slice(1), forward, PAD, 3))
    assert [rows.tolist() for rows, _ in again] == [[0, 2]]
    assert again[0][1]["sums"].tolist() == [18, 11 + PAD]


class Ahead:
    """A forward that launches a batch before its outputs are asked for, and notes what happens when."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def __call__(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"ids": inputs["input_ids"]}

    def launch(self, inputs: dict[str, np.ndarray]) -> Any:
        first = int(inputs["input_ids"][0, 0])
        self.events.append(f"launch {first}")
        if first == 13:
            raise MemoryError

        def outputs() -> dict[str, np.ndarray]:
            self.events.append(f"fetch {first}")
            return self(inputs)

        return outputs


def lengths_that_fall(count: int) -> pa.Table:
    ids = [[10 + row] * (count - row) for row in range(count)]
    return pa.table({"input_ids": pa.array(ids, pa.list_(pa.int32()))})


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_the_next_batch_is_launched_before_outputs_are_taken(count: int) -> None:
    forward, features = Ahead(), lengths_that_fall(count)
    found = []
    for rows, outputs in inference.forward_batches(features, forward, PAD, 1):
        forward.events.append(f"take {outputs['ids'][0, 0]}")
        found.append((rows.tolist(), outputs["ids"].tolist()))
    if count == 3:
        first, second = ["launch 10", "launch 11", "fetch 10", "take 10"], ["launch 12", "fetch 11", "take 11"]
        assert forward.events == [*first, *second, "fetch 12", "take 12"]
    assert len(forward.events) == 3 * count
    plain = inference.forward_batches(features, forward.__call__, PAD, 1)
    assert found == [(rows.tolist(), outputs["ids"].tolist()) for rows, outputs in plain]


def test_a_batch_error_is_raised_at_launch_and_launches_no_more() -> None:
    with pytest.raises(MemoryError):
        list(inference.forward_batches(lengths_that_fall(6), Ahead(), PAD, 1))
    forward = Ahead()
    found = inference.forward_batches(lengths_that_fall(6), forward, PAD, 1)
    next(found)
    found.close()  # type: ignore[attr-defined]
    assert forward.events == ["launch 10", "launch 11", "fetch 10"]


def test_tensors_are_sent_and_fetched_as_arrays() -> None:
    sent = send({"input_ids": torch.arange(3)}, torch.device("meta"))
    assert {name: (tensor.device.type, tensor.shape) for name, tensor in sent.items()} == {"input_ids": ("meta", (3,))}
    given = [torch.ones(2, 3, requires_grad=True), torch.arange(3)]
    found = fetch(given)()
    assert [(array.dtype, array.tolist()) for array in found] == [
        (np.float32, [[1.0] * 3] * 2),
        (np.int64, [0, 1, 2]),
    ]


def test_a_torch_model_gives_fp32_outputs_without_gradients() -> None:
    class Half(Model):
        def forward(self, **inputs: torch.Tensor) -> dict[str, Any]:
            assert not self.training
            values = self.weight * inputs["input_ids"].to(torch.bfloat16)
            return {"start_logits": values, "end_logits": -values, "loss": None, "attentions": (values,)}

    model = Half(True)
    model.weight = torch.nn.Parameter(torch.tensor(2.0, dtype=torch.bfloat16))
    found = inference.torch_forward(model.train())({"input_ids": np.array([[1, 2]])})  # type: ignore[arg-type]
    assert {name: (array.dtype, array.tolist()) for name, array in found.items()} == {
        "start_logits": (np.float32, [[2.0, 4.0]]),
        "end_logits": (np.float32, [[-2.0, -4.0]]),
    }


# --- tables of token classification -------------------------------------------------------------------------------


def test_tables_of_a_split_that_has_no_entity_are_written_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def predictions(labels: list[str], found: list[str]) -> pa.Table:
        words = {"id": ["0"], "tokens": [["a", "b"]], "references": [labels], "predictions": [found]}
        return pa.table(words | {"confidences": [[0.5, 0.5]]})

    monkeypatch.chdir(tmp_path)
    predicted = {
        "validation": predictions(["O", "O"], ["O", "O"]),
        "test": predictions(["B-PER", "O"], ["B-PER", "B-PER"]),
    }
    tables = evaluate.all_tables(scoring, predicted, {}, ["O", "B-PER"], SETTINGS)
    evaluate.write(predicted, {}, {}, tables, [])
    assert (layout.EVALUATION / "per_label.csv").read_text().splitlines() == [
        '"split","label","precision","recall","f1","support"',
        '"test","PER",0.5,1.0,0.6666666666666666,1',
    ]
    assert (layout.EVALUATION / "confusion.csv").read_text().splitlines() == [
        '"split","reference","prediction","count"',
        '"validation","O","O",2',
        '"test","O","PER",1',
        '"test","PER","PER",1',
    ]


def test_tables_hold_any_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": "one\rtwo", "count": 1}, {"prompt": 'a,"b"\n' + "long " * 50_000, "count": 2}]
    evaluate.write({"test": pa.table({"id": ["0"]})}, {}, {}, {"samples": rows}, [])
    assert records.read_rows(layout.EVALUATION / "samples.csv", ",") == rows
