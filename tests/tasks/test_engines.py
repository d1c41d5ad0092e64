"""What holds for every task, whichever engine trains it: the same losses; killed and resumed, the same bytes."""

import itertools
import json
import re
import threading
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from safetensors.numpy import load
from toy_training import ENGINES, configure, curve, trained
from toys import projects
from transformers import AutoTokenizer, BertForSequenceClassification, BertModel

from finetrail import layout, params, tasks
from finetrail.training import four_bits, prefetch
from finetrail.training.logger import TrainingLogger
from stages import download_corpus, download_model, tokenize, train

pytestmark = pytest.mark.usefixtures("restored_torch")


class Killed(Exception):
    """In place of a signal."""


@pytest.fixture(scope="module")
def tokenized(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Path]]:
    """Return the function that enters the project of a task, with features."""
    with projects(
        request, download_corpus, download_model, tokenize, checkpoint_every="2 updates", epochs=2.0
    ) as enter:
        yield enter


@pytest.fixture(params=tasks.names())
def task(request: pytest.FixtureRequest, tokenized: Callable[[str], Path]) -> str:
    tokenized(request.param)
    return str(request.param)


def test_both_engines_have_the_same_losses_and_results(task: str) -> None:
    one, other = (trained(task, engine=engine) for engine in ENGINES)
    assert one.keys() == other.keys()
    assert len(curve(one, "train/loss")) > 2
    for path in one:
        if path.endswith(".tsv"):
            name = path.removeprefix("metrics/train/plots/metrics/").removesuffix(".tsv")
            assert curve(one, name) == pytest.approx(curve(other, name), rel=1e-5, abs=1e-5), name
    kept = [
        name
        for name in one
        if name.startswith("data/trained/") and not name.endswith((".safetensors", "training.json"))
    ]
    assert [one[name] for name in kept] == [other[name] for name in kept]
    records = [json.loads(files["data/trained/training.json"]) for files in (one, other)]
    differing = {key for key in records[0] if records[0][key] != records[1][key]}
    assert differing <= {"engine", "best_value"}
    assert records[0]["best_value"] == pytest.approx(records[1]["best_value"], abs=1e-5)


def test_a_run_killed_repeatedly_ends_with_the_same_bytes(
    task: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    engine = ENGINES[tasks.names().index(task) % 2]  # of which the one knows nothing of tasks that the other does not
    undisturbed = trained(task, engine=engine)
    updated = TrainingLogger.updated
    for last in itertools.count(3, 2):

        def kill(self: TrainingLogger, update: int, last: int = last) -> None:
            updated(self, update)
            if update >= last:
                raise Killed

        monkeypatch.setattr(TrainingLogger, "updated", kill)
        try:
            files = trained(task, engine=engine)
            break
        except Killed:
            assert list(layout.SCRATCH.glob("train/*/checkpoint-*"))
    assert last > 5, "training was too short to be killed twice"
    assert re.search(r"resumes from the checkpoint after update \d+ of \d+", capfd.readouterr().err)
    assert files == undisturbed
    assert not (layout.SCRATCH / "train").exists()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_killed_in_its_first_epoch_resumes(
    tokenized: Callable[[str], Path], engine: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    tokenized("text_classification")
    updated = TrainingLogger.updated

    def kill(self: TrainingLogger, update: int) -> None:
        updated(self, update)
        if update == 3:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(TrainingLogger, "updated", kill)
        with pytest.raises(Killed):
            trained("text_classification", engine=engine)
    trained("text_classification", engine=engine)
    printed = capfd.readouterr().err
    assert "resumes from the checkpoint after update 2 of" in printed
    assert "skipped" not in printed


@pytest.mark.parametrize("engine", ENGINES)
def test_patience_survives_a_kill(
    tokenized: Callable[[str], Path], engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenized("text_classification")
    scores = tasks.module("text_classification", "validation")
    monkeypatch.setattr(scores, "validate", lambda *_: {"accuracy": 0.5})
    changes = {"engine": engine, "epochs": 9.0, "patience": 2}
    undisturbed = trained("text_classification", **changes)
    record = json.loads(undisturbed["data/trained/training.json"])
    assert (record["stopped_early"], record["epochs_done"]) == (True, 3.0)
    updates_per_epoch, updated = record["updates"] // 3, TrainingLogger.updated

    def kill(self: TrainingLogger, update: int) -> None:
        updated(self, update)
        if update == 2 * updates_per_epoch + 1:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(TrainingLogger, "updated", kill)
        with pytest.raises(Killed):
            trained("text_classification", **changes)
    assert trained("text_classification", **changes) == undisturbed
    configure("text_classification", epochs=2.0, patience=None)  # as the other tests have it


@pytest.mark.parametrize("engine", ENGINES)
def test_prefetched_batches_give_the_same_bytes_after_a_kill(
    tokenized: Callable[[str], Path], engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenized("masked_lm")
    undisturbed = trained("masked_lm", engine=engine)
    started = []

    def ahead(batches: Any) -> Any:
        started.append(batches)
        return prefetch.made_ahead(batches)

    def kill(self: TrainingLogger, update: int) -> None:
        if update == 3:
            assert any(thread.name.startswith("batches") for thread in threading.enumerate())
            raise Killed

    for module in ("loop", "trainer"):
        monkeypatch.setattr(f"finetrail.training.{module}.prefetched", ahead)
    with monkeypatch.context() as patch:
        patch.setattr(TrainingLogger, "updated", kill)
        with pytest.raises(Killed):
            trained("masked_lm", engine=engine)
    assert not any(thread.name.startswith("batches") for thread in threading.enumerate())
    assert trained("masked_lm", engine=engine) == undisturbed
    assert len(started) == 1 + 2  # an epoch that is killed; the rest of it; the other one
    assert not any(thread.name.startswith("batches") for thread in threading.enumerate())


def test_a_killed_run_resumes_with_the_batch_size_that_fitted(
    tokenized: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    tokenized("text_classification")
    forward, updated = BertForSequenceClassification.forward, TrainingLogger.updated

    def limited(self: Any, input_ids: torch.Tensor, **others: Any) -> Any:
        if self.training and len(input_ids) > 2:
            raise torch.OutOfMemoryError
        return forward(self, input_ids, **others)

    def kill(self: TrainingLogger, update: int) -> None:
        updated(self, update)
        if update == 3:
            raise Killed

    monkeypatch.setattr(BertForSequenceClassification, "forward", limited)
    undisturbed = trained("text_classification")
    with monkeypatch.context() as patch:
        patch.setattr(TrainingLogger, "updated", kill)
        with pytest.raises(Killed):
            trained("text_classification")
    capfd.readouterr()
    assert trained("text_classification") == undisturbed
    printed = capfd.readouterr().err
    assert "resumes from the checkpoint after update 2 of" in printed
    assert "out of memory" not in printed


def test_retrieval_out_of_memory_encodes_as_micro_batch_would(
    tokenized: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    tokenized("retrieval")
    expected = trained("retrieval", engine="accelerate", micro_batch=2)
    assert "out of memory" not in capfd.readouterr().err
    forward = BertModel.forward

    def limited(self: Any, input_ids: torch.Tensor, **others: Any) -> Any:
        if self.training and len(input_ids) > 2:
            raise torch.OutOfMemoryError
        return forward(self, input_ids, **others)

    monkeypatch.setattr(BertModel, "forward", limited)
    halved = trained("retrieval", engine="accelerate", micro_batch=None)
    records = [json.loads(files.pop("data/trained/training.json")) for files in (halved, expected)]
    assert [record["piece_size"] for record in records] == [2, 2]
    assert halved == expected
    assert "out of memory: trying again with at most 2 features at once" in capfd.readouterr().err


def test_fp32_stays_fp32_whatever_accelerate_is_configured_to(
    tokenized: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenized("text_classification")
    for engine in ENGINES:
        plain = trained("text_classification", engine=engine, epochs=0.5)
        with monkeypatch.context() as patch:
            patch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
            assert trained("text_classification", engine=engine, epochs=0.5) == plain
    configure("text_classification", epochs=2.0)  # for the next test


def test_padding_of_the_last_batches_over_processes_counts_0(task: str) -> None:
    declared = params.load("train")
    module = tasks.module(task, "modeling")
    features = train.load_features("train").select(range(3))
    tokenizer = AutoTokenizer.from_pretrained(layout.USED_TOKENIZER)
    run = train.Run(
        task=module,
        collator=module.build_collator(tokenizer, declared.train),
        train=train.select_columns(features, module.COLUMNS),
        validation=features,
        validate=lambda reduced: {},
        settings=declared.train.model_copy(update={"batch_size": 2}),
        seed=1,
        scratch=Path("unused"),
        micro_batch_size=2,
    )
    processes = [SimpleNamespace(process_index=process, num_processes=4, distributed_type="NO") for process in range(4)]
    batches = [list(run.loader(cast(Any, process))) for process in processes]
    assert [len(of_one) for of_one in batches] == [1, 1, 1, 1]
    assert [int(batch["num_items"].sum()) > 0 for [batch] in batches] == [True, True, False, False]


@pytest.mark.parametrize("task", ["retrieval", "text_classification", "text_generation"], indirect=True)
def test_adapters_train_alike_by_both_engines_into_a_plain_model(task: str) -> None:
    lora = {"rank": 2, "alpha": 4.0, "dropout": 0.1, "target_modules": None, "keep": True, "quantize": None}
    plain = trained(task, engine="trainer", lora=None)
    one, other = (trained(task, engine=engine, lora=lora, gradient_checkpointing=True) for engine in ENGINES)
    configure(task, lora=None, gradient_checkpointing=False)  # for the next test
    assert curve(one, "train/loss") == pytest.approx(curve(other, "train/loss"), rel=1e-5, abs=1e-5)
    assert curve(one, "train/loss") != curve(plain, "train/loss")
    model = "data/trained/model.safetensors"
    assert load(one[model]).keys() == load(plain[model]).keys()
    record = json.loads(one["data/trained/training.json"])
    assert 0 < record["parameters_trained"] < json.loads(plain["data/trained/training.json"])["parameters_trained"]


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs `pip install bitsandbytes`")
@pytest.mark.parametrize("engine", ENGINES)
def test_adapters_on_4_bit_weights_survive_a_kill(
    tokenized: Callable[[str], Path], engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenized("token_classification")
    monkeypatch.setattr(four_bits, "device", lambda spread: torch.device("cpu"))
    lora = {"rank": 2, "alpha": 4.0, "dropout": 0.1, "target_modules": None, "keep": False}
    plain = trained("token_classification", engine=engine, lora=lora | {"quantize": None})
    undisturbed = trained("token_classification", engine=engine, lora=lora | {"quantize": "nf4"})
    updated = TrainingLogger.updated

    def kill(self: TrainingLogger, update: int) -> None:
        updated(self, update)
        if update == 3:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(TrainingLogger, "updated", kill)
        with pytest.raises(Killed):
            trained("token_classification")
    [checkpoint] = layout.SCRATCH.glob("train/*/checkpoint-*")
    held = load((checkpoint / "model.safetensors").read_bytes())
    assert trained("token_classification") == undisturbed
    configure("token_classification", engine="trainer", lora=None)  # for the next test
    model = "data/trained/model.safetensors"
    whole = load(plain[model])
    assert {name: weight.shape for name, weight in load(undisturbed[model]).items()} == {
        name: weight.shape for name, weight in whole.items()
    }
    assert any("lora_A" in name for name in held) and not any("base_layer.weight" in name for name in held)
    assert undisturbed[model] != plain[model]
    records = [json.loads(files["data/trained/training.json"]) for files in (plain, undisturbed)]
    assert records[0]["parameters"] == records[1]["parameters"] == sum(weight.size for weight in whole.values())


def test_another_setting_never_meets_an_old_checkpoint(
    tokenized: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    tokenized("text_classification")

    def kill(self: TrainingLogger, update: int) -> None:
        if update == 4:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(TrainingLogger, "updated", kill)
        with pytest.raises(Killed):
            trained("text_classification", lr=0.02)
    capfd.readouterr()
    trained("text_classification", lr=0.03)
    assert "goes on" not in capfd.readouterr().err


@pytest.mark.slow  # the compiler takes its time
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch 2.13's own
def test_a_compiled_model_trains_to_the_same_losses(tokenized: Callable[[str], Path]) -> None:
    tokenized("text_classification")
    settings = {"epochs": 0.3, "lr": 1e-3}
    eager, compiled = (trained("text_classification", execution=way, **settings) for way in ("eager", "compile"))
    configure("text_classification", execution="eager")  # for the next test
    assert curve(compiled, "validation/loss") == pytest.approx(curve(eager, "validation/loss"), abs=0.05)
    assert (
        load(compiled["data/trained/model.safetensors"]).keys() == load(eager["data/trained/model.safetensors"]).keys()
    )
