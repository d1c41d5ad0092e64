"""Code that the two engines share: their inputs, and the computation of gradients from a batch."""

import math
from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from datasets import Dataset

from finetrail.errors import UserError
from finetrail.numerics import multiplies_bf16
from finetrail.schema import MixedBatching, Train
from finetrail.training import fsdp, graphs, patience
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

if TYPE_CHECKING:
    from finetrail.tasks.contract import Modeling

HISTORY = "history"


@dataclass(frozen=True)
class Run:
    """One training run without its model. scratch is the folder of its checkpoints and curves, used by no other run."""

    task: "Modeling"
    collator: Collator
    train: Dataset  # features, with the columns that the collator needs
    validation: Dataset
    validate: Callable[[Any], dict[str, float]]  # reduce()'s outputs for the validation features, in order -> scores
    settings: Train
    seed: int
    scratch: Path
    micro_batch_size: int  # the largest number of features in one pass
    lower_is_better: Collection[str] = ("loss",)  # of the loss and of the scores that validate gives
    execution: Execution = Execution()
    mixture: Mixture | None = None  # if the parts of train have other shares of an epoch than those of their sizes
    trackers: Trackers = Trackers([], "", "", {})  # get the curves in addition to DVCLive

    @property
    def best_is_highest(self) -> bool:
        """Return True if a higher value of best_metric is better."""
        return self.settings.best_metric not in self.lower_is_better

    def is_out_of_patience(self, reports: list[tuple[int, dict[str, float]]]) -> bool:
        """Return True if training stops after a validation. reports: all (update, report) pairs of the run."""
        return patience.is_over(reports, self.settings.best_metric, self.best_is_highest, self.settings.patience)

    def updates(self, processes: int) -> tuple[int, int]:
        """Return the number of updates per epoch, and of the whole run."""
        batches = math.ceil(math.ceil(len(self.train) / self.settings.batch_size) / processes)
        updates_per_epoch = math.ceil(batches / self.settings.gradient_accumulation)
        return updates_per_epoch, math.ceil(updates_per_epoch * self.settings.epochs)

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
        # With FSDP each forward pass is collective, so all ranks need equally many micro-batches.
        micro_batch_size = None if fsdp.is_used(accelerator) or not self.task.SEPARABLE else self.micro_batch_size
        similar = batches.grouped and self.execution.padding == "buckets"
        most_padding = MOST_PADDING if similar else 1.0
        num_items, columns = self.task.num_items, self.task.COLUMNS
        return train_loader(self.train, self.collator, num_items, batches, columns, micro_batch_size, most_padding)

    def tokens(self, epochs: float) -> int:
        """Return the number of tokens, without padding, in so many epochs; a fraction counts in proportion."""
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
        """Return the settings in effect and the outcome, as report and model card show them."""
        settings = self.settings
        batch_size = settings.batch_size * settings.gradient_accumulation * accelerator.num_processes
        return {
            "precision": precision,
            "processes": accelerator.num_processes,
            "effective_batch_size": batch_size,
            "piece_size": self.micro_batch_size,
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


def count_items_in_batch(accelerator: Accelerator, batches: list[Batch]) -> torch.Tensor:
    """Return the number of items over which an update's loss is a mean: those of its batches on all processes."""
    own = torch.stack([batch["num_items"].sum() for batch in batches]).sum()
    if accelerator.num_processes == 1:
        return own  # on the CPU, so that nothing waits for it
    return accelerator.reduce(own.to(accelerator.device, non_blocking=True), "sum")


def backward(
    accelerator: Accelerator, model: Any, batch: Batch, num_items_in_batch: torch.Tensor, forward_backward: graphs.Pass
) -> torch.Tensor:
    """Accumulate the gradients of a batch, and return its share of the loss of its update.

    Each micro-batch's mean loss is weighted by its number of items. So the update is that of one big batch, however
    its features are divided into micro-batches, batches and processes. DDP averages losses and gradients over
    processes, which the weights undo. The batch comes from the CPU, and nothing waits for the device.
    """
    share = torch.zeros((), device=accelerator.device)
    micro_batches = batch["micro_batches"]
    for number, (micro_batch, own) in enumerate(zip(micro_batches, batch["num_items"], strict=True), start=1):
        with nullcontext() if number == len(micro_batches) else accelerator.no_sync(model):
            share += forward_backward(
                send(micro_batch, accelerator.device), own / num_items_in_batch * accelerator.num_processes
            )
    return share


def effective_precision(requested: str) -> str:
    """Return fp32, bf16 or fp16: as requested, or for auto bf16 if the hardware multiplies it natively."""
    if requested == "fp16" and not torch.cuda.is_available():
        raise UserError("train.precision: fp16 needs a CUDA device and there is none; expected auto, fp32 or bf16")
    if requested != "auto":
        return requested
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if multiplies_bf16() and not torch.backends.mps.is_available() else "fp32"
