"""Keeps some of a model's layers, as the initial weights of a smaller model (Sanh et al. 2019)."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetrail.errors import UserError
from finetrail.sources.model_files import CONFIG, INDEX
from finetrail.stage import write_json

# model_type -> the prefix of its layers' tensors, and the key of config.json that counts layers. Only architectures
# whose layers are alike and numbered, so that any layer can be in any place.
BERT = "encoder.layer", "num_hidden_layers"
STACKS = dict.fromkeys(("bert", "camembert", "electra", "mpnet", "roberta", "xlm-roberta"), BERT)
STACKS |= {"distilbert": ("transformer.layer", "n_layers")}
FORMAT = {"format": "pt"}  # without it transformers refuses a file

# The name of a tensor -> its new name, or None if it is left out.
Renamed = Callable[[str], str | None]


def keep_layers(folder: Path, layers: list[int]) -> None:
    """Keep these layers, counted from 0, in the weights and the configuration of a folder, with embeddings and head.

    UserError if the architecture is not known, or has no such layer.
    """
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    if config["model_type"] not in STACKS:
        raise UserError(
            f"model.layers: {config['model_type']} is not an architecture whose layers can be left out; "
            f"expected {', '.join(sorted(STACKS))}, or layers null"
        )
    stack, key = STACKS[config["model_type"]]
    files = sorted(folder.glob("*.safetensors"))
    numbered = re.compile(rf"((?:^|.*\.){re.escape(stack)}\.)(\d+)(\..*)")
    there = {int(match[2]) for file in files for name in _header(file)[0] if (match := numbered.fullmatch(name))}
    if missing := sorted(set(layers) - there):
        raise UserError(f"model.layers: there is no layer {missing[0]}; expected 0 to {max(there, default=-1)}")
    places = {layer: place for place, layer in enumerate(layers)}

    def renamed(name: str) -> str | None:
        match = numbered.fullmatch(name)
        if match is None:
            return name
        return f"{match[1]}{places[int(match[2])]}{match[3]}" if int(match[2]) in places else None

    for file in files:
        _rewrite(file, renamed)
    if (folder / INDEX).is_file():
        _rewrite_index(folder / INDEX, renamed)
    write_json(folder / CONFIG, config | {key: len(layers)})


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the header's entries of a safetensors file by tensor name, and the offset of the tensors' bytes."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    return header, 8 + size


def _rewrite(path: Path, renamed: Renamed) -> None:
    """Rewrite a safetensors file with the tensors that have a new name, as bytes, because numpy has no bfloat16.

    The format: the header's size in 8 bytes, the header as JSON, then the tensors without gaps.
    """
    tensors, begin = _header(path)
    kept = {place: tensors[name] for name in tensors if (place := renamed(name)) is not None}
    header: dict[str, Any] = {"__metadata__": FORMAT}
    end = 0
    for name, tensor in kept.items():
        first, last = tensor["data_offsets"]
        header[name] = tensor | {"data_offsets": [end, end := end + last - first]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    beside = path.with_suffix(".kept")
    with path.open("rb") as old, beside.open("wb") as new:
        new.write(len(text).to_bytes(8, "little") + text)
        for tensor in kept.values():
            first, last = tensor["data_offsets"]
            old.seek(begin + first)
            new.write(old.read(last - first))
    os.replace(beside, path)


def _rewrite_index(path: Path, renamed: Renamed) -> None:
    weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
    kept = {new: file for name, file in weight_map.items() if (new := renamed(name)) is not None}
    headers = [_header(path.with_name(file))[0] for file in sorted(set(kept.values()))]
    offsets = (tensor["data_offsets"] for header in headers for tensor in header.values())
    total = sum(last - first for first, last in offsets)
    write_json(path, {"metadata": {"total_size": total}, "weight_map": kept})
