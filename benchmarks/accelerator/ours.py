"""What the benchmark calls of the project's training: the one place to adapt where that changes."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

from finetrail import layout, numerics, stage, tasks

# In the words of the error of a run that cannot be recorded.
NO_GRAPHS = "train.execution: graphs needs"


class Enough(Exception):
    """Ends a training that has been measured, without its validation and checkpoint."""


def settings(execution: str = "auto", **changes: Any) -> dict[str, Any]:
    """Return the section train of a recipe, but for what a task adds; execution: auto, eager, graphs or compile."""
    return {
        "engine": "trainer",
        "lr": 1e-4,
        "epochs": 1.0,
        "batch_size": 8,
        "gradient_accumulation": 1,
        "weight_decay": 0.01,
        "warmup": 0.1,
        "schedule": "linear",
        "max_grad_norm": 1.0,
        "precision": "auto",
        "optimizer": "adamw_torch_fused",
        "batching": "length",
        "eval_batch_size": 32,
        "best_metric": "loss",
        "patience": None,
        "log_steps": 1,
        "layer_decay": 1.0,
        "unfreeze_layers": None,
        "checkpoint_every": None,
        "gradient_checkpointing": False,
        "lora": None,
        "execution": execution,
        "speedups": True,
    } | changes  # fmt: skip


def lacks(execution: str, device: str) -> str | None:
    """Return what this device has not of a way to train; or None."""
    return "a GPU" if execution == "graphs" and device == "cpu" else None


@contextmanager
def variant(padding: bool | None, deterministic: bool, updated: Callable[[Any], None]) -> Iterator[dict[str, str]]:
    """Train with or without padding (None: as by default), and call updated(logger) after each update.

    Gives what is to hold how the passes are executed.
    """
    import torch

    from finetrail.training import execution, packing
    from finetrail.training.logger import TrainingLogger
    from stages import train as train_stage

    own, chosen, make_deterministic = TrainingLogger.updated, execution.chosen, train_stage.make_deterministic
    ways: dict[str, str] = {}

    def logged(logger: Any, update: int) -> None:
        own(logger, update)
        updated(logger)

    def seeded(seed: int) -> None:
        make_deterministic(seed)
        torch.use_deterministic_algorithms(deterministic)

    def noted(*arguments: Any) -> Any:
        way = chosen(*arguments)
        ways.update(asdict(way))
        return way

    with ExitStack() as stack:
        stack.enter_context(patch.object(TrainingLogger, "updated", logged))
        stack.enter_context(patch.object(train_stage, "make_deterministic", seeded))
        stack.enter_context(patch.object(execution, "chosen", noted))
        if padding is not None:
            stack.enter_context(patch.object(packing, "applies", lambda *arguments: not padding))
        yield ways


def train(task_name: str, values: dict[str, Any], device: str, scratch: Path) -> None:
    """Train in the working folder's data/, as the train stage does, until the logger raises Enough."""
    from transformers import AutoTokenizer

    from stages import train as train_stage

    task = tasks.module(task_name, "modeling")
    declared = tasks.module(task_name, "settings").Train(**values)
    target = stage.read_json(layout.TARGET)
    features = {split: train_stage.load_features(split) for split in ("train", "validation")}
    shutil.rmtree(scratch, ignore_errors=True)
    run = train_stage.Run(
        task=task,
        collator=task.build_collator(AutoTokenizer.from_pretrained(layout.USED_TOKENIZER), declared),
        train=train_stage.select_columns(features["train"], task.COLUMNS),
        validation=train_stage.select_columns(features["validation"], task.COLUMNS),
        validate=lambda reduced: {},
        settings=declared,
        seed=0,
        scratch=scratch,
        micro_batch_size=declared.batch_size,
    )

    def build() -> Any:
        with drawn_on(device, task_name):
            return train_stage.build_model(task, target, declared, features["train"], 0)

    train_stage.fit(build, run)


def executions(device: str) -> list[str]:
    """Return how short runs are to be executed: by default, and recorded, which only long ones are by default."""
    return ["auto", "graphs"] if device == "cuda" else ["auto"]


def evaluates_in_tf32(device: str) -> bool:
    """Make this process multiply fp32 as TF32 where evaluation does; return True if it does."""
    if device == "cuda":
        numerics.use_tf32("fast")
    return device == "cuda"


@contextmanager
def drawn_on(device: str, task_name: str) -> Iterator[None]:
    """Draw the weights of a new model on the device: a large one takes a CPU many seconds."""
    import torch

    if task_name != "text_generation":
        yield
        return
    with torch.device(device):
        yield


def lengths_of_updates(task_name: str, batch_size: int) -> list[Any]:
    """Return the lengths of the features of each update of the first epoch, an array each."""
    from finetrail.training import batching
    from stages import train as train_stage

    columns = tasks.module(task_name, "modeling").COLUMNS
    lengths = batching.feature_lengths(train_stage.select_columns(train_stage.load_features("train"), columns))
    batches = batching.Batches(lengths, batch_size, grouped=True, seed=0)
    return [lengths[[row for row, _ in batch]] for batch in batches]
