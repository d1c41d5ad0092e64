"""Computes loss and scores of the validation split, on any number of processes."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, pad_across_processes

from finetrail.errors import UserError
from finetrail.labels import IGNORE_INDEX
from finetrail.progress import Bar
from finetrail.training import fsdp
from finetrail.training.run import Run
from finetrail.transfers import fetch, send


def scores(model: Any, accelerator: Accelerator, run: Run) -> dict[str, float]:
    """Return the mean loss over all items of the validation split, and validate()'s metrics over reduce()'s outputs.

    Processes take the batches in turn. reduce() returns one or several arrays [batch, ...]. validate() gets them for
    the whole split, in the order of its features, padded with IGNORE_INDEX.
    """
    model.eval()
    features, size = run.validation.with_format("arrow"), run.settings.eval_batch_size
    losses, items = [torch.zeros((), device=accelerator.device)], [0]
    kept: list[tuple[np.ndarray, ...]] = []
    # Functions that fetch the previous batch's results, one per process, while the device computes this batch.
    fetched: list[Callable[[], list[np.ndarray]]] = []
    batches = list(turns(len(features), size, accelerator))
    for start, counted in Bar(batches, desc="validate", unit="batches"):
        rows = features[start : start + size]
        collated = run.collator(rows)
        batch = send(collated, accelerator.device)
        try:
            with torch.no_grad(), fsdp.autocast(accelerator):
                outputs = model(**batch)
        except torch.OutOfMemoryError:
            raise UserError(
                f"train: the device is out of memory with {len(rows)} features of validation at once; "
                "expected a smaller train.eval_batch_size"
            ) from None
        if counted:
            losses.append(outputs["loss"])
            items.append(int(run.task.num_items(collated)))
        reduced = run.task.reduce(_logits(outputs, accelerator.unwrap_model(model).config), batch.get("labels"))
        arrays = reduced if isinstance(reduced, tuple) else (reduced,)
        kept += _copied(fetched)
        gathered = [_gathered(array, counted, accelerator) for array in arrays]
        fetched = [fetch(of_one) for of_one in zip(*gathered, strict=True)]
    kept += _copied(fetched)
    shares = [(loss * count, count) for loss, count in zip(torch.stack(losses).tolist(), items, strict=True)]
    total, count = map(sum, zip(*gather_object(shares), strict=True))
    whole = [_concatenated(arrays) for arrays in zip(*kept, strict=True)]
    return {"loss": total / count} | run.validate(tuple(whole) if len(whole) > 1 else whole[0])


def turns(rows: int, batch_size: int, accelerator: Accelerator) -> Iterator[tuple[int, bool]]:
    """Yield the first row of each of this process's batches, and whether it counts.

    All processes have equally many, so the last may be a repeated batch that does not count.
    """
    batches = math.ceil(rows / batch_size)
    for turn in range(math.ceil(batches / accelerator.num_processes)):
        number = turn * accelerator.num_processes + accelerator.process_index
        yield (number * batch_size, True) if number < batches else (0, False)


def _logits(outputs: Any, config: Any) -> Any:
    """Return a model's outputs other than the loss, an array or a tuple of several, as the Trainer (5.23) does."""
    ignored = {"loss", *getattr(config, "keys_to_ignore_at_inference", [])}
    values = tuple(value for name, value in outputs.items() if name not in ignored)
    return values if len(values) > 1 else values[0]


def _copied(fetched: list[Callable[[], list[np.ndarray]]]) -> list[tuple[np.ndarray, ...]]:
    """Wait for the fetched arrays, and copy them, because pinned memory is reused for the next batches."""
    return [tuple(map(np.array, arrays())) for arrays in fetched]


def _gathered(array: torch.Tensor, counted: bool, accelerator: Accelerator) -> list[torch.Tensor]:
    """Return the array of each process, in their order, without batches that do not count."""
    array = array.detach()
    if array.is_floating_point():
        array = array.float()  # numpy has no bfloat16
    if accelerator.num_processes == 1:
        return [array]
    sizes = accelerator.gather(torch.tensor([len(array) * counted], device=accelerator.device)).tolist()
    for dim in range(array.ndim):
        array = pad_across_processes(array, dim=dim, pad_index=IGNORE_INDEX)
    parts = accelerator.gather(array.contiguous()).chunk(accelerator.num_processes)
    return [part[:size] for part, size in zip(parts, sizes, strict=True)]


def _concatenated(arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    """Concatenate arrays whose other dimensions may differ, padded with IGNORE_INDEX."""
    shape = np.max([array.shape[1:] for array in arrays], axis=0, initial=0).astype(int)
    whole = np.full((sum(map(len, arrays)), *shape), IGNORE_INDEX, dtype=arrays[0].dtype)
    start = 0
    for array in arrays:
        whole[(slice(start, start + len(array)), *map(slice, array.shape[1:]))] = array
        start += len(array)
    return whole
