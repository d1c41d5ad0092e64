"""Turns features into a model's outputs, in batches of similar length, with torch or ONNX."""

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
# Returns the outputs of a batch, and waits for the device if it still computes them.
Fetch = Callable[[], dict[str, np.ndarray]]
# A decoder's new tokens and its cache of earlier tokens (None: there are none) -> the logits after the last token,
# float64 [vocabulary], and the new cache. The Forward of a model with such a cache has it as its attribute `read`.
Read = Callable[[list[int], Any], tuple[np.ndarray, Any]]

IDS = ("input_ids", "token_type_ids")
# Further inputs and outputs of an ONNX decoder: keys and values of earlier tokens, and of all tokens.
POSITIONS, PAST, PRESENT = "position_ids", "past_key_values.", "present."


def input_names(features: pa.Schema) -> list[str]:
    """Return the names of the model's inputs for these features; padding makes attention_mask."""
    return ["input_ids", "attention_mask", *(name for name in IDS[1:] if name in features.names)]


def device() -> str:
    """Return the device of evaluation: the accelerator if there is one, else the CPU."""
    import torch  # an ONNX session needs no torch

    return str(torch.accelerator.current_accelerator()) if torch.accelerator.is_available() else "cpu"


def torch_forward(model: "PreTrainedModel") -> Forward:
    """Return the Forward of a torch model, which runs on the device of its weights, without gradients, in fp32."""
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
        forward.launch = launch  # type: ignore[attr-defined]  # on a CPU it would only hold the outputs of two batches
    return forward


def onnx_forward(path: Path, threads: int | None = None) -> Forward:
    """Return the Forward of an ONNX model on the CPU.

    threads: None means one per core.
    """
    import onnxruntime  # torch does not need it

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

    forward.inputs = [given.name for given in session.get_inputs()]  # type: ignore[attr-defined]  # for encoders
    if shapes:
        forward.read = _reader(session, shapes)  # type: ignore[attr-defined]
    return forward


def _nothing_read(shapes: dict[str, list[Any]], batch: int) -> dict[str, np.ndarray]:
    """Return the empty cache of a decoder: [batch, heads, 0, width] for keys and values."""
    return {name: np.zeros((batch, heads, 0, width), np.float32) for name, (_, heads, _, width) in shapes.items()}


def _reader(session: Any, shapes: dict[str, list[Any]]) -> Read:
    """Return the Read of an ONNX decoder, for one text at a time."""
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
    """Yield (rows, outputs) of each batch; the longest come first, so that memory runs out at once or not at all.

    A GPU computes the next batch while the caller uses the outputs of the last one.
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
    """Yield (rows, outputs) of each batch of (rows, inputs), after the next batch was launched."""
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
    order = order[lengths[order] > 0]  # a sentence without subwords is empty if the tokenizer adds no special tokens
    for start in Bar(range(0, len(order), batch_size), desc="predict", unit="batches", delay=1):
        rows = order[start : start + batch_size]
        sizes = lengths[rows]
        inputs = {"attention_mask": padding.filled(np.ones(sizes.sum(), dtype=np.int64), sizes, 0)}
        for name, flat in values.items():
            fill = pad_token_id if name == "input_ids" else 0
            inputs[name] = padding.filled(ragged.gather(flat, starts[rows], sizes), sizes, fill)
        yield rows, inputs
