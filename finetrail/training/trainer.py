"""Turns a model and features into a trained model and its record, with the Hugging Face Trainer."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets import Dataset
from dvclive import Live
from torch.utils.data import SequentialSampler
from tqdm.auto import tqdm
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from finetrail import stage
from finetrail.errors import UserError
from finetrail.schema import Train
from finetrail.tasks import IGNORE_INDEX, LOWER_IS_BETTER
from finetrail.training.batching import LengthGroupedSampler
from finetrail.training.optimizers import GradualUnfreezing, parameter_groups

HISTORY = "history"

# What `reduce` kept of the logits of the validation split, in the order of the features -> scores.
Validation = Callable[[Any], dict[str, float]]
# (logits, labels) of a batch on the device -> what validation needs of them.
Reduce = Callable[[Any, Any], Any]


def train(
    model: PreTrainedModel,
    collator: Any,
    features: dict[str, Dataset],
    reduce: Reduce,
    validation: Validation,
    settings: Train,
    seed: int,
    scratch: Path,
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Train, keep the best checkpoint, and return the model with the record of what was effective.

    features: train and validation, with what the collator takes; checkpoints go to scratch, and curves by global step
    to scratch / HISTORY.
    """
    precision = effective_precision(settings.precision)
    arguments = _arguments(settings, precision, seed, scratch)
    optimizer, options = Trainer.get_optimizer_cls_and_kwargs(arguments, model)
    groups = parameter_groups(model, settings.lr, settings.weight_decay, settings.layer_decay)
    trainer = LengthGroupingTrainer(
        model=model,
        args=arguments,
        data_collator=collator,
        train_dataset=features["train"],
        eval_dataset=features["validation"],
        compute_metrics=lambda prediction: validation(prediction.predictions),
        preprocess_logits_for_metrics=reduce,
        optimizer_cls_and_kwargs=(optimizer, options | {"params": groups}),
        callbacks=[Progress(), Curves(scratch / HISTORY)],
    )
    # BERT and others take any keyword but not num_items_in_batch, by which the Trainer (5.23) then believes their loss
    # divided: it would sum what accumulation and processes are to average. So each step's loss is its own mean.
    trainer.model_accepts_loss_kwargs = False
    trainer.remove_callback(PrinterCallback)
    if settings.unfreeze_layers is not None:
        trainer.add_callback(GradualUnfreezing(settings.unfreeze_layers))
    if settings.patience is not None:
        trainer.add_callback(EarlyStoppingCallback(settings.patience))
    try:
        trainer.train()
    except torch.OutOfMemoryError:
        raise UserError(
            f"train: the device is out of memory with batches of {settings.batch_size}; expected a smaller "
            "batch_size (and more train.gradient_accumulation), or a smaller tokenize.max_length"
        ) from None
    trainer.accelerator.wait_for_everyone()  # scratch is removed after this; every process loads the best from there
    return model, _record(trainer, model, settings, precision)


def _record(trainer: Trainer, model: PreTrainedModel, settings: Train, precision: str) -> dict[str, Any]:
    """Return what was effective."""
    state, processes = trainer.state, trainer.args.world_size
    return {
        "precision": precision,
        "device": trainer.args.device.type,
        "processes": processes,
        "effective_batch_size": settings.batch_size * settings.gradient_accumulation * processes,
        "parameters": model.num_parameters(),
        "updates": state.global_step,
        "epochs_done": round(float(state.epoch or 0), 4),
        "best_metric": settings.best_metric,
        "best_value": state.best_metric,
        "best_update": state.best_global_step,
        "stopped_early": state.global_step < state.max_steps,
    }


def effective_precision(requested: str) -> str:
    """Return fp32, bf16 or fp16: what is requested, or for auto bf16 where the hardware multiplies it natively."""
    if requested == "fp16" and not torch.cuda.is_available():
        raise UserError("train.precision: fp16 needs a CUDA device and there is none; expected auto, fp32 or bf16")
    if requested != "auto":
        return requested
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    # No public call tells this (torch 2.13); without these instructions a CPU emulates bf16, slower than fp32.
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if native and not torch.backends.mps.is_available() else "fp32"


def _arguments(settings: Train, precision: str, seed: int, scratch: Path) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(scratch),
        seed=seed,
        learning_rate=settings.lr,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.eval_batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        weight_decay=settings.weight_decay,
        warmup_steps=settings.warmup,
        lr_scheduler_type=settings.schedule,
        max_grad_norm=settings.max_grad_norm,
        optim=settings.optimizer,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=not torch.accelerator.is_available(),  # else the Trainer refuses bf16 on a CPU
        train_sampling_strategy="group_by_length" if settings.batching == "length" else "random",
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        save_only_model=True,
        load_best_model_at_end=True,
        metric_for_best_model=settings.best_metric,
        greater_is_better=settings.best_metric not in LOWER_IS_BETTER,
        logging_steps=settings.log_steps,
        logging_first_step=True,  # a short run has a curve too
        logging_nan_inf_filter=False,  # Curves stops at such a loss instead
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,  # the caller chose them; a model's forward() need not take what its collator does
        disable_tqdm=True,
        report_to="none",
    )


class LengthGroupingTrainer(Trainer):
    """The Trainer with our length groups: its own sampler sorts batches within a group and never shuffles them."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        dataset = self.train_dataset if train_dataset is None else train_dataset
        return LengthGroupedSampler(feature_lengths(dataset), self.args.train_batch_size)

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        # The Trainer would group these by length too, and return predictions in that order.
        return SequentialSampler(eval_dataset)


def labelled(features: Dataset) -> Dataset:
    """Leave out the features without any label, whose mean loss would be 0 / 0.

    Such is a window that holds only the middle of one long word, or words or a text whose labels train lacks.
    Features whose labels are no whole numbers, or are yet to be drawn (null), all stay.
    """
    labels = features.features.arrow_schema.field("labels").type if "labels" in features.column_names else None
    if labels is not None and pa.types.is_integer(labels):
        column = features.with_format("arrow")["labels"][:]
        return features.select(np.flatnonzero(column.to_numpy() != IGNORE_INDEX))
    if labels is None or not (pa.types.is_list(labels) and pa.types.is_integer(labels.value_type)):
        return features
    kept = []
    for batch in features.with_format("arrow").iter(10_000):
        known = pc.list_flatten(batch["labels"]).to_numpy() != IGNORE_INDEX
        counts = np.bincount(pc.list_parent_indices(batch["labels"]).to_numpy()[known], minlength=len(batch))
        kept.append((counts > 0) | batch["labels"].is_null().to_numpy())
    return features.select(np.flatnonzero(np.concatenate(kept)))


def feature_lengths(features: Dataset) -> np.ndarray:
    """Return the tokens of each feature, of all its texts where it has several: int64 [features]."""
    table = features.with_format("arrow")
    columns = [name for name in features.column_names if name.endswith("input_ids")]
    return np.concatenate([sum(_tokens(batch[name]) for name in columns) for batch in table.iter(10_000)])


def _tokens(texts: pa.ChunkedArray) -> np.ndarray:
    """Return the tokens of each row: of a text, or of a list of texts."""
    lengths = pc.list_value_length(texts).to_numpy().astype(np.int64)
    if not pa.types.is_list(texts.type.value_type):
        return lengths
    inner = pc.list_value_length(pc.list_flatten(texts)).to_numpy()
    rows = pc.list_parent_indices(texts).to_numpy()
    return np.bincount(rows, weights=inner, minlength=len(texts)).astype(np.int64)


class Progress(TrainerCallback):
    """A bar over updates on a terminal, and one line an epoch."""

    def __init__(self) -> None:
        self.bar: Any = None
        self.loss = math.nan  # until the first update, which is always logged

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self.bar = tqdm(total=state.max_steps, desc="train", unit="update", disable=None, leave=False)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.loss = kwargs["logs"].get("loss", self.loss)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            metrics, best_metric = kwargs["metrics"], str(args.metric_for_best_model)
            shown = {"train loss": self.loss, "validation loss": metrics["eval_loss"]}
            if best_metric != "loss":
                shown[best_metric] = metrics[f"eval_{best_metric}"]
            self.bar.clear()
            stage.log(
                f"train: epoch {state.epoch:.4g} of {args.num_train_epochs:g}: "
                + ", ".join(f"{name} {value:.4f}" for name, value in shown.items())
            )

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.close()


class Curves(TrainerCallback):
    """DVCLive metrics by global step, without the Trainer's timings; stops at a loss that is not finite."""

    def __init__(self, history: Path) -> None:
        self.history = history
        self.live: Live | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            # dvcyaml: DVCLive would append its plots to the project's dvc.yaml.
            self.live = Live(str(self.history), dvcyaml=None, save_dvc_exp=False, report=None)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        logs = kwargs["logs"]
        for name in ("loss", "eval_loss"):
            if not math.isfinite(logs.get(name, 0.0)):
                raise UserError(
                    f"train: {name} is {logs[name]} at update {state.global_step}; expected a finite number: "
                    "try a lower train.lr, a lower train.max_grad_norm, more train.warmup, or precision fp32"
                )
        if self.live is not None:
            self.live.step = state.global_step
            for name, value in curve_points(logs).items():
                self.live.log_metric(name, value)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.live is not None:
            self.live.end()


def curve_points(logs: dict[str, float]) -> dict[str, float]:
    """Return what belongs on the curves of one of the Trainer's logs, under our names."""
    names = {"loss": "train/loss", "learning_rate": "train/lr", "grad_norm": "train/grad_norm"}
    points = {names[key]: value for key, value in logs.items() if key in names}
    timings = ("_runtime", "_per_second")
    return points | {
        "validation/" + key.removeprefix("eval_"): value
        for key, value in logs.items()
        if key.startswith("eval_") and not key.endswith(timings)
    }
