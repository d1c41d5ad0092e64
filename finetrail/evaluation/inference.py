"""Turns features into a model's outputs, in batches of similar length, whatever runs the model."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from tqdm.auto import tqdm

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# input_ids and attention_mask, int64 [batch, length] -> logits, float32 [batch, length, classes]
Forward = Callable[[np.ndarray, np.ndarray], np.ndarray]


def device() -> str:
    """Return the device that evaluates: the accelerator where there is one."""
    import torch  # an ONNX session needs no torch

    return str(torch.accelerator.current_accelerator()) if torch.accelerator.is_available() else "cpu"


def torch_forward(model: "PreTrainedModel") -> Forward:
    """Run a torch model where its weights are, without gradients, in fp32."""
    import torch

    model.eval()

    def forward(input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            inputs = [torch.from_numpy(array).to(model.device) for array in (input_ids, attention_mask)]
            logits: Any = model(input_ids=inputs[0], attention_mask=inputs[1]).logits
            return np.asarray(logits.float().cpu())

    return forward


def run(
    input_ids: pa.ChunkedArray, forward: Forward, pad_token_id: int, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (rows, logits) of each batch: the longest first, so that memory runs out at once or not at all."""
    lists = input_ids.combine_chunks()
    bounds, values = lists.offsets.to_numpy() - lists.offsets[0].as_py(), lists.flatten().to_numpy()
    lengths = np.diff(bounds)
    order = np.argsort(-lengths, kind="stable")
    order = order[lengths[order] > 0]  # nothing is left of a sentence without subwords where no special tokens are
    for start in tqdm(range(0, len(order), batch_size), desc="predict", unit="batch", disable=None, leave=False):
        rows = order[start : start + batch_size]
        mask = np.arange(lengths[rows[0]]) < lengths[rows, None]
        padded = np.full(mask.shape, pad_token_id, dtype=np.int64)
        padded[mask] = np.concatenate([values[bounds[row] : bounds[row + 1]] for row in rows])
        yield rows, forward(padded, mask.astype(np.int64))
