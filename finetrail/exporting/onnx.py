"""Turns a torch model into self-contained ONNX files (float32, int8), and such a file into a function giving logits."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import PreTrainedModel

from finetrail.errors import UserError
from finetrail.evaluation.inference import Forward
from finetrail.progress import working


def export_onnx(model: PreTrainedModel, path: Path, inputs: list[str]) -> None:
    """Write the model with inputs int64 [batch, length], both dynamic, and the outputs and dtype of its forward().

    inputs: without token_type_ids the graph holds its zeros, as torch implies them. ONNX has no optional input of
    dynamic shape, so each user would have to send them; transformers.js sends just the inputs that a file names.
    One file; beyond protobuf's 2 GB the weights stand beside it in {path}.data. Leaves the model in eval mode.
    Raises UserError with the cause where torch cannot trace or convert the architecture.
    """
    model.eval()
    # Two different sizes above 1: torch.export takes a size of 1, and sizes that are always equal, as fixed.
    sample = {name: torch.ones(2, 8, dtype=torch.int64, device=model.device) for name in inputs}
    shape = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    with torch.no_grad():
        outputs = list(model(**sample).keys())
    try:
        with _quiet(), working("convert to ONNX"):
            program: Any = torch.onnx.export(
                model,
                kwargs=sample,
                output_names=outputs,
                dynamic_shapes=dict.fromkeys(inputs, shape),
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        cause = error.__cause__ or error
        raise UserError(
            f"export: {type(model).__name__} does not convert to ONNX: {type(cause).__name__}: {cause}; "
            "expected an architecture that torch.onnx.export supports"
        ) from error
    # torch 2.13 writes into every node the stack that made it, with absolute paths of this machine.
    ClearMetadataAndDocStringPass()(program.model)
    # Without the build, such as +cpu, so that torch's builds write the same bytes.
    program.model.producer_version = torch.__version__.split("+")[0]
    program.save(path)


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


def onnx_forward(path: Path, threads: int | None = None) -> Forward:
    """Open an ONNX model on the CPU as inputs [batch, length] by name -> outputs by name.

    threads: None takes as many as there are cores.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    outputs = [output.name for output in session.get_outputs()]

    def forward(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(outputs, session.run(outputs, inputs), strict=True))

    return forward


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
