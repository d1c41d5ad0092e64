"""Tells how large exported weights are."""

from pathlib import Path


def mib(folder: Path, pattern: str) -> float:
    """Return the size of the files of a form together: model*.safetensors, or model.onnx* with weights beside it."""
    return round(sum(file.stat().st_size for file in folder.glob(pattern)) / 2**20, 2)
