"""Turns features into a model's outputs, in batches of similar length, whatever runs the model."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from tqdm.auto import tqdm

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# input_ids, attention_mask and perhaps token_type_ids, int64 [batch, length] -> the model's outputs by name, float32
# [batch, ...], such as logits.
Forward = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]

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

    model.eval()

    def forward(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            outputs = model(**{name: torch.from_numpy(array).to(model.device) for name, array in inputs.items()})
            return {name: np.asarray(value.float().cpu()) for name, value in outputs.items() if torch.is_tensor(value)}

    forward.model = model  # type: ignore[attr-defined]  # generation keeps what it has read, which takes the model
    return forward


def run(
    features: pa.Table, forward: Forward, pad_token_id: int, batch_size: int
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Yield (rows, outputs) of each batch: the longest first, so that memory runs out at once or not at all."""
    lists = {name: features[name].combine_chunks() for name in IDS if name in features.column_names}
    bounds = lists["input_ids"].offsets.to_numpy() - lists["input_ids"].offsets[0].as_py()
    values = {name: column.flatten().to_numpy() for name, column in lists.items()}
    lengths = np.diff(bounds)
    order = np.argsort(-lengths, kind="stable")
    order = order[lengths[order] > 0]  # nothing is left of a sentence without subwords where no special tokens are
    for start in tqdm(range(0, len(order), batch_size), desc="predict", unit="batch", disable=None, leave=False):
        rows = order[start : start + batch_size]
        mask = np.arange(lengths[rows[0]]) < lengths[rows, None]
        inputs = {"attention_mask": mask.astype(np.int64)}
        for name, flat in values.items():
            inputs[name] = np.full(mask.shape, pad_token_id if name == "input_ids" else 0, dtype=np.int64)
            inputs[name][mask] = np.concatenate([flat[bounds[row] : bounds[row + 1]] for row in rows])
        yield rows, forward(inputs)
