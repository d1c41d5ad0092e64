"""Turns features into a model's outputs, in batches of similar length, whatever runs the model."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
# A decoder's new tokens, and what it keeps of those before (None: there are none) -> the logits behind the last,
# float64 [vocabulary], and what it keeps now. A Forward of a model that can do so has it as its `read`.
Read = Callable[[list[int], Any], tuple[np.ndarray, Any]]

IDS = ("input_ids", "token_type_ids")
# What else an ONNX decoder takes and gives: keys and values of the tokens before, and of all.
POSITIONS, PAST, PRESENT = "position_ids", "past_key_values.", "present."


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

    from finetrail.patches.attention_masks import use_masks_unread
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

    def read(tokens: list[int], kept: Any) -> tuple[np.ndarray, Any]:
        with torch.inference_mode():
            ids = torch.tensor([tokens], device=model.device)
            outputs = model(input_ids=ids, past_key_values=kept, use_cache=True)
        return np.asarray(outputs.logits[0, -1].double().cpu()), outputs.past_key_values

    forward.read = read  # type: ignore[attr-defined]
    if on_cuda:
        forward.launch = launch  # type: ignore[attr-defined]  # of a CPU it would only keep two batches' outputs
    return forward


def onnx_forward(path: Path, threads: int | None = None) -> Forward:
    """Open an ONNX model on the CPU as inputs [batch, length] by name -> outputs by name.

    threads: None takes as many as there are cores.
    """
    import onnxruntime  # torch needs none of it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    outputs = [output.name for output in session.get_outputs() if not output.name.startswith(PRESENT)]
    shapes = {given.name: given.shape for given in session.get_inputs() if given.name.startswith(PAST)}

    def forward(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if shapes:
            mask = inputs["attention_mask"]
            inputs = inputs | {POSITIONS: np.maximum(mask.cumsum(1) - 1, 0)} | _nothing_read(shapes, len(mask))
        return dict(zip(outputs, session.run(outputs, inputs), strict=True))

    forward.inputs = [given.name for given in session.get_inputs()]  # type: ignore[attr-defined]  # for who encodes
    if shapes:
        forward.read = _reader(session, shapes)  # type: ignore[attr-defined]
    return forward


def _nothing_read(shapes: dict[str, list[Any]], batch: int) -> dict[str, np.ndarray]:
    """Return the memory of a decoder that has read nothing: [batch, heads, 0, width] for keys and values."""
    return {name: np.zeros((batch, heads, 0, width), np.float32) for name, (_, heads, _, width) in shapes.items()}


def _reader(session: Any, shapes: dict[str, list[Any]]) -> Read:
    """Return what reads one text bit by bit."""
    outputs = ["logits", *(PRESENT + name.removeprefix(PAST) for name in shapes)]

    def read(tokens: list[int], kept: Any) -> tuple[np.ndarray, Any]:
        past = _nothing_read(shapes, 1) if kept is None else kept
        before = next(iter(past.values())).shape[2]
        positions = np.arange(before, before + len(tokens))[None]
        inputs = {"input_ids": np.array([tokens], dtype=np.int64), POSITIONS: positions}
        inputs["attention_mask"] = np.ones((1, before + len(tokens)), dtype=np.int64)
        logits, *present = session.run(outputs, inputs | past)
        return logits[0, -1].astype(np.float64), dict(zip(shapes, present, strict=True))

    return read


def forward_batches(
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
    for start in Bar(range(0, len(order), batch_size), desc="predict", unit="batches", delay=1):
        rows = order[start : start + batch_size]
        sizes = lengths[rows]
        inputs = {"attention_mask": padding.filled(np.ones(sizes.sum(), dtype=np.int64), sizes, 0)}
        for name, flat in values.items():
            fill = pad_token_id if name == "input_ids" else 0
            inputs[name] = padding.filled(ragged.gather(flat, starts[rows], sizes), sizes, fill)
        yield rows, inputs
