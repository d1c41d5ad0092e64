"""Trains with the Hugging Face Trainer.

1. `train` makes the Trainer, and resumes from the newest sealed checkpoint if there is one.
2. `MicroBatchTrainer` overrides public methods: batches, the number of items over which the loss is a mean, the
   training step and the validation are those of the other engine.
3. `Reporting`, a callback, logs, unfreezes layers, and decides when to save and to stop. It seals each checkpoint.
4. At the end the Trainer loads the best checkpoint.
"""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer import TRAINER_STATE_NAME

from finetrail.training import checkpoints, execution, fsdp, graphs, validation
from finetrail.training.logger import TrainingLogger
from finetrail.training.optimizers import freeze, parameter_groups
from finetrail.training.prefetch import prefetched
from finetrail.training.run import Run, backward, count_items_in_batch, effective_precision


def train(model: PreTrainedModel, run: Run) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Train, load the best checkpoint, and return the model with the record of the run.

    It resumes from the newest checkpoint in run.scratch, if there is one.
    """
    precision = effective_precision(run.settings.precision)
    trainer = MicroBatchTrainer(model, run, _arguments(run, precision))
    fsdp.validate(trainer.accelerator, run.settings)
    whole = fsdp.prepare(trainer.accelerator, model)
    checkpoint = checkpoints.newest(run.scratch)
    state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME)) if checkpoint else None
    if state and state.stateful_callbacks["TrainerControl"]["args"]["should_training_stop"]:
        trainer.finish(state)  # it was killed after its last update
    else:
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        finally:
            trainer.close_batches()
    if fsdp.is_used(trainer.accelerator):
        fsdp.gather(trainer.accelerator, model, whole)
    trainer.accelerator.wait_for_everyone()  # scratch is removed after this; every process loads the best from there
    return whole, _record(trainer, precision)


class Arguments(TrainingArguments):
    """TrainingArguments of a process with one device; a launcher starts a process for each device."""

    @property
    def n_gpu(self) -> int:
        return min(super().n_gpu, 1)  # with more the Trainer would split batches among them


class MicroBatchTrainer(Trainer):
    """The Trainer with batches, loss, validation and logging shared with the other engine."""

    def __init__(self, model: PreTrainedModel, run: Run, arguments: TrainingArguments) -> None:
        settings = run.settings
        optimizer, options = Trainer.get_optimizer_cls_and_kwargs(arguments, model)
        groups = parameter_groups(model, settings.lr, settings.weight_decay, settings.layer_decay)
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=run.train,
            eval_dataset=run.validation,
            optimizer_cls_and_kwargs=(optimizer, options | {"params": groups}),
        )
        self.run = run
        self.forward_backward: graphs.Pass | None = None
        self.batches: Generator[Any] | None = None  # of this epoch
        self.logger = TrainingLogger(run, model, main=self.accelerator.is_main_process)
        self.remove_callback(PrinterCallback)
        self.add_callback(Reporting(self))

    def get_train_dataloader(self) -> Any:
        return self.run.loader(self.accelerator)

    def get_batch_samples(self, epoch_iterator: Any, *args: Any) -> tuple[list[Any], torch.Tensor]:
        # Here and not in the loader, which the Trainer (5.23) replaces if it resumes within an epoch.
        if self.batches is None:
            self.batches = prefetched(epoch_iterator)
        batches, _ = super().get_batch_samples(self.batches, *args)
        return batches, count_items_in_batch(self.accelerator, batches)

    def close_batches(self) -> None:
        """End the thread that makes the batches of this epoch."""
        if self.batches is not None:
            self.batches.close()
            self.batches = None

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        if self.forward_backward is None:  # the model is the one that Accelerate wrapped
            self.forward_backward = execution.make_forward_backward(self.accelerator, model, self.run.execution)
        return backward(self.accelerator, model, inputs, num_items_in_batch, self.forward_backward)

    def floating_point_ops(self, inputs: Any) -> int:
        return 0  # nothing reads the estimate, which expects an undivided batch

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        found = validation.scores(self.model_wrapped, self.accelerator, self.run)
        scores = {f"eval_{name}": value for name, value in found.items()}
        self.log(dict(scores))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, scores)
        return scores

    def finish(self, state: TrainerState) -> None:
        """Load the state of a finished run, and its best model."""
        self.state = state
        self.logger.start(state.max_steps, _reports(state))
        self.logger.end()
        self._load_best_model()


class Reporting(TrainerCallback):
    """Logs, unfreezes layers, decides when to save and when to stop, and seals checkpoints."""

    def __init__(self, trainer: MicroBatchTrainer) -> None:
        self.trainer, self.run, self.logger = trainer, trainer.run, trainer.logger
        self.checkpoint_timer = checkpoints.CheckpointTimer(
            self.run.settings.checkpoint_every, self.run.settings.log_steps
        )
        self.updates_per_epoch, _ = self.run.updates(trainer.accelerator.num_processes)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.logger.start(state.max_steps, _reports(state))
        self.checkpoint_timer.reset(state.global_step)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        kwargs["model"].train()
        if self.run.settings.unfreeze_layers is not None:
            freeze(kwargs["model"], int(state.epoch or 0), self.run.settings.unfreeze_layers)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.logger.updated(state.global_step)
        if state.global_step % self.updates_per_epoch == 0 or state.global_step == state.max_steps:
            control.should_log = True  # the checkpoint at the end of the epoch contains all losses
        elif self.checkpoint_timer.is_due(state.global_step, self.trainer.accelerator):
            control.should_save = True

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.close_batches()

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.logger.report(state.global_step, kwargs["logs"])

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.logger.evaluated(state.epoch, kwargs["metrics"])
        # The Trainer (5.23) takes this checkpoint for the best one only if its folder exists before it is written.
        checkpoints.folder(self.run.scratch, state.global_step).mkdir(parents=True, exist_ok=True)
        if self.run.is_out_of_patience(_reports(state)):
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.accelerator.wait_for_everyone()  # each process writes a file
        if state.is_world_process_zero:
            best = Path(state.best_model_checkpoint) if state.best_model_checkpoint else None
            checkpoints.seal(checkpoints.folder(self.run.scratch, state.global_step), self.run.scratch, best)
        self.checkpoint_timer.reset(state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.logger.end()


def _reports(state: TrainerState) -> list[tuple[int, dict[str, float]]]:
    return [(int(report["step"]), report) for report in state.log_history]


def _record(trainer: MicroBatchTrainer, precision: str) -> dict[str, Any]:
    """Return the record of the run."""
    state = trainer.state
    return trainer.run.record(
        trainer.accelerator,
        trainer.model,
        precision,
        updates=state.global_step,
        epochs_done=float(state.epoch or 0),
        best_value=state.best_metric,
        best_update=state.best_global_step,
        all_updates=state.max_steps,
    )


def _arguments(run: Run, precision: str) -> TrainingArguments:
    settings = run.settings
    arguments = Arguments(
        output_dir=str(run.scratch),
        seed=run.seed,
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
        use_cpu=not torch.accelerator.is_available(),  # without it the Trainer refuses bf16 on a CPU
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=None,  # older checkpoints are removed when a newer one is sealed
        load_best_model_at_end=True,
        restore_callback_states_from_checkpoint=True,
        metric_for_best_model=settings.best_metric,
        greater_is_better=run.best_is_highest,
        logging_steps=settings.log_steps,
        logging_first_step=True,  # so that a short run has a curve
        logging_nan_inf_filter=False,  # the logger raises at such a loss instead
        ddp_find_unused_parameters=settings.unfreeze_layers is not None,  # frozen layers get no gradient
        remove_unused_columns=False,  # the collator may need columns that the model's forward() does not take
        disable_tqdm=True,
        report_to="none",
    )
    # Overrides that of `accelerate launch` and its configuration file.
    arguments.mixed_precision = "no" if precision == "fp32" else precision
    return arguments
