"""Builds the model of a configuration on torch's meta device, to find errors before hours of other work.

1. `build` runs in a process with limits (limits.py), as the files are foreign.
2. `_problems` checks numbers with which a model can be built but not trained.
3. `_build` makes the model, whose tensors have shapes and no values, and compares the weights' names and shapes.
4. `_pass_fails` passes a few tokens through it.
"""

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from finetrail import stage
from finetrail.errors import UserError
from finetrail.sources.model_files import CONFIG

DEEPEST = 2000  # layers; building this many takes seconds
TOKENS = 7  # of a pass: few models have fewer positions, and a prime shows sizes that do not match
# The name of a number -> its lowest and highest value.
RANGES = {
    re.compile(r"(.*_)?(p?drop|dropout|layerdrop)(_(p|prob|rate))?"): (0.0, 1.0),
    re.compile(r"(.*_)?(eps|epsilon)"): (0.0, 1.0),
    re.compile(r"initializer_(range|factor)|init_std"): (0.0, 1e6),
}
META = ("meta", "data-dependent")  # in torch's message when a pass reads values of the meta device


def build(folder: Path, auto_class: str, where: str) -> None:
    """Raise UserError if a folder's configuration makes no model of transformers' auto_class, or none of its weights.

    On torch's meta device tensors have shapes and no values. A new model has no weights.
    """
    import transformers  # takes seconds, and the parent does not need it

    stage.silence_transformers()
    try:
        config = transformers.AutoConfig.from_pretrained(folder)
        problem = next(_problems(config), None)
        if problem is None:
            model = _build(folder, config, getattr(transformers, auto_class))
            problem = next(_empty(model), None) or _pass_fails(model)
    except UserError as error:  # from training's own checks, which name the folder
        raise UserError(f"{where}: {str(error).removeprefix(f'{folder}: ')}") from None
    except MemoryError:
        raise
    except Exception as error:  # each configuration and model checks its values in its own way
        problem = _reason(error, json.loads((folder / CONFIG).read_text(encoding="utf-8")))
    if problem:
        raise UserError(f"{where}: {CONFIG} makes no model: {problem:.300}")


def _reason(error: Exception, config: dict[str, Any]) -> str:
    """Return an error's message; for an unknown name, such as that of a function, with the key."""
    if isinstance(error, KeyError):
        for key, value in config.items():
            if error.args == (value,):
                return f"{key} is {value!r}, which it does not have"
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _problems(config: Any) -> Iterator[str]:
    """Yield problems of numbers with which a model can be built but not trained."""
    layers = getattr(config.get_text_config(), "num_hidden_layers", 1)
    if not 1 <= layers <= DEEPEST:
        yield f"it has {layers:,} layers; expected 1 to {DEEPEST:,}"
    for key, value in _numbers(config.to_dict()):
        if math.isnan(value):
            yield f"{key} is not a number"
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
    """Return the model without values; UserError, as in training, if weights lack what the configuration names."""
    import torch

    from finetrail.model.loading import checked

    if any(folder.glob("*.safetensors")):
        # Two labels, as in question answering: heads are new, and a finished classifier may have more labels.
        options = {"device_map": "meta", "ignore_mismatched_sizes": True, "num_labels": 2}
        return checked(folder, kind, kind._model_mapping, **options)[0]
    with torch.device("meta"):
        return kind.from_config(config, dtype=torch.float32)


def _empty(model: Any) -> Iterator[str]:
    """Yield the weights of the encoder, without the head, that have no elements."""
    for name, weight in model.base_model.named_parameters():
        if 0 in weight.shape:
            yield f"{name} has the shape {list(weight.shape)}; expected no size of 0"


def _pass_fails(model: Any) -> str | None:
    """Return why a few tokens do not pass through the model; None if they do, or if no configuration would let them.

    On the meta device a pass cannot read values, as some models do. So a failure counts only if the architecture with
    its default configuration does not fail.
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
