"""Copies a base model's fetched files to data/model, after verifying weights, configuration and tokenizer."""

import json
import re
import shutil
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors import SafetensorError, safe_open

from finetrail import json_errors
from finetrail.errors import UserError
from finetrail.model.base.growth import MOST, growth
from finetrail.progress import Bar
from finetrail.schema import TOKENIZER_TO_TRAIN
from finetrail.sources import Fetched, describe
from finetrail.sources.model_files import CONFIG, CONFIGS, INDEX, TOKENIZER, choose, is_any

ATTENTION_KEYS = ("attn_implementation", "attn_implementation_internal")
# The attention implementations that a configuration may name; other names are repositories of kernels on the Hub.
ATTENTION = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
IMPLEMENTATION = re.compile(r"\w*")  # of other parts of a model: a name in transformers, and not a repository
# Keys that make transformers run a repository's own code: of models and tokenizers, of pipelines, of generate().
CODE = ("auto_map", "custom_pipelines", "custom_generate")
TOKENIZER_CONFIG, TOKENIZER_JSON = "tokenizer_config.json", "tokenizer.json"
LARGEST = 1 << 27  # bytes of a tokenizer's file; a million tokens are 60 MB
# The files of a repository whose keys transformers acts on.
WITH_KEYS = (*CONFIGS, TOKENIZER_CONFIG)


def copy_verified(fetched: Fetched, target: Path) -> None:
    """Copy weights and config to `target`/weights, and the tokenizer's files with the config to `target`/tokenizer.

    A new model has no weights, and the settings of its tokenizer's training instead of a tokenizer.
    UserError if it has no safetensors, no tokenizer or no model_type, is damaged, or requires code of its own.
    """
    if fetched.provenance["kind"] == "new":
        for name in ("weights/config.json", "tokenizer/config.json", f"tokenizer/{TOKENIZER_TO_TRAIN}"):
            _copy(fetched.root / PurePosixPath(name).name, target / name)
        return
    where = describe(fetched.provenance)
    chosen = choose(fetched.files, where)
    source = fetched.root / PurePosixPath(next(name for name in chosen if PurePosixPath(name).name == CONFIG)).parent
    names = [(fetched.root / name).relative_to(source).as_posix() for name in chosen]
    tokenizer = [name for name in names if is_any(name, TOKENIZER)]
    _check_configs(source, where)
    _check_tokenizer(source, tokenizer, where)
    weights = _check_weights(source, [name for name in names if name.endswith(".safetensors")], where)
    others = [name for name in names if name not in tokenizer and not name.endswith(".safetensors")]
    for name in Bar([*others, *weights], desc="copy", unit="files"):
        _copy(source / name, target / "weights" / name)
    for name in (CONFIG, *tokenizer):
        _copy(source / name, target / "tokenizer" / name)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)  # the content alone: an installed package's files may be read-only


def _check_configs(folder: Path, where: str) -> None:
    config = _read_object(folder / CONFIG, where)
    if not isinstance(config.get("model_type"), str) or not config["model_type"]:
        raise UserError(f"{where}: {CONFIG} has no model_type; expected one that transformers knows, such as bert")
    for name in WITH_KEYS:
        if (folder / name).is_file():
            _refuse_code(_read_object(folder / name, where), f"{where}: {name}")


def _check_tokenizer(folder: Path, names: list[str], where: str) -> None:
    """Raise UserError if a tokenizer's files are too large, or its steps may make a text grow without bound."""
    for name in names:
        if (size := (folder / name).stat().st_size) > LARGEST:
            raise UserError(f"{where}: {name} has {size:,} bytes; expected at most {LARGEST:,} of a tokenizer's file")
    if TOKENIZER_JSON in names:
        content = _read_object(folder / TOKENIZER_JSON, where)
        for step in ("normalizer", "pre_tokenizer", "decoder"):
            try:
                grows = growth(content.get(step)) > MOST
            except RecursionError:
                raise UserError(f"{where}: {TOKENIZER_JSON}: its {step} is nested too deeply") from None
            if grows:
                raise UserError(
                    f"{where}: {TOKENIZER_JSON}: its {step} may make a text more than {MOST:,} times as long; expected "
                    "one that does not"
                )


def _refuse_code(config: dict[str, Any], where: str, inside: str = "") -> None:
    """Raise UserError if a configuration, or one inside it, names code that transformers would fetch."""
    for key, value in config.items():
        if key in CODE:
            raise UserError(f"{where} has {inside}{key}: it wants code of its own to run; expected a built-in model")
        if key == "quantization_config" and value:
            raise UserError(f"{where}: {inside}{key}: its weights are quantized; expected those in fp32, fp16 or bf16")
        if "_implementation" in key:
            named = value.values() if isinstance(value, dict) else [value]  # of each model inside
            if foreign := [one for one in named if not _is_built_in(key, one)]:
                raise UserError(
                    f"{where}: {inside}{key} is {foreign[0]!r:.60}, which transformers would fetch as code; expected "
                    f"one of {', '.join(ATTENTION)}, or none"
                )
        for below in value if isinstance(value, list) else [value]:
            if isinstance(below, dict):
                _refuse_code(below, where, f"{inside}{key}.")


def _is_built_in(key: str, value: Any) -> bool:
    """Return True if a configuration's value for an implementation is one of transformers' own."""
    if key.lstrip("_") in ATTENTION_KEYS:
        return value in (None, *ATTENTION)
    return not isinstance(value, str) or IMPLEMENTATION.fullmatch(value) is not None


def _check_weights(folder: Path, present: list[str], where: str) -> list[str]:
    """Check headers, sizes and the index; return the files with the weights."""
    if not (folder / INDEX).is_file() or present == ["model.safetensors"]:
        _tensors(folder / present[0], where)
        return present
    weight_map = _read_object(folder / INDEX, where).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{where}: {INDEX} has no weight_map; expected the file of each tensor")
    shards = sorted(set(weight_map.values()))
    for shard in shards:
        if shard not in present:
            raise UserError(f"{where}: {shard} is missing; expected every shard that {INDEX} names")
        missing = {tensor for tensor, file in weight_map.items() if file == shard} - _tensors(folder / shard, where)
        if missing:
            raise UserError(f"{where}: {shard} lacks {min(missing)}; expected the tensors that {INDEX} names")
    return shards


def _tensors(path: Path, where: str) -> set[str]:
    """Return the names of the tensors; safetensors itself compares the header with the size of the file."""
    try:
        with safe_open(path, framework="numpy") as file:
            names = set(file.keys())
    except SafetensorError:
        raise UserError(
            f"{where}: {path.name} is damaged or truncated; expected the file as it was written: fetch it again"
        ) from None
    if not names:
        raise UserError(f"{where}: {path.name} holds no tensors; expected the model's weights")
    return names


def _read_object(path: Path, where: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        problem = f"{json_errors.described(error)}, line {error.lineno}"
        raise UserError(f"{where}: {path.name} is not JSON: {problem}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: {path.name} is not JSON: byte {error.start} is not UTF-8") from None
    except (RecursionError, ValueError):  # the latter of a number of more than 4,300 digits
        raise UserError(f"{where}: {path.name} is nested too deeply, or has a number of thousands of digits") from None
    if not isinstance(value, dict):
        raise UserError(f"{where}: {path.name} holds no JSON object")
    return value
