"""Turns a torch model into self-contained ONNX files: float32 and int8.

Inputs, outputs and their dimensions have the names that optimum and transformers.js look for.
"""

import inspect
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import DynamicCache, PreTrainedModel

from finetrail.errors import UserError
from finetrail.evaluation.inference import PAST, POSITIONS, PRESENT
from finetrail.progress import working

BATCH, LENGTH, PAST_LENGTH, TOTAL_LENGTH = (
    torch.export.Dim(name)
    for name in ("batch_size", "sequence_length", "past_sequence_length", "total_sequence_length")
)
KEYS_AND_VALUES = ("key", "value")  # of each layer of a decoder: [batch_size, heads, length, width]


class Traced(NamedTuple):
    """Arguments of torch.onnx.export."""

    module: torch.nn.Module
    sample: dict[str, Any]
    shapes: dict[str, Any]
    inputs: list[str]
    outputs: list[str]


def export_onnx(model: PreTrainedModel, path: Path, inputs: list[str]) -> None:
    """Write the model with inputs int64 [batch_size, sequence_length], and the outputs and dtype of its forward().

    inputs: without token_type_ids the graph holds its zeros, as torch implies them. ONNX has no optional input of
    dynamic shape, so each user would have to send them; transformers.js sends just the inputs that a file names.
    A decoder also takes position_ids, and the keys and values of earlier tokens, which may be none; it gives those of
    all tokens.
    One file; beyond protobuf's 2 GB the weights are in {path}.data. Leaves the model in eval mode.
    Raises UserError with the cause where torch cannot trace or convert the architecture.
    """
    model.eval()
    past = _keys_and_values(model)
    traced = _with_past(model, past) if past else _without_past(model, inputs)
    try:
        with _quiet(), working("convert to ONNX"):
            program: Any = torch.onnx.export(
                traced.module,
                kwargs=traced.sample,
                input_names=traced.inputs,
                output_names=traced.outputs,
                dynamic_shapes=traced.shapes,
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        cause = error.__cause__ or error
        if isinstance(cause, MemoryError):
            raise cause from None
        raise UserError(
            f"export: {type(model).__name__} does not convert to ONNX: {type(cause).__name__}: {cause}; "
            "expected an architecture that torch.onnx.export supports"
        ) from error
    # torch 2.13 writes into every node the stack that made it, with absolute paths of this machine.
    ClearMetadataAndDocStringPass()(program.model)
    # Without the build, such as +cpu, so that all builds of torch write the same bytes.
    program.model.producer_version = torch.__version__.split("+")[0]
    program.save(path)


def _without_past(model: PreTrainedModel, inputs: list[str]) -> Traced:
    # Two different sizes above 1: torch.export takes a size of 1, and sizes that are always equal, as fixed.
    sample = {name: torch.ones(2, 8, dtype=torch.int64, device=model.device) for name in inputs}
    with torch.no_grad():
        outputs = list(model(**sample).keys())
    return Traced(model, sample, dict.fromkeys(inputs, {0: BATCH, 1: LENGTH}), inputs, outputs)


def _with_past(model: PreTrainedModel, past: list[torch.Tensor]) -> Traced:
    """Return a decoder that reads 5 tokens after those of `past`, a sample cache."""
    before, new = past[0].shape[2], 5
    names = [f"{layer}.{kind}" for layer in range(len(past) // 2) for kind in KEYS_AND_VALUES]
    sample: dict[str, Any] = {
        "input_ids": torch.ones(2, new, dtype=torch.int64, device=model.device),
        "attention_mask": torch.ones(2, before + new, dtype=torch.int64, device=model.device),
        POSITIONS: torch.arange(before, before + new, device=model.device).repeat(2, 1),
        "past": past,
    }
    shapes = {
        "input_ids": {0: BATCH, 1: LENGTH},
        "attention_mask": {0: BATCH, 1: TOTAL_LENGTH},
        POSITIONS: {0: BATCH, 1: LENGTH},
        "past": [{0: BATCH, 2: PAST_LENGTH}] * len(past),
    }
    inputs = [*list(sample)[:-1], *(PAST + name for name in names)]
    return Traced(Decoder(model), sample, shapes, inputs, ["logits", *(PRESENT + name for name in names)])


class Decoder(torch.nn.Module):
    """A causal language model whose cache consists of inputs and outputs, because ONNX models have no state."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.takes_positions = POSITIONS in inspect.signature(model.forward).parameters

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        past: list[torch.Tensor],
    ) -> tuple[torch.Tensor, ...]:
        """Return the logits of the new tokens, and keys and values of all, layer by layer."""
        cache = DynamicCache()
        for layer in range(len(past) // 2):
            cache.update(past[2 * layer], past[2 * layer + 1], layer)
        positions = {POSITIONS: position_ids} if self.takes_positions else {}
        outputs = self.model(
            input_ids=input_ids, attention_mask=attention_mask, past_key_values=cache, use_cache=True, **positions
        )
        return outputs.logits, *_of_layers(outputs.past_key_values)


@torch.no_grad()
def _keys_and_values(model: PreTrainedModel) -> list[torch.Tensor]:
    """Return the keys and values of 3 tokens in 2 texts; [] for a model that does not generate text.

    Also [] for a model with another kind of cache, such as state space models.
    """
    if not model.can_generate():
        return []
    tokens = torch.ones(2, 3, dtype=torch.int64, device=model.device)
    cache = getattr(model(input_ids=tokens, use_cache=True), "past_key_values", None)
    if not isinstance(cache, DynamicCache) or not all(hasattr(layer, "keys") for layer in cache.layers):
        return []
    return _of_layers(cache)


def _of_layers(cache: DynamicCache) -> list[torch.Tensor]:
    layers: list[Any] = cache.layers
    return [tensor for layer in layers for tensor in (layer.keys, layer.values)]


def quantize_int8(fp32: Path, int8: Path) -> None:
    """Write a model with weights in int8; activations are quantized as they come, with one range for a whole batch.

    A scale for each channel, and 7 of the 8 bits: on CPUs without VNNI, 8-bit products can overflow their 16-bit sums.
    MiniLM-L6 on WNUT-2016 then differs from float32 in 33 of 9,228 words; with onnxruntime's defaults in 61.
    """
    model = onnx.load(fp32)
    # onnxruntime 1.31 transposes Gemm's weights in place, then refuses them for the shapes that torch noted here.
    model.graph.ClearField("value_info")
    with _quiet(), working("quantize to int8"):
        quantize_dynamic(model, int8, per_channel=True, reduce_range=True, weight_type=QuantType.QInt8)


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop the dozens of warnings about libraries' own internals; exceptions pass."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
