"""Decides how a run's passes are executed.

1. Padding: a model that packing.py knows trains without it on a GPU (`none`). Others get micro-batches of similar
   length (`buckets`), as all do with `train.speedups: false`.
2. Execution: kernel by kernel (`eager`), as recorded CUDA graphs (`graphs`), or compiled (`compile`). `auto` chooses
   graphs if nothing hinders them and the run is long enough, else eager.
3. The choice depends on the model, the settings and the kind of machine, so that a resumed run gets the same. It is in
   training.json.
"""

import os
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedModel

from finetrail.errors import UserError
from finetrail.schema import Train
from finetrail.training import fsdp, graphs, packing

# From this number of updates on, recording takes less time than it saves: an estimate, not measured on a GPU.
UPDATES_WORTH_RECORDING = 2000
# Rotary embeddings of transformers that read the longest position from the device.
READ_BY_ROPE = ("dynamic", "longrope")
# The packages of torch.compile.
COMPILER = ("_dynamo", "_inductor", "_functorch", "_higher_order_ops", "fx")


@dataclass(frozen=True)
class Execution:
    """How passes are executed; a part of the record of a run."""

    padding: Literal["buckets", "none"] = "buckets"
    execution: Literal["eager", "graphs", "compile"] = "eager"


def chosen(model: PreTrainedModel, settings: Train, precision: str, updates: int) -> Execution:
    """Return how a run with this number of updates is executed; UserError if the settings are impossible here."""
    packs = settings.speedups and packing.applies(model, precision)
    padding: Literal["buckets", "none"] = "none" if packs else "buckets"
    if settings.execution in ("eager", "compile"):
        return Execution(padding, settings.execution)
    hindrances = list(_hindrances(model, settings, precision, packs))
    if settings.execution == "graphs" and hindrances:
        raise UserError(f"train.execution: graphs needs {hindrances[0]}; otherwise expected auto or eager")
    records = not hindrances and (settings.execution == "graphs" or updates >= UPDATES_WORTH_RECORDING)
    return Execution(padding, "graphs" if records else "eager")


def _hindrances(model: Any, settings: Train, precision: str, packs: bool) -> Iterable[str]:
    """Yield the requirements of CUDA graphs that this run does not meet."""
    if not torch.cuda.is_available():
        yield "a CUDA device"
    if not settings.speedups:
        yield "speedups true"
    if not packs:
        yield "a model and a precision that train without padding"  # with padding, batches have too many shapes
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 or os.environ.get("ACCELERATE_USE_FSDP") == "true":
        yield "a single process without FSDP"
    if precision == "fp16":
        yield "precision bf16"  # fp16 reads each update's gradients to scale the loss
    config = model.config
    rope = getattr(config, "rope_parameters", None) or {}
    if getattr(config, "sparse_prediction", False) or rope.get("rope_type", "default") in READ_BY_ROPE:
        yield "a model whose forward pass does not copy values to the CPU"
    if hasattr(settings, "distillation"):  # its loss searches for the tokens with labels on the device
        yield "no teacher"
    if settings.lora is not None and settings.lora.quantize is not None:
        yield "lora.quantize null"
    if settings.gradient_checkpointing or settings.unfreeze_layers is not None:
        yield "gradient_checkpointing false and unfreeze_layers null"
    if getattr(model, "micro_batch_size", None) not in (None, settings.batch_size):
        yield "micro_batch null"  # recomputing parts of a batch reads the generator's state


def raise_compiler_error(error: BaseException, execution: Execution) -> None:
    """Raise UserError if torch.compile itself raised an error, and not the code that it compiled.

    The layers and settings that it supports are not known in advance.
    """
    innermost = traceback.extract_tb(error.__traceback__)[-1].filename
    if execution.execution == "compile" and any(f"/torch/{part}/" in innermost for part in COMPILER):
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(
            "train.execution: torch.compile fails with this model and these settings "
            f"({type(error).__name__}: {reason:.200}); expected auto or eager"
        ) from None


def make_forward_backward(accelerator: Accelerator, model: Any, execution: Execution) -> graphs.Pass:
    """Return the function that runs a micro-batch forward and backward."""

    def run(inputs: dict[str, Any], weight: torch.Tensor) -> torch.Tensor:
        with fsdp.autocast(accelerator):
            loss = model(**inputs)["loss"] * weight
        accelerator.backward(loss)
        return loss.detach()

    parameters: Iterable[nn.Parameter] = model.parameters()
    return graphs.Recorded(run, parameters, graphs.CudaGraphs()) if execution.execution == "graphs" else run
