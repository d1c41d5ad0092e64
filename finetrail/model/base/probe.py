"""Builds the model of a configuration without its numbers, and says what does not fit: before hours of other work."""

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from finetrail import stage
from finetrail.errors import UserError
from finetrail.sources.model_files import CONFIG

DEEPEST = 2000  # layers; building so many takes seconds
TOKENS = 7  # of a pass: few models have fewer positions, and it is a multiple of nothing
# The name of a number -> the least and the most that it may be.
RANGES = {
    re.compile(r"(.*_)?(p?drop|dropout|layerdrop)(_(p|prob|rate))?"): (0.0, 1.0),
    re.compile(r"(.*_)?(eps|epsilon)"): (0.0, 1.0),
    re.compile(r"initializer_(range|factor)|init_std"): (0.0, 1e6),
}
META = ("meta", "data-dependent")  # what torch says where a pass wants to look at numbers


def build(folder: Path, auto_class: str, where: str) -> None:
    """Raise UserError where a folder's configuration makes no model of transformers' auto_class, or not of its weights.

    On torch's meta device, where tensors have shapes and no numbers. A new model has no weights.
    """
    import transformers  # seconds, and the parent has no use for it

    stage.silence_transformers()
    try:
        config = transformers.AutoConfig.from_pretrained(folder)
        problem = next(_problems(config), None)
        if problem is None:
            model = _build(folder, config, getattr(transformers, auto_class))
            problem = next(_empty(model), None) or _pass_fails(model)
    except UserError as error:  # of training's own checks, which name the folder
        raise UserError(f"{where}: {str(error).removeprefix(f'{folder}: ')}") from None
    except MemoryError:
        raise
    except Exception as error:  # each configuration and model checks its values in its own way, or not at all
        problem = _reason(error, json.loads((folder / CONFIG).read_text(encoding="utf-8")))
    if problem:
        raise UserError(f"{where}: {CONFIG} makes no model: {problem:.300}")


def _reason(error: Exception, config: dict[str, Any]) -> str:
    """Return what an error says; of a choice that is none, such as of a function, the key too."""
    if isinstance(error, KeyError):
        for key, value in config.items():
            if error.args == (value,):
                return f"{key} is {value!r}, which it has not"
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _problems(config: Any) -> Iterator[str]:
    """Yield what is wrong with numbers that a model can be built with, and not trained."""
    layers = getattr(config.get_text_config(), "num_hidden_layers", 1)
    if not 1 <= layers <= DEEPEST:
        yield f"it has {layers:,} layers; expected 1 to {DEEPEST:,}"
    for key, value in _numbers(config.to_dict()):
        if math.isnan(value):
            yield f"{key} is no number"
        for name, (least, most) in RANGES.items():
            if name.fullmatch(key.rpartition(".")[2]) and not least <= value <= most:
                yield f"{key} is {value}; expected {least:g} to {most:g}"


def _numbers(values: dict[str, Any], inside: str = "") -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{inside}{key}.")
        elif isinstance(value, int | float):
            yield f"{inside}{key}", value


def _build(folder: Path, config: Any, kind: Any) -> Any:
    """Return the model without numbers; UserError, as in training, where weights lack what the configuration names."""
    import torch

    from finetrail.model.loading import checked

    if any(folder.glob("*.safetensors")):
        # Two labels, as answers have: heads are new, and those of a finished classifier may be more.
        options = {"device_map": "meta", "ignore_mismatched_sizes": True, "num_labels": 2}
        return checked(folder, kind, kind._model_mapping, **options)[0]
    with torch.device("meta"):
        return kind.from_config(config, dtype=torch.float32)


def _empty(model: Any) -> Iterator[str]:
    """Yield the weights of the encoder, without the head, that have no numbers at all."""
    for name, weight in model.base_model.named_parameters():
        if 0 in weight.shape:
            yield f"{name} has the shape {list(weight.shape)}; expected no size of 0"


def _pass_fails(model: Any) -> str | None:
    """Return why a few tokens do not go through; None where they do, or where they would not with any values.

    A pass on the meta device cannot look at numbers, as some models do. So the architecture with its own default values
    tells whether a failure says anything.
    """
    import torch

    def failure(build: Callable[[], Any]) -> Exception | None:
        try:
            with torch.device("meta"):
                build().train()(input_ids=torch.zeros(1, TOKENS, dtype=torch.long))
        except Exception as error:
            return error
        return None

    found = failure(lambda: model)
    if found is None or any(words in str(found) for words in META):
        return None
    return None if failure(lambda: type(model)(type(model.config)())) else _reason(found, {})
