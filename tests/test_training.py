"""Training a tiny model: the same bytes from the same seed, the best checkpoint, honest curves, errors in one line."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from accelerate.state import AcceleratorState
from conftest import NO_FEATURES, PLAIN_LOSS, Sentence, toy_settings
from datasets import Dataset
from ruamel.yaml import YAML
from safetensors.torch import load_file, save, save_file
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoTokenizer, BertForTokenClassification

from finetrail import training
from finetrail.encoding.tokenizer import load_tokenizer
from finetrail.errors import UserError
from finetrail.labels import IGNORE_INDEX
from finetrail.tasks.token_classification import encoding, loading, modeling
from finetrail.tasks.token_classification import validation as task_validation
from finetrail.tasks.token_classification.settings import Tokenize, Train
from finetrail.training import batching, logger
from finetrail.training.determinism import make_deterministic
from finetrail.training.trackers import Trackers
from stages import download_corpus, download_model, evaluate, tokenize, train

pytestmark = pytest.mark.usefixtures("restored_torch")

NAMES = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
TRAIN_SENTENCES = 48  # of 64: 6 updates an epoch, in batches of 8
UPDATES = 6
SETTINGS = Train(**toy_settings(**PLAIN_LOSS))

Run = Callable[..., tuple[Any, dict[str, Any]]]


@pytest.fixture(scope="module")
def base_model(tiny_base_model: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base_model(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def features(base_model: Path, toy_sentences: list[Sentence]) -> dict[str, pa.Table]:
    settings = Tokenize(engine="local", num_proc=1, max_length=32, stride=4, label_subwords="first", limit=None)
    encoder = encoding.Encoder(load_tokenizer(base_model / "tokenizer", 32, pre_split=True), NAMES, settings)
    tokens, labels = zip(*toy_sentences, strict=True)
    table = encoder.encode(pa.table({"tokens": tokens, "labels": labels}), np.arange(len(tokens)))
    in_train = pc.less(table["example"], TRAIN_SENTENCES)
    return {"train": table.filter(in_train), "validation": table.filter(pc.invert(in_train))}


@pytest.fixture(params=train.ENGINES)
def run(request: pytest.FixtureRequest, base_model: Path, features: dict[str, pa.Table], tmp_path: Path) -> Run:
    """Return the function that trains with the toy settings and changes to them, in tmp_path / "scratch"."""

    def go(
        seed: int = 0,
        validation: Any = None,
        reduce: Any = modeling.reduce,
        dropout: bool = True,
        tracked: tuple[str, ...] = (),
        **changes: Any,
    ) -> tuple[Any, dict[str, Any]]:
        shutil.rmtree(tmp_path / "scratch", ignore_errors=True)
        AcceleratorState._reset_state(reset_partial_state=True)  # of the last run, in another precision
        settings = Train(**toy_settings(**PLAIN_LOSS | {"engine": request.param} | changes))
        models = []

        def build() -> Any:
            make_deterministic(seed)
            model = modeling.build_model(base_model / "weights", NAMES, settings, NO_FEATURES)
            for module in model.modules():
                if isinstance(module, torch.nn.Dropout) and not dropout:
                    module.p = 0.0
            models.append(model)
            return model

        def validate(kept: Any) -> dict[str, float]:
            if validation:
                return validation(models[-1], kept)
            return task_validation.validate(kept, features["validation"], NAMES)

        return train.fit(
            build,
            training.run.Run(
                task=SimpleNamespace(**vars(modeling) | {"reduce": reduce}),  # type: ignore[arg-type]
                collator=modeling.build_collator(AutoTokenizer.from_pretrained(base_model / "tokenizer"), settings),
                train=train.select_columns(Dataset(features["train"]), modeling.COLUMNS),
                validation=train.select_columns(Dataset(features["validation"]), modeling.COLUMNS),
                validate=validate,
                lower_is_better=("loss", "perplexity"),
                settings=settings,
                seed=seed,
                scratch=tmp_path / "scratch",
                micro_batch_size=settings.batch_size,
                trackers=Trackers(list(tracked), "task", "recipe", settings.model_dump(mode="json")),
            ),
        )

    return go


@pytest.fixture
def curve(tmp_path: Path) -> Callable[[str], dict[int, float]]:
    """Return the function that reads a curve of the last run: step -> value."""

    def read(name: str) -> dict[int, float]:
        lines = (tmp_path / "scratch/history/plots/metrics" / f"{name}.tsv").read_text().splitlines()
        assert lines[0] == f"step\t{Path(name).name}"
        return {int(step): float(value) for step, value in (line.split("\t") for line in lines[1:])}

    return read


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


# --- determinism --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("run", "batching"), [("trainer", "length"), ("accelerate", "random")], indirect=["run"])
def test_a_seed_repeats_its_bytes_and_another_does_not(run: Run, batching: str) -> None:
    first, again, other = (save(weights(run(seed, batching=batching, epochs=1.0)[0])) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_determinism_is_required_and_new_tensors_are_left_alone() -> None:
    make_deterministic(3)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    drawn = torch.rand(3), np.random.rand(3)
    make_deterministic(3)
    assert torch.equal(torch.rand(3), drawn[0])
    assert (np.random.rand(3) == drawn[1]).all()


# --- what is learned, and what is kept ----------------------------------------------------------------------------


def test_the_toy_corpus_is_learned(run: Run, curve: Any) -> None:
    _, record = run(epochs=10.0)
    losses = list(curve("train/loss").values())
    assert losses[-1] < 0.1 * losses[0]
    assert record["best_value"] > 0.95
    assert record["best_value"] == max(curve("validation/f1").values())


def test_the_best_epoch_is_returned_and_not_the_last(run: Run, curve: Any) -> None:
    seen: list[dict[str, torch.Tensor]] = []

    def scripted(model: Any, kept: Any) -> dict[str, float]:
        seen.append(weights(model))
        return {"f1": [0.1, 0.9, 0.9, 0.3][len(seen) - 1]}

    model, record = run(validation=scripted, epochs=4.0)
    assert [equal(weights(model), epoch) for epoch in seen] == [False, True, False, False]
    assert (record["best_value"], record["best_update"]) == (0.9, 2 * UPDATES)
    assert curve("validation/f1") == {UPDATES: 0.1, 2 * UPDATES: 0.9, 3 * UPDATES: 0.9, 4 * UPDATES: 0.3}


def test_the_lowest_loss_is_the_best(run: Run, curve: Any) -> None:
    def spoil(model: Any, kept: Any) -> dict[str, float]:
        model.classifier.weight.data.mul_(100)
        return {"f1": 0.5}

    _, record = run(validation=spoil, epochs=2.0, best_metric="loss", lr=1e-6)
    losses = curve("validation/loss")
    assert losses[UPDATES] < losses[2 * UPDATES]
    assert (record["best_value"], record["best_update"]) == (losses[UPDATES], UPDATES)


@pytest.mark.parametrize(
    ("run", "best_metric", "best"), [("trainer", "perplexity", 2), ("accelerate", "recall@10", 3)], indirect=["run"]
)
def test_the_best_is_the_lowest_perplexity_or_highest_score(run: Run, best_metric: str, best: int) -> None:
    values = [40.0, 9.5, 80.0]
    epochs = iter(values)
    _, record = run(validation=lambda *_: {best_metric: next(epochs)}, epochs=3.0, best_metric=best_metric)
    assert (record["best_value"], record["best_update"]) == (values[best - 1], best * UPDATES)


@pytest.mark.parametrize(
    ("run", "eval_batch_size"), [("trainer", 7), ("accelerate", 1), ("accelerate", 64)], indirect=["run"]
)
def test_validation_gets_the_reduced_outputs_in_feature_order(
    run: Run, features: dict[str, pa.Table], eval_batch_size: int
) -> None:
    seen: list[Any] = []

    def keep(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return logits.argmax(-1), (labels != IGNORE_INDEX).sum(-1)

    def validation(model: Any, kept: Any) -> dict[str, float]:
        ids, counts = kept
        with torch.inference_mode():
            for row, feature in enumerate(features["validation"].to_pylist()):
                alone = model(torch.tensor([feature["input_ids"]], device=model.device)).logits[0].argmax(-1)
                assert ids[row, : len(alone)].tolist() == alone.tolist()
                assert (ids[row, len(feature["input_ids"]) :] < len(NAMES)).all()
        seen.append(counts.tolist())
        return {"f1": 0.5}

    run(reduce=keep, validation=validation, epochs=1.0, eval_batch_size=eval_batch_size)
    words = features["validation"]["words"].to_pylist()
    assert seen == [[len(of_feature) for of_feature in words]]


def test_of_a_tagger_the_best_label_of_each_token_is_kept() -> None:
    logits = torch.tensor([[[0.1, 0.9], [0.7, 0.2]], [[0.5, 0.5], [-1.0, 0.0]]])
    kept = modeling.reduce(logits, torch.zeros(2, 2))
    assert kept.tolist() == [[1, 0], [0, 1]]
    assert kept.dtype == torch.int64


def test_without_a_better_epoch_it_stops_and_says_so(run: Run) -> None:
    values = iter([0.5, 0.4, 0.3, 0.9])
    _, record = run(validation=lambda *_: {"f1": next(values)}, epochs=4.0, patience=2)
    assert (record["stopped_early"], record["updates"], record["epochs_done"]) == (True, 3 * UPDATES, 3.0)
    assert (record["best_value"], record["best_update"]) == (0.5, UPDATES)


def test_while_nothing_is_right_and_the_loss_falls_it_goes_on(run: Run) -> None:
    values = iter([0.0, 0.0, 0.0, 0.0, 0.2])
    _, record = run(validation=lambda *_: {"f1": next(values)}, epochs=5.0, patience=1, lr=1e-4)
    assert (record["stopped_early"], record["best_value"], record["epochs_done"]) == (False, 0.2, 5.0)


def test_a_fraction_of_an_epoch_is_evaluated_and_kept(run: Run, curve: Any) -> None:
    model, record = run(epochs=0.5)
    assert (record["updates"], record["epochs_done"], record["stopped_early"]) == (3, 0.5, False)
    assert curve("validation/f1") == {3: record["best_value"]}
    assert record["best_update"] == 3
    run(epochs=1.5)
    assert list(curve("validation/f1")) == [UPDATES, 9]


def test_accumulated_steps_are_one_update_of_a_larger_batch(run: Run, curve: Any) -> None:
    found = []
    for batch_size, steps in ((8, 1), (2, 4)):
        changes = {"batch_size": batch_size, "gradient_accumulation": steps, "batching": "random", "warmup": 0.0}
        _, record = run(dropout=False, epochs=1.0, lr=1e-4, **changes)
        assert (record["effective_batch_size"], record["updates"]) == (8, UPDATES)
        found.append([list(curve(f"train/{name}").values()) for name in ("loss", "grad_norm")])
    (losses, norms), (accumulated_losses, accumulated_norms) = found
    assert accumulated_losses == pytest.approx(losses, rel=1e-5)
    assert accumulated_norms == pytest.approx(norms, rel=1e-4)


# --- curves and log lines -----------------------------------------------------------------------------------------


def test_curves_have_global_updates_and_no_timings(run: Run, curve: Any, tmp_path: Path) -> None:
    run(log_steps=5)
    history = tmp_path / "scratch/history"
    assert sorted(path.relative_to(history).as_posix() for path in history.rglob("*") if path.is_file()) == [
        "metrics.json",
        *(f"plots/metrics/train/{name}.tsv" for name in ("grad_norm", "loss", "lr")),
        *(
            f"plots/metrics/validation/{name}.tsv"
            for name in ("accuracy", "f1", "loss", "macro_f1", "precision", "recall")
        ),
    ]
    assert list(curve("train/loss")) == [1, 5, UPDATES, 10, 2 * UPDATES]  # at the end of an epoch too
    assert list(curve("validation/loss")) == [UPDATES, 2 * UPDATES]
    assert json.loads((history / "metrics.json").read_text()).keys() == {"train", "validation", "step"}


def test_tensorboard_gets_the_same_curves_and_changes_nothing(
    run: Run, curve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="an extra")
    plain = weights(run(log_steps=5)[0])
    monkeypatch.setattr(os, "environ", {**os.environ, "TENSORBOARD_LOGGING_DIR": str(tmp_path / "events")})
    assert equal(plain, weights(run(log_steps=5, tracked=("tensorboard",))[0]))
    [folder] = {path.parent for path in tmp_path.glob("events/task/recipe/*/events*")}
    events = reader.EventAccumulator(str(folder)).Reload()
    names = {"train/loss": "train/loss", "train/learning_rate": "train/lr", "train/grad_norm": "train/grad_norm"}
    scores = {
        f"eval/{name}": f"validation/{name}" for name in ("accuracy", "f1", "loss", "macro_f1", "precision", "recall")
    }
    assert sorted(events.Tags()["scalars"]) == sorted(names | scores)
    for theirs, ours in (names | scores).items():
        assert {event.step: event.value for event in events.Scalars(theirs)} == pytest.approx(curve(ours), rel=1e-6)


def test_equal_runs_have_equal_curves_and_records(run: Run, tmp_path: Path) -> None:
    found = []
    for _ in range(2):
        _, record = run()
        files = {path: path.read_bytes() for path in (tmp_path / "scratch/history").rglob("*") if path.is_file()}
        found.append((record, files))
    assert found[0] == found[1]


def test_curve_points_are_what_the_trainer_logs() -> None:
    logs = {"loss": 1.0, "learning_rate": 2e-5, "grad_norm": 3.0, "epoch": 0.5}
    assert logger.curve_points(logs) == {"train/loss": 1.0, "train/lr": 2e-5, "train/grad_norm": 3.0}
    assert logger.curve_points({"eval_loss": 0.1, "eval_f1": 0.5, "epoch": 1.0}) == {
        "validation/loss": 0.1,
        "validation/f1": 0.5,
    }
    assert logger.curve_points({"train_runtime": 9.0, "train_loss": 0.3, "total_flos": 1e9}) == {}


def test_an_epoch_is_one_line(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    values = iter([0.25, 0.5])
    run(validation=lambda *_: {"f1": next(values)})
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("train:")]
    assert len(lines) == 2
    assert lines[0].startswith("train: epoch 1 of 2: train loss ")
    assert lines[0].endswith(", f1 0.2500")
    assert ", validation loss " in lines[0]


def test_the_first_update_is_on_the_curve_however_short_the_run(run: Run, curve: Any) -> None:
    run(log_steps=1000, epochs=1.0)
    assert list(curve("train/loss")) == [1, UPDATES]


def test_labelled_is_exact_over_chunks_and_slices() -> None:
    rows = [[IGNORE_INDEX] * (i % 4) + ([i] if i % 3 == 0 else []) for i in range(25_000)]
    table = pa.table({"labels": pa.chunked_array([rows[:7], rows[7:12_345], rows[12_345:]])}).slice(3)
    expected = [row for row in rows[3:] if any(label != IGNORE_INDEX for label in row)]
    assert batching.labelled(Dataset(table))["labels"][:] == expected


@pytest.mark.parametrize(
    ("labels", "kept"),
    [
        (pa.array([[-100], None, [-100, 3], None, [-100, -100]], pa.list_(pa.int32())), [1, 2, 3]),  # null: to be drawn
        (pa.array([0, -100, 1, None, -100], pa.int64()), [0, 2, 3]),  # one for the whole text
        (pa.array([[0.0, 1.0], [0.0, 0.0], [-100.0], [], None], pa.list_(pa.float32())), [0, 1, 2, 3, 4]),
        (pa.array([0.5, -100.0, None, 1.0, 2.0]), [0, 1, 2, 3, 4]),
        (None, [0, 1, 2, 3, 4]),  # places of an answer, say, under other names
    ],
    ids=["a list", "a number", "floats", "a float", "none"],
)
def test_undrawn_or_non_integer_labels_stay(labels: pa.Array | None, kept: list[int]) -> None:
    ids = pa.array([[row] for row in range(5)], pa.list_(pa.int32()))
    columns = {"input_ids": ids} if labels is None else {"input_ids": ids, "labels": labels}
    table = pa.concat_tables([pa.table(columns).slice(0, 2), pa.table(columns).slice(2)])
    assert batching.labelled(Dataset(table))["input_ids"][:] == [[row] for row in kept]


def test_the_length_of_a_feature_is_that_of_all_its_texts() -> None:
    draw = np.random.default_rng(0)

    def text(least: int = 1) -> list[int]:
        return [7] * int(draw.integers(least, 6))

    rows = [
        {"example": row, "query_input_ids": text(), "positive_input_ids": text(0)}
        | {"negative_input_ids": [text() for _ in range(row % 4)], "labels": [1] * 9}
        for row in range(25_000)
    ]
    chunks = [pa.Table.from_pylist(part) for part in (rows[1:3], rows[3:12_345], rows[12_345:])]
    lengths = batching.feature_lengths(Dataset(pa.concat_tables(chunks).slice(1)))
    assert lengths.dtype == np.int64
    assert lengths.tolist() == [
        len(row["query_input_ids"]) + len(row["positive_input_ids"]) + sum(map(len, row["negative_input_ids"]))
        for row in rows[2:]
    ]
    # One text a feature, as most tasks have it.
    single = pa.table({"input_ids": [[1, 2], [], [3]], "token_type_ids": [[0, 0], [], [0]]})
    assert batching.feature_lengths(Dataset(single)).tolist() == [2, 0, 1]


def test_batches_hold_only_what_the_collator_takes() -> None:
    table = pa.table({"labels": [[1]], "example": [0], "input_ids": [[2]], "words": [[0]]})
    kept = train.select_columns(Dataset(table), modeling.COLUMNS)
    assert kept[0] == {"labels": [1], "input_ids": [2]}
    assert train.select_columns(Dataset(table), ("input_ids", "token_type_ids"))[0] == {"input_ids": [2]}


def out_of_memory(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Let the device hold no more than `most` features at once while it trains."""
    forward = BertForTokenClassification.forward

    def limited(self: Any, input_ids: torch.Tensor, **others: Any) -> Any:
        if self.training and len(input_ids) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return forward(self, input_ids, **others)

    monkeypatch.setattr(BertForTokenClassification, "forward", limited)


def test_out_of_memory_batches_run_as_micro_batches(
    run: Run, curve: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    _, record = run(dropout=False)
    whole = curve("train/loss")
    out_of_memory(monkeypatch, most=2)
    _, in_pieces = run(dropout=False)
    assert (record["piece_size"], in_pieces["piece_size"]) == (8, 2)
    assert record["effective_batch_size"] == in_pieces["effective_batch_size"] == 8
    assert curve("train/loss") == pytest.approx(whole, rel=1e-4)
    assert "out of memory: trying again with at most 4 features" in capfd.readouterr().err


def test_a_device_without_memory_is_told_in_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    out_of_memory(monkeypatch, most=0)
    with pytest.raises(UserError, match="out of memory with 1 features at once; expected a smaller batch_size"):
        run()


def test_out_of_memory_in_validation_is_told_as_such(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = BertForTokenClassification.forward

    def limited(self: Any, **inputs: Any) -> Any:
        if not self.training:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return forward(self, **inputs)

    monkeypatch.setattr(BertForTokenClassification, "forward", limited)
    with pytest.raises(UserError, match="features of validation at once; expected a smaller train.eval_batch_size"):
        run()


def test_features_without_a_label_are_left_out(features: dict[str, pa.Table]) -> None:
    table = features["train"].slice(0, 4)
    ignored = [[IGNORE_INDEX] * len(labels) for labels in table["labels"].to_pylist()]
    labels = pa.array(
        [table["labels"][0].as_py(), ignored[1], table["labels"][2].as_py(), ignored[3]], table["labels"].type
    )
    column = table.schema.get_field_index("labels")
    kept = batching.labelled(Dataset(table.set_column(column, "labels", labels)))
    assert kept["input_ids"][:] == [table["input_ids"][row].as_py() for row in (0, 2)]


# --- nothing waits for the device ---------------------------------------------------------------------------------


class Reads(TorchDispatchMode):
    """Notes the operations that need a tensor's values in Python, or sizes that depend on them: a GPU must finish."""

    WAITING = ("_local_scalar_dense", "nonzero", "unique", "masked_select", "equal", "is_nonzero")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name.startswith("index") and any(
            index is not None and index.dtype == torch.bool
            for part in args[1:2]
            if isinstance(part, (list, tuple))
            for index in part
        )
        if name in self.WAITING or by_mask:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def reads_by_update(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[int, list[str]]]:
    """Note what training reads before the end of each update, outside of the model."""
    forward, updated = BertForTokenClassification.forward, logger.TrainingLogger.updated
    by_update: dict[int, list[str]] = {}
    reads = Reads()

    def unseen(self: Any, **inputs: Any) -> Any:
        before = list(reads.found)
        outputs = forward(self, **inputs)
        reads.found[:] = before
        return outputs

    def note(self: logger.TrainingLogger, update: int) -> None:
        updated(self, update)
        by_update[update] = list(reads.found)
        reads.found.clear()

    def noted(name: str) -> Any:
        original = getattr(torch.Tensor, name)
        return lambda self, *args, **others: reads.found.append(name) or original(self, *args, **others)

    monkeypatch.setattr(train, "speed_up", lambda *_: None)  # for CPUs; its hooks index by masks
    monkeypatch.setattr(BertForTokenClassification, "forward", unseen)
    monkeypatch.setattr(logger.TrainingLogger, "updated", note)
    for name in ("cpu", "numpy", "tolist", "__array__"):  # of a CPU's tensor these are no operations
        monkeypatch.setattr(torch.Tensor, name, noted(name))
    with reads:
        yield by_update


@pytest.mark.parametrize(
    ("run", "changes"),
    [
        ("trainer", {}),
        ("accelerate", {}),
        ("trainer", {"batch_size": 2, "gradient_accumulation": 4}),
        ("accelerate", {"precision": "bf16"}),
    ],
    indirect=["run"],
)
def test_between_two_points_of_the_curve_nothing_is_read(
    run: Run, reads_by_update: dict[int, list[str]], changes: dict[str, Any]
) -> None:
    # The plain AdamW reads its steps, which it keeps on the CPU.
    run(epochs=2.0, log_steps=1000, checkpoint_every="1000 updates", optimizer="adamw_torch_fused", **changes)
    assert list(reads_by_update) == list(range(1, 2 * UPDATES + 1))
    # Before an epoch's first update its loader begins and the other epoch ends; after the first update is a point.
    inner = reads_by_update.keys() - {1, 2, UPDATES + 1}
    assert {update: reads_by_update[update] for update in inner} == dict.fromkeys(inner, [])


def test_each_point_of_the_curve_is_read(run: Run, reads_by_update: dict[int, list[str]]) -> None:
    run(epochs=1.0, log_steps=1, optimizer="adamw_torch_fused")
    assert all(reads_by_update[update] for update in range(2, UPDATES + 1))


@pytest.mark.parametrize(("run", "log_steps"), [("trainer", 1), ("accelerate", 1000)], indirect=["run"])
def test_a_loss_that_is_not_finite_stops_with_what_to_try(run: Run, log_steps: int) -> None:
    with pytest.raises(UserError, match=r"train: loss is nan at update \d+; expected a finite .* lower train.lr"):
        run(lr=1e30, log_steps=log_steps, warmup=0.0)


# --- precision ----------------------------------------------------------------------------------------------------


@pytest.fixture
def hardware(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def have(cuda: bool, bf16: bool) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: bf16)

    return have


@pytest.mark.parametrize("cuda", [False, True])
def test_auto_is_bf16_where_the_hardware_has_it(hardware: Any, cuda: bool) -> None:
    hardware(cuda, bf16=True)
    assert training.run.effective_precision("auto") == "bf16"
    hardware(cuda, bf16=False)
    assert training.run.effective_precision("auto") == "fp32"
    assert training.run.effective_precision("bf16") == "bf16"


def test_fp16_needs_cuda(hardware: Any, run: Run) -> None:
    hardware(cuda=True, bf16=False)
    assert training.run.effective_precision("fp16") == "fp16"
    hardware(cuda=False, bf16=True)
    with pytest.raises(UserError, match="train.precision: fp16 needs a CUDA device .* expected auto, fp32 or bf16"):
        run(precision="fp16")


def test_bf16_trains_weights_that_stay_fp32(run: Run) -> None:
    (model, record), (exact, _) = run(precision="bf16", epochs=1.0), run(precision="fp32", epochs=1.0)
    assert record["precision"] == "bf16"
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not equal(weights(model), weights(exact))


# --- the model ----------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(base_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base_model / "weights", tmp_path / "copied"))


def test_labels_stand_in_the_config(base_model: Path, tmp_path: Path) -> None:
    modeling.build_model(base_model / "weights", NAMES, SETTINGS, NO_FEATURES).save_pretrained(tmp_path / "tagger")
    model = loading.load_model(tmp_path / "tagger")
    assert model.config.id2label == dict(enumerate(NAMES))
    assert model.config.label2id == {name: index for index, name in enumerate(NAMES)}


def test_the_head_is_seeded_and_the_encoder_is_the_checkpoints(base_model: Path) -> None:
    heads = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        model = modeling.build_model(base_model / "weights", NAMES, SETTINGS, NO_FEATURES)
        heads.append(model.classifier.weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    embeddings = load_file(base_model / "weights/model.safetensors")["bert.embeddings.word_embeddings.weight"]
    assert torch.equal(model.bert.embeddings.word_embeddings.weight, embeddings)


def test_a_checkpoint_without_all_of_its_encoder_is_refused(copied: Path) -> None:
    tensors = load_file(copied / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if "layer.1.attention" not in name}
    save_file(kept, copied / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"copied: 10 weights of the encoder .* bert\.encoder\.layer\.1\.attention"):
        modeling.build_model(copied, NAMES, SETTINGS, NO_FEATURES)


def test_a_checkpoint_whose_encoder_has_other_shapes_is_refused(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"vocab_size": config["vocab_size"] + 7}))
    with pytest.raises(UserError, match=r"copied: 1 weights .* shape .* bert\.embeddings\.word_embeddings\.weight"):
        modeling.build_model(copied, NAMES, SETTINGS, NO_FEATURES)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_checkpoint_is_trained_in_fp32(copied: Path, dtype: torch.dtype) -> None:
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"dtype": str(dtype).removeprefix("torch.")}))
    half = {name: tensor.to(dtype) for name, tensor in load_file(copied / "model.safetensors").items()}
    save_file(half, copied / "model.safetensors", {"format": "pt"})
    model = modeling.build_model(copied, NAMES, SETTINGS, NO_FEATURES)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    model.save_pretrained(copied / "saved")
    assert {parameter.dtype for parameter in loading.load_model(copied / "saved").parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("label_names", "is_kept"),
    [
        (NAMES, True),
        ([*NAMES, "B-ORG"], False),
        (["O", "B-PER", "I-PER", "B-LOC", "I-LOC"], False),  # the same in another order: each row means something else
    ],
)
def test_another_taggers_head_is_kept_only_for_the_same_labels(
    base_model: Path, tmp_path: Path, label_names: list[str], is_kept: bool
) -> None:
    tagger = modeling.build_model(base_model / "weights", NAMES, SETTINGS, NO_FEATURES)
    torch.nn.init.constant_(tagger.classifier.weight, 7.0)
    tagger.save_pretrained(tmp_path / "tagger")
    model = modeling.build_model(tmp_path / "tagger", label_names, SETTINGS, NO_FEATURES)
    assert model.classifier.weight.shape == (len(label_names), 32)
    assert bool((model.classifier.weight == 7).any()) == is_kept
    assert model.classifier.weight.abs().max() <= (7 if is_kept else 1)
    assert model.config.id2label == dict(enumerate(label_names))
    assert equal(weights(model.bert), weights(tagger.bert))


def test_batches_are_padded_to_their_longest_without_labels(base_model: Path) -> None:
    collator = modeling.build_collator(AutoTokenizer.from_pretrained(base_model / "tokenizer"), SETTINGS)
    batch = collator(pa.table({"input_ids": [[2, 9, 3], [2, 3]], "labels": [[-100, 1, -100], [-100] * 2]}))
    assert batch["input_ids"].tolist() == [[2, 9, 3], [2, 3, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [[IGNORE_INDEX, 1, IGNORE_INDEX], [IGNORE_INDEX] * 3]


# --- the stages together ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("batching", "padding_side"), [("length", "left"), ("random", "right")])
def test_the_validation_score_of_training_is_that_of_evaluate(
    project: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, batching: str, padding_side: str
) -> None:
    checkpoint = Path(shutil.copytree(tiny_checkpoint, project.parent / "checkpoint"))
    config = json.loads((checkpoint / "tokenizer_config.json").read_text())
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(config | {"padding_side": padding_side}))
    path = project / "recipes/token_classification/toy.yaml"
    recipe = YAML().load(path)
    recipe["model"]["source"]["path"] = str(checkpoint)
    recipe["train"].update(batching=batching, epochs=3.0)
    recipe["tokenize"]["max_length"] = 10  # windows
    YAML().dump(recipe, path)
    monkeypatch.chdir(project)
    for stage in (download_corpus, download_model, tokenize, train, evaluate):
        stage.main()
    record = json.loads((project / "data/trained/training.json").read_text())
    scores = json.loads((project / "metrics/evaluation/metrics.json").read_text())["validation"]
    assert 0.2 < record["best_value"] == pytest.approx(scores["f1"], abs=1e-12)
    assert (project / "metrics/train/plots/metrics/validation/f1.tsv").is_file()
    assert not (project / ".scratch/train").exists()
    assert isinstance(loading.load_model(project / "data/trained"), BertForTokenClassification)
