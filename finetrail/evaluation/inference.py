"""Turns features into a model's outputs, in batches of similar length, whatever runs the model."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from finetrail.encoding import padding, ragged
from finetrail.progress import Bar

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# input_ids, attention_mask and perhaps token_type_ids, int64 [batch, length] -> the model's outputs by name, float32
# [batch, ...], such as logits.
Forward = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
# Gives the outputs of a batch that a device may still compute.
Fetch = Callable[[], dict[str, np.ndarray]]

IDS = ("input_ids", "token_type_ids")


def input_names(features: pa.Schema) -> list[str]:
    """Return what the model takes of these features; attention_mask is made by padding."""
    return ["input_ids", "attention_mask", *(name for name in IDS[1:] if name in features.names)]


def device() -> str:
    """Return the device that evaluates: the accelerator where there is one."""
    import torch  # an ONNX session needs no torch

    return str(torch.accelerator.current_accelerator()) if torch.accelerator.is_available() else "cpu"


def torch_forward(model: "PreTrainedModel") -> Forward:
    """Run a torch model where its weights are, without gradients, in fp32."""
    import torch

    from finetrail.model.masks import use_masks_unread
    from finetrail.transfers import fetch, send

    model.eval()
    on_cuda = model.device.type == "cuda"
    if on_cuda:
        use_masks_unread(model)

    def launch(inputs: dict[str, np.ndarray]) -> Fetch:
        given_inputs = {name: torch.from_numpy(array) for name, array in inputs.items()}
        if on_cuda and inputs["attention_mask"].all():
            del given_inputs["attention_mask"]
        with torch.inference_mode():
            outputs = model(**send(given_inputs, model.device))
            given = {name: value.float() for name, value in outputs.items() if torch.is_tensor(value)}
            arrays = fetch(list(given.values()))
        names = list(given)  # and not the outputs, which may be large
        return lambda: dict(zip(names, arrays(), strict=True))

    def forward(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return launch(inputs)()

    forward.model = model  # type: ignore[attr-defined]  # generation keeps what it has read, which takes the model
    if on_cuda:
        forward.launch = launch  # type: ignore[attr-defined]  # of a CPU it would only keep two batches' outputs
    return forward


def run(
    features: pa.Table, forward: Forward, pad_token_id: int, batch_size: int
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Yield (rows, outputs) of each batch: the longest first, so that memory runs out at once or not at all.

    A GPU computes the next batch while the caller has the outputs of one.
    """
    given = batches(features, pad_token_id, batch_size)
    if hasattr(forward, "launch"):
        yield from one_ahead(given, forward.launch)
    else:
        for rows, inputs in given:
            yield rows, forward(inputs)


def one_ahead(
    given: Iterable[tuple[np.ndarray, dict[str, np.ndarray]]], launch: Callable[[dict[str, np.ndarray]], Fetch]
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Yield (rows, outputs) of each batch of (rows, inputs), when the next one is launched."""
    launched: tuple[np.ndarray, Fetch] | None = None
    for rows, inputs in given:
        following = rows, launch(inputs)
        if launched:
            yield launched[0], launched[1]()
        launched = following
    if launched:
        yield launched[0], launched[1]()


def batches(
    features: pa.Table, pad_token_id: int, batch_size: int
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Yield (rows, inputs) of batches of similar length, the longest first."""
    values, lengths = {}, np.zeros(0, dtype=np.int64)
    for name in IDS:
        if name in features.column_names:
            values[name], lengths = padding.runs(features[name])
    starts = ragged.bounds(lengths)[:-1]
    order = np.argsort(-lengths, kind="stable")
    order = order[lengths[order] > 0]  # nothing is left of a sentence without subwords where no special tokens are
    for start in Bar(range(0, len(order), batch_size), desc="predict", unit="batches"):
        rows = order[start : start + batch_size]
        sizes = lengths[rows]
        inputs = {"attention_mask": padding.filled(np.ones(sizes.sum(), dtype=np.int64), sizes, 0)}
        for name, flat in values.items():
            fill = pad_token_id if name == "input_ids" else 0
            inputs[name] = padding.filled(ragged.gather(flat, starts[rows], sizes), sizes, fill)
        yield rows, inputs
