"""What the two engines have in common: what they are given, and how a batch becomes gradients."""

import math
from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from accelerate import Accelerator
from datasets import Dataset

from finetrail.errors import UserError
from finetrail.numerics import multiplies_bf16
from finetrail.schema import MixedBatching, Train
from finetrail.training import graphs, patience, shards
from finetrail.training.batching import (
    MOST_PADDING,
    Batch,
    Batches,
    Collator,
    TrainLoader,
    feature_lengths,
    train_loader,
)
from finetrail.training.execution import Execution
from finetrail.training.mixing import Mixture
from finetrail.training.trackers import Trackers
from finetrail.transfers import send

HISTORY = "history"


@dataclass(frozen=True)
class Run:
    """One training, but for its model; scratch is this run's own, and keeps checkpoints and curves."""

    task: ModuleType  # its modeling.py
    collator: Collator
    train: Dataset  # features with what the collator takes
    validation: Dataset
    validate: Callable[[Any], dict[str, float]]  # what reduce kept of the validation features, in their order -> scores
    settings: Train
    seed: int
    scratch: Path
    piece_size: int  # at most so many features go through the model at once
    lower_is_better: Collection[str] = ("loss",)  # of the loss and of the scores that validate gives
    execution: Execution = Execution()
    mixture: Mixture | None = None  # where the parts of train have other shares of an epoch than by their sizes
    trackers: Trackers = Trackers([], "", "", {})  # where curves go beside DVCLive's

    @property
    def best_is_highest(self) -> bool:
        """Tell which of two values of best_metric is better."""
        return self.settings.best_metric not in self.lower_is_better

    def is_out_of_patience(self, reports: list[tuple[int, dict[str, float]]]) -> bool:
        """Tell whether training stops after a validation, from all that was reported: (update, report) pairs."""
        return patience.is_over(reports, self.settings.best_metric, self.best_is_highest, self.settings.patience)

    def updates(self, processes: int) -> tuple[int, int]:
        """Return how many updates an epoch has, and all of training."""
        batches = math.ceil(math.ceil(len(self.train) / self.settings.batch_size) / processes)
        an_epoch = math.ceil(batches / self.settings.gradient_accumulation)
        return an_epoch, math.ceil(an_epoch * self.settings.epochs)

    def loader(self, accelerator: Accelerator) -> TrainLoader:
        """Return the batches of this process."""
        batching = self.settings.batching
        batches = Batches(
            feature_lengths(self.train),
            self.settings.batch_size,
            (batching.by if isinstance(batching, MixedBatching) else batching) == "length",
            self.seed,
            accelerator.process_index,
            accelerator.num_processes,
            self.mixture,
        )
        # Of a model that is spread, each pass needs all processes: then they must have as many.
        piece_size = None if shards.are_used(accelerator) or not self.task.SEPARABLE else self.piece_size
        similar = batches.grouped and self.execution.padding == "buckets"
        most_padding = MOST_PADDING if similar else 1.0
        items, columns = self.task.items, self.task.COLUMNS
        return train_loader(self.train, self.collator, items, batches, columns, piece_size, most_padding)

    def tokens(self, epochs: float) -> int:
        """Return how many tokens, without padding, so many epochs have, a fraction of one in proportion."""
        lengths = feature_lengths(self.train)
        if self.mixture is None:
            return int(lengths.sum() * epochs)
        of_epochs = [lengths[self.mixture.rows(epoch)].sum() for epoch in range(math.ceil(epochs))]
        return int(sum(tokens * min(epochs - epoch, 1) for epoch, tokens in enumerate(of_epochs)))

    def record(
        self,
        accelerator: Accelerator,
        model: Any,
        precision: str,
        updates: int,
        all_updates: int,
        epochs_done: float,
        best_value: float | None,
        best_update: int | None,
    ) -> dict[str, Any]:
        """Return what was effective, as report and model card show it."""
        settings = self.settings
        batch_size = settings.batch_size * settings.gradient_accumulation * accelerator.num_processes
        return {
            "precision": precision,
            "processes": accelerator.num_processes,
            "effective_batch_size": batch_size,
            "piece_size": self.piece_size,
            **asdict(self.execution),
            "parameters": model.num_parameters(),
            "parameters_trained": model.num_parameters(only_trainable=True),
            "updates": updates,
            "epochs_done": round(epochs_done, 4),
            "best_metric": settings.best_metric,
            "best_value": best_value,
            "best_update": best_update,
            "stopped_early": updates < all_updates,
        } | ({} if self.mixture is None else {"features_of_parts": self.mixture.record(math.ceil(epochs_done))})


def count_items(accelerator: Accelerator, batches: list[Batch]) -> torch.Tensor:
    """Return over how many items an update's loss is a mean: those of its batches on all processes."""
    own = torch.stack([batch["items"].sum() for batch in batches]).sum()
    if accelerator.num_processes == 1:
        return own  # on the CPU, where nothing has to wait for it
    return accelerator.reduce(own.to(accelerator.device, non_blocking=True), "sum")


def backward(
    accelerator: Accelerator, model: Any, batch: Batch, items: torch.Tensor, run_pass: graphs.Pass
) -> torch.Tensor:
    """Add a batch's gradients to those of its update, of so many items, and return its share of the update's loss.

    Each piece's mean counts as many times as it has items: the update is that of one big batch, however its
    features are spread over pieces, batches and processes. Losses and gradients are averaged over processes, as by DDP.
    The batch comes from the CPU, and the device is never waited for.
    """
    share = torch.zeros((), device=accelerator.device)
    pieces = batch["pieces"]
    for number, (piece, own) in enumerate(zip(pieces, batch["items"], strict=True), start=1):
        with nullcontext() if number == len(pieces) else accelerator.no_sync(model):
            share += run_pass(send(piece, accelerator.device), own / items * accelerator.num_processes)
    return share


def effective_precision(requested: str) -> str:
    """Return fp32, bf16 or fp16: what is requested, or for auto bf16 where the hardware multiplies it natively."""
    if requested == "fp16" and not torch.cuda.is_available():
        raise UserError("train.precision: fp16 needs a CUDA device and there is none; expected auto, fp32 or bf16")
    if requested != "auto":
        return requested
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if multiplies_bf16() and not torch.backends.mps.is_available() else "fp32"
