"""Trains with a bare Accelerate loop. Change it if your research needs a loop of its own.

1. `train` makes the Accelerator, and a `Loop` with model, optimizer, schedule and loader.
2. `resume` loads the newest sealed checkpoint, if there is one: weights, optimizer, schedule, generators and `State`.
3. `epoch` skips the batches that were used already, collects gradient_accumulation batches, and calls `update`.
4. `update` accumulates gradients, clips them and steps the optimizer. It logs, and saves if a checkpoint is due.
5. After each epoch it validates, saves, and decides whether to stop. At the end the best checkpoint is loaded.

Batches, their order, losses and results are those of the other engine.
"""

import json
import math
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, skip_first_batches
from accelerate.utils import DistributedDataParallelKwargs, load_fsdp_model
from safetensors.torch import load_model, save_model
from transformers import PreTrainedModel, get_scheduler, set_seed

from finetrail import stage
from finetrail.training import checkpoints, execution, fsdp, validation
from finetrail.training.logger import TrainingLogger
from finetrail.training.optimizers import freeze, parameter_groups
from finetrail.training.prefetch import prefetched
from finetrail.training.run import Run, backward, count_items_in_batch, effective_precision

STATE = "state.json"
WEIGHTS = "model.safetensors"


@dataclass
class State:
    """The progress of a run and what it has reported; a part of each checkpoint."""

    update: int = 0
    best_value: float | None = None
    best_update: int = 0
    done: bool = False
    schedule: dict[str, Any] = field(default_factory=dict)
    reports: list[tuple[int, dict[str, float]]] = field(default_factory=list)


def train(model: PreTrainedModel, run: Run) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Train, load the best checkpoint, and return the model with the record of the run.

    It resumes from the newest checkpoint in run.scratch, if there is one.
    """
    precision = effective_precision(run.settings.precision)
    set_seed(run.seed)  # as the Trainer does, so that both draw the same dropout
    freezes = run.settings.unfreeze_layers is not None
    accelerator = Accelerator(
        mixed_precision="no" if precision == "fp32" else precision,
        cpu=not torch.accelerator.is_available(),
        # Frozen layers get no gradient, so DDP has to find the parameters that do.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=freezes)],
    )
    fsdp.validate(accelerator, run.settings)
    whole = fsdp.prepare(accelerator, model)
    loop = Loop(model, run, accelerator)
    loop.resume()
    while not loop.state.done:
        loop.epoch()
    loop.logger.end()
    accelerator.wait_for_everyone()
    loop.load_weights(checkpoints.folder(run.scratch, loop.state.best_update))
    if fsdp.is_used(accelerator):
        fsdp.gather(accelerator, model, whole)
    accelerator.wait_for_everyone()  # scratch is removed after this
    return whole, loop.record(precision)


class Loop:
    """Model, optimizer, schedule and progress of one run."""

    def __init__(self, model: PreTrainedModel, run: Run, accelerator: Accelerator) -> None:
        settings = run.settings
        self.run, self.accelerator, self.state = run, accelerator, State()
        self.updates_per_epoch, self.updates = run.updates(accelerator.num_processes)
        groups = parameter_groups(model, settings.lr, settings.weight_decay, settings.layer_decay)
        fused = settings.optimizer == "adamw_torch_fused"
        self.plain = model
        self.model, self.optimizer = accelerator.prepare(model, torch.optim.AdamW(groups, fused=fused))
        self.forward_backward = execution.make_forward_backward(accelerator, self.model, run.execution)
        warmup = math.ceil(self.updates * settings.warmup)
        self.schedule = get_scheduler(settings.schedule, self.optimizer, warmup, self.updates)
        self.loader = run.loader(accelerator)
        # The loop saves the weights itself: Accelerate would save those of the wrapped model, under other names.
        accelerator.register_save_state_pre_hook(lambda models, weights, folder: weights.clear())
        accelerator.register_load_state_pre_hook(lambda models, folder: models.clear())
        self.logger = TrainingLogger(run, model, main=accelerator.is_main_process)
        self.checkpoint_timer = checkpoints.CheckpointTimer(settings.checkpoint_every, settings.log_steps)
        self.losses: list[torch.Tensor] = []  # since the last point of the curve

    def resume(self) -> None:
        """Load the newest checkpoint, if there is one."""
        checkpoint = checkpoints.newest(self.run.scratch)
        if checkpoint:
            self.state = State(**stage.read_json(checkpoint / STATE))
            self.schedule.load_state_dict(self.state.schedule)
            self.load_weights(checkpoint)
            self.accelerator.load_state(str(checkpoint))
        self.logger.start(self.updates, self.state.reports)
        self.checkpoint_timer.reset(self.state.update)

    def epoch(self) -> None:
        """Train to the end of the epoch, or of training; validate, and save."""
        epoch, done_before = divmod(self.state.update, self.updates_per_epoch)
        self.model.train()
        if self.run.settings.unfreeze_layers is not None:
            freeze(self.plain, epoch, self.run.settings.unfreeze_layers)
        size = self.run.settings.gradient_accumulation
        self.loader.set_epoch(epoch)
        seen, waiting = done_before * size, []
        with closing(prefetched(skip_first_batches(self.loader, seen))) as batches:
            for number, batch in enumerate(batches, start=seen + 1):
                waiting.append(batch)
                if len(waiting) == size or number == len(self.loader):
                    self.update(waiting)
                    waiting = []
                    if self.state.update == self.updates:
                        break
        self.validate()
        self.save()

    def update(self, batches: list[Any]) -> None:
        """Take one optimizer step over some batches."""
        num_items_in_batch = count_items_in_batch(self.accelerator, batches)
        share = torch.zeros((), device=self.accelerator.device)
        for number, batch in enumerate(batches, start=1):
            with nullcontext() if number == len(batches) else self.accelerator.no_sync(self.model):
                share += backward(self.accelerator, self.model, batch, num_items_in_batch, self.forward_backward)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.run.settings.max_grad_norm)
        rate = self.schedule.get_last_lr()[0]
        self.optimizer.step()
        if not self.accelerator.optimizer_step_was_skipped:
            self.schedule.step()
        self.optimizer.zero_grad()
        self.losses.append(share)
        self.state.update += 1
        self.logger.updated(self.state.update)
        ended = self.state.update % self.updates_per_epoch == 0 or self.state.update == self.updates
        if self.state.update % self.run.settings.log_steps == 0 or self.state.update == 1 or ended:
            loss = self.accelerator.reduce(torch.stack(self.losses).sum(), "mean") / len(self.losses)
            self.report({"loss": float(loss), "grad_norm": float(norm), "learning_rate": rate})
            self.losses = []
        if not ended and self.checkpoint_timer.is_due(self.state.update, self.accelerator):
            self.save()

    def validate(self) -> None:
        """Score the validation split; update the best value, and whether training is done."""
        settings, state = self.run.settings, self.state
        found = validation.scores(self.model, self.accelerator, self.run)
        scores = {f"eval_{name}": value for name, value in found.items()}
        self.report(scores)
        self.logger.evaluated(state.update / self.updates_per_epoch, scores)
        value, best = found[settings.best_metric], state.best_value
        if best is None or (value > best if self.run.best_is_highest else value < best):
            state.best_value, state.best_update = value, state.update
        state.done = self.run.is_out_of_patience(state.reports) or state.update == self.updates

    def report(self, values: dict[str, float]) -> None:
        """Add values to the curves."""
        self.state.reports.append((self.state.update, values))
        self.logger.report(self.state.update, values)

    def save(self) -> None:
        """Write a checkpoint, of all processes, and seal it."""
        scratch = self.run.scratch
        folder = checkpoints.folder(scratch, self.state.update)
        self.accelerator.save_state(str(folder))
        self.accelerator.wait_for_everyone()  # each process writes a file
        if self.accelerator.is_main_process:
            self.state.schedule = self.schedule.state_dict()
            # The norm of an update that fp16 skips is not finite, which write_json refuses.
            (folder / STATE).write_text(json.dumps(asdict(self.state)))
            if not fsdp.is_used(self.accelerator):  # save_state has saved those
                save_model(self.plain, str(folder / WEIGHTS))
            best = checkpoints.folder(scratch, self.state.best_update) if self.state.best_update else None
            checkpoints.seal(folder, scratch, best)
        self.checkpoint_timer.reset(self.state.update)

    def load_weights(self, checkpoint: Path) -> None:
        """Load the weights of a checkpoint."""
        if fsdp.is_used(self.accelerator):
            load_fsdp_model(self.accelerator.state.fsdp_plugin, self.accelerator, self.model, str(checkpoint))
        else:
            load_model(self.plain, checkpoint / WEIGHTS)

    def record(self, precision: str) -> dict[str, Any]:
        """Return the record of the run."""
        assert self.state.best_value is not None
        return self.run.record(
            self.accelerator,
            self.plain,
            precision,
            updates=self.state.update,
            all_updates=self.updates,
            epochs_done=self.state.update / self.updates_per_epoch,
            best_value=self.state.best_value,
            best_update=self.state.best_update,
        )
