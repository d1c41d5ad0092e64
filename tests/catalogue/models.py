"""Base models: folders that are not models, configurations that choose code or fit no model, damaged weights."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from catalogue.case import Case, Changes, zipped

GROWS = "may make a text more than 1,000 times as long; expected one that does not"
DAMAGED = "model.safetensors is damaged or truncated; expected the file as it was written: fetch it again"

# What becomes of a copy of the tiny checkpoint.
Edit = Callable[[Path], object]


def configured(**changes: Any) -> Edit:
    """The checkpoint with other values in its config.json; None takes a key away."""

    def edit(folder: Path) -> None:
        file = folder / "config.json"
        config = json.loads(file.read_text()) | changes
        file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))

    return edit


def written(name: str, content: bytes) -> Edit:
    return lambda folder: (folder / name).write_bytes(content)


def removed(*names: str) -> Edit:
    return lambda folder: [(folder / name).unlink() for name in names]


def weights(change: Callable[[bytes], bytes]) -> Edit:
    def edit(folder: Path) -> None:
        file = folder / "model.safetensors"
        file.write_bytes(change(file.read_bytes()))

    return edit


def header(text: bytes) -> Callable[[bytes], bytes]:
    """Weights whose header is this text."""
    return lambda content: len(text).to_bytes(8, "little") + text + content[-100:]


def relabelled(change: dict[str, Any]) -> Callable[[bytes], bytes]:
    """Weights whose first tensor has other fields in the header; None takes one away."""

    def edit(content: bytes) -> bytes:
        size = int.from_bytes(content[:8], "little")
        tensors = json.loads(content[8 : 8 + size])
        first = min(name for name in tensors if name != "__metadata__")
        tensors[first] = {key: value for key, value in (tensors[first] | change).items() if value is not None}
        text = json.dumps(tensors).encode()
        return len(text).to_bytes(8, "little") + text + content[8 + size :]

    return edit


def tokenizer(**changes: Any) -> Edit:
    """The checkpoint with other parts of its tokenizer.json."""

    def edit(folder: Path) -> None:
        file = folder / "tokenizer.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return edit


def replacing(pattern: str | dict[str, str], content: str) -> dict[str, Any]:
    found = {"String": pattern} if isinstance(pattern, str) else pattern
    return {"type": "Replace", "pattern": found, "content": content}


def splitting(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def nested(depth: int) -> dict[str, Any]:
    inner: dict[str, Any] = {"type": "NFC"}
    for _ in range(depth):
        inner = {"type": "Sequence", "normalizers": [inner]}
    return inner


def without_padding(folder: Path) -> None:
    file = folder / "tokenizer_config.json"
    config = {key: value for key, value in json.loads(file.read_text()).items() if key != "pad_token"}
    file.write_text(json.dumps(config | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    (folder / "special_tokens_map.json").unlink(missing_ok=True)


def far_token(folder: Path) -> None:
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["vocab"][max(content["model"]["vocab"])] = 10**6
    file.write_text(json.dumps(content))


def long_word(path: Path) -> None:
    """A sentence of the toy corpus that is one word of 100 letters."""
    lines = path.read_text(encoding="utf-8").splitlines()
    lines.append(json.dumps(json.loads(lines[0]) | {"tokens": ["x" * 100], "labels": ["O"]}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def case(name: str, edit: Edit, says: str) -> Case:
    changes: Changes = {"model.source": {"kind": "file", "path": "../corpus/model", "sha256": None}}
    return Case(f"model: {name}", {}, changes, says, "token_classification", "download@model", model=edit)


def new(name: str, config: dict[str, Any], says: str) -> Case:
    tokenizer = {"kind": "byte_level_bpe", "vocab_size": 300, "min_frequency": 2}
    sizes = {"model_type": "gpt2", "n_layer": 1, "n_embd": 16, "n_head": 2, "n_positions": 32}
    changes: Changes = {"model.source": {"kind": "new", "config": sizes | config, "tokenizer": tokenizer}}
    return Case(f"new model: {name}", {}, changes, says, "text_generation", "download@model")


def emptied(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


CASES = [
    case("an empty folder", emptied, "no such file"),
    case("no config.json", removed("config.json"), "no config.json; expected a folder as transformers saves it"),
    case(
        "no weights",
        removed("model.safetensors"),
        "no weights; expected model.safetensors, or model.safetensors.index.json and its shards",
    ),
    case(
        "no tokenizer",
        lambda folder: [path.unlink() for path in folder.iterdir() if "token" in path.name or "vocab" in path.name],
        "no tokenizer; expected tokenizer.json, vocab.txt, vocab.json, *.model beside config.json",
    ),
    case(
        "pickled weights alone",
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
        "its weights (pytorch_model.bin) are in a format that can run code when loaded; expected model.safetensors: if "
        "you trust ",
    ),
    case(
        "config.json that is no JSON",
        written("config.json", b"{"),
        "config.json is not JSON: it breaks off, column 2, line 1",
    ),
    case("config.json that is a list", written("config.json", b"[]"), "config.json holds no JSON object"),
    case(
        "config.json nested 100,000 deep",
        written("config.json", b"[" * 100_000),
        "config.json is nested too deeply, or has a number of thousands of digits",
    ),
    case(
        "config.json with a number of 5,000 digits",
        written("config.json", b'{"model_type": "bert", "hidden_size": ' + b"9" * 5000 + b"}"),
        "config.json is nested too deeply, or has a number of thousands of digits",
    ),
    case(
        "config.json that is no text",
        written("config.json", b"\xff\xfe"),
        "config.json is not JSON: byte 0 is not UTF-8",
    ),
    case(
        "no model_type",
        configured(model_type=None),
        "config.json has no model_type; expected one that transformers knows, such as bert",
    ),
    case(
        "a model_type that is a number",
        configured(model_type=7),
        "config.json has no model_type; expected one that transformers knows, such as bert",
    ),
    case(
        "code of its own",
        configured(auto_map={"AutoModel": "modeling.Model"}),
        "config.json has auto_map: it wants code of its own to run; expected a built-in model",
    ),
    case(
        "code of its own for the tokenizer",
        written("tokenizer_config.json", b'{"auto_map": {"AutoTokenizer": ["x.Y", null]}}'),
        "tokenizer_config.json has auto_map: it wants code of its own to run; expected a built-in model",
    ),
    case(
        "an attention from the Hub",
        configured(attn_implementation="owner/kernel"),
        "config.json: attn_implementation is 'owner/kernel', which transformers would fetch as code; expected one of "
        "eager, sdpa,",
    ),
    case(
        "an attention from the Hub, under its private name",
        configured(_attn_implementation="owner/kernel"),
        "config.json: _attn_implementation is 'owner/kernel', which transformers would fetch as code; expected one of "
        "eager, sdpa",
    ),
    case(
        "an attention from the Hub, inside",
        configured(text_config={"_attn_implementation_internal": "owner/kernel"}),
        "config.json: text_config._attn_implementation_internal is 'owner/kernel', which transformers would fetch as "
        "code; expect",
    ),
    case(
        "quantized weights",
        configured(quantization_config={"quant_method": "bitsandbytes"}),
        "config.json: quantization_config: its weights are quantized; expected those in fp32, fp16 or bf16",
    ),
    case(
        "weights cut in half",
        weights(lambda content: content[: len(content) // 2]),
        "model.safetensors is damaged or truncated; expected the file as it was written: fetch it again",
    ),
    case(
        "weights that are empty",
        weights(lambda content: b""),
        "model.safetensors is damaged or truncated; expected the file as it was written: fetch it again",
    ),
    case(
        "a header of 2^60 bytes",
        weights(lambda content: (1 << 60).to_bytes(8, "little") + content[8:]),
        "model.safetensors is damaged or truncated; expected the file as it was written: fetch it again",
    ),
    case(
        "a header that is no JSON",
        weights(header(b"{{{{")),
        "model.safetensors is damaged or truncated; expected the file as it was written: fetch it again",
    ),
    case(
        "a header without tensors",
        weights(header(b"{}")),
        "model.safetensors is damaged or truncated; expected the file as it was written: fetch it again",
    ),
    case(
        "tensors beyond the file",
        weights(header(b'{"a": {"dtype": "F32", "shape": [1000], "data_offsets": [0, 4000]}}')),
        "model.safetensors is damaged or truncated; expected the file as it was written: fetch it again",
    ),
    case(
        "tensors that overlap",
        weights(
            header(
                b'{"a": {"dtype": "F32", "shape": [25], "data_offsets": [0, 100]}, "b": {"dtype": "F32", "shape": [25], "data_offsets": [0, 100]}}'
            )
        ),
        "model.safetensors is damaged or truncated; expected the file as it was written: fetch it again",
    ),
    case(
        "a shape below 0",
        weights(header(b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 100]}}')),
        "model.safetensors is damaged or truncated; expected the file as it was written: fetch it again",
    ),
    case(
        "a shape beyond 64 bits",
        weights(header(b'{"a": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 100]}}')),
        "model.safetensors is damaged or truncated; expected the file as it was written: fetch it again",
    ),
    case(
        "a pickle under the name of safetensors",
        weights(lambda content: b"\x80\x04\x95" + content),
        "model.safetensors is damaged or truncated; expected the file as it was written: fetch it again",
    ),
    case(
        "an index of files that are not there",
        lambda folder: (
            (folder / "model.safetensors").unlink(),
            written("model.safetensors.index.json", b'{"weight_map": {"a": "model-1.safetensors"}}')(folder),
            written("model-2.safetensors", b"")(folder),
        ),
        "model-1.safetensors is missing; expected every shard that model.safetensors.index.json names",
    ),
    case(
        "an index that leads out",
        lambda folder: (
            (folder / "model.safetensors").rename(folder / "model-1.safetensors"),
            written("model.safetensors.index.json", b'{"weight_map": {"a": "../../x.safetensors"}}')(folder),
        ),
        "../../x.safetensors is missing; expected every shard that model.safetensors.index.json names",
    ),
    case(
        "an index whose files are numbers",
        lambda folder: (
            (folder / "model.safetensors").rename(folder / "model-1.safetensors"),
            written("model.safetensors.index.json", b'{"weight_map": {"a": 7}}')(folder),
        ),
        "7 is missing; expected every shard that model.safetensors.index.json names",
    ),
    case(
        "an attention chosen by itself, as transformers 4 wrote",
        configured(_attn_implementation_autoset=True),
        "download@model: tiny-bert",
    )._replace(ends_well=True),
    case(
        "an attention of each model inside",
        configured(attn_implementation={"text_config": "sdpa"}),
        "download@model: tiny-bert",
    )._replace(ends_well=True),
    case(
        "a foreign attention of a model inside",
        configured(attn_implementation={"text_config": "owner/kernel"}),
        "config.json: attn_implementation is 'owner/kernel', which transformers would fetch as code",
    ),
    # Configurations that make no model.
    *(
        case(f"{key} {value!r}", configured(**{key: value}), f"config.json makes no model: {says}")
        for key, value, says in (
            ("hidden_size", 0, "ZeroDivisionError: 0.0 cannot be raised"),
            ("hidden_size", -16, "RuntimeError: Trying to create tensor with negative dimension -16"),
            (
                "hidden_size",
                "32",
                "StrictDataclassFieldValidationError: Validation error for field 'hidden_size': TypeError",
            ),
            ("hidden_size", 10**12, "RuntimeError: Storage size calculation overflowed"),
            ("num_attention_heads", 3, "ValueError: The hidden size (32) is not a multiple of"),
            ("num_attention_heads", 0, "ZeroDivisionError"),
            ("num_hidden_layers", 0, "it has 0 layers; expected 1 to 2,000"),
            ("num_hidden_layers", 10**7, "it has 10,000,000 layers; expected 1 to 2,000"),
            ("hidden_act", "no-such", "hidden_act is 'no-such', which it does not have"),
            ("hidden_dropout_prob", float("nan"), "hidden_dropout_prob is not a number"),
            ("hidden_dropout_prob", 2.0, "hidden_dropout_prob is 2.0; expected 0 to 1"),
            ("layer_norm_eps", float("nan"), "layer_norm_eps is not a number"),
            ("layer_norm_eps", -1.0, "layer_norm_eps is -1.0; expected 0 to 1"),
            ("initializer_range", -0.5, "initializer_range is -0.5; expected 0 to 1e+06"),
            ("pad_token_id", 10**6, "AssertionError: Padding_idx must be within num_embeddings"),
            ("chunk_size_feed_forward", 3, "ValueError: The dimension to be chunked 7 has to be a multiple of"),
            ("id2label", [1], "AttributeError: 'list' object has no attribute 'items'"),
            ("dtype", "no-such", "AttributeError: module 'torch' has no attribute 'no-such'"),
            ("add_cross_attention", True, "ValueError: BertLayer("),
            ("model_type", "no-such", "ValueError: The checkpoint you are trying to load has model type `no-such`"),
        )
    ),
    case(
        "a model without the task's head",
        configured(model_type="clip"),
        "clip has no TokenClassification in transformers; expected a model that has",
    ),
    case(
        "no positions",
        configured(max_position_embeddings=0),
        "1 weights of the encoder are not in its safetensors with the shape that config.json gives them, such as "
        "bert.embeddings.position_embeddings.weight",
    ),
    case(
        "more layers than weights",
        configured(num_hidden_layers=3),
        "16 weights of the encoder are not in its safetensors with the shape that config.json gives them, such as "
        "bert.encoder.layer.2",
    ),
    case(
        "fewer words than weights",
        configured(vocab_size=40),
        "1 weights of the encoder are not in its safetensors with the shape that config.json gives them, such as "
        "bert.embeddings.word_embeddings.weight",
    ),
    # Code by other keys.
    case(
        "code of its own, in a configuration inside",
        configured(text_config={"auto_map": {"AutoModel": "m.M"}}),
        "config.json has text_config.auto_map: it wants code of its own to run",
    ),
    case(
        "a pipeline of its own",
        configured(custom_pipelines={"x": {"impl": "x.Y"}}),
        "config.json has custom_pipelines: it wants code of its own to run",
    ),
    case(
        "generation of its own",
        written("generation_config.json", b'{"custom_generate": "owner/code"}'),
        "generation_config.json has custom_generate: it wants code of its own to run",
    ),
    case(
        "experts from the Hub",
        configured(_experts_implementation="owner/kernel"),
        "config.json: _experts_implementation is 'owner/kernel', which transformers would fetch as code",
    ),
    case(
        "generation_config.json that is a list",
        written("generation_config.json", b"[]"),
        "generation_config.json holds no JSON object",
    ),
    case(
        "generation_config.json that is cut off",
        written("generation_config.json", b"{"),
        "generation_config.json is not JSON: it breaks off, column 2, line 1",
    ),
    case(
        "a processor with code of its own, which is left where it is",
        written("preprocessor_config.json", b'{"auto_map": {"AutoProcessor": "x.Y"}}'),
        "download@model: tiny-bert",
    )._replace(ends_well=True),
    # Weights.
    *(
        case(f"weights with {name}", weights(relabelled(change)), says)
        for name, change, says in (
            ("a dtype that there is not", {"dtype": "F7"}, DAMAGED),
            ("a shape that takes less than its bytes", {"shape": [1]}, DAMAGED),
            ("a shape of fractions", {"shape": [1.5]}, DAMAGED),
            ("a shape of 100,000 dimensions", {"shape": [1] * 100_000}, DAMAGED),
            ("offsets in the wrong order", {"data_offsets": [8, 0]}, DAMAGED),
            ("offsets below 0", {"data_offsets": [-8, 0]}, DAMAGED),
            ("offsets of 30 digits", {"data_offsets": [0, 10**29]}, DAMAGED),
            ("offsets that are texts", {"data_offsets": ["0", "8"]}, DAMAGED),
            ("a tensor without a shape", {"shape": None}, DAMAGED),
        )
    ),
    case(
        "weights that name a tensor twice",
        weights(
            header(
                b'{"a": {"dtype": "F32", "shape": [25], "data_offsets": [0, 100]}, "a": {"dtype": "F32", "shape": [25], "data_offsets": [0, 100]}}'
            )
        ),
        "37 weights of the encoder are not in its safetensors",
    ),
    case(
        "weights of another model",
        weights(header(b'{"a": {"dtype": "F32", "shape": [25], "data_offsets": [0, 100]}}')),
        "37 weights of the encoder are not in its safetensors",
    ),
    case(
        "weights whose metadata is a number",
        weights(header(b'{"__metadata__": 7, "a": {"dtype": "F32", "shape": [25], "data_offsets": [0, 100]}}')),
        "model.safetensors is damaged or truncated; expected the file as it was written: fetch it again",
    ),
    case(
        "weights nested 100,000 deep",
        weights(header(b"[" * 100_000)),
        "model.safetensors is damaged or truncated; expected the file as it was written: fetch it again",
    ),
    case(
        "a zip of pickles under the name of safetensors",
        weights(lambda content: zipped(("archive/data.pkl", content[:99]))),
        "model.safetensors is damaged or truncated; expected the file as it was written: fetch it again",
    ),
    case(
        "pickles in a folder below",
        lambda folder: (
            (folder / "weights").mkdir(),
            (folder / "model.safetensors").rename(folder / "weights/model.bin"),
        ),
        "no weights; expected model.safetensors, or model.safetensors.index.json and its shards",
    ),
    case(
        "pickles in shards",
        lambda folder: (
            (folder / "model.safetensors").rename(folder / "pytorch_model-00001-of-00001.bin"),
            written("pytorch_model.bin.index.json", b"{}")(folder),
        ),
        "its weights (pytorch_model-00001-of-00001.bin) are in a format that can run code when loaded",
    ),
    case(
        "shards that are pickles",
        lambda folder: (
            (folder / "model.safetensors").rename(folder / "model-1.bin"),
            written("model.safetensors.index.json", b'{"weight_map": {"a": "model-1.bin"}}')(folder),
        ),
        "model-1.bin is missing; expected every shard that model.safetensors.index.json names",
    ),
    # Tokenizers.
    case("a normalizer that grows", tokenizer(normalizer=replacing("a", "a" * 2000)), f"its normalizer {GROWS}"),
    case(
        "a normalizer that grows step by step",
        tokenizer(normalizer={"type": "Sequence", "normalizers": [replacing("a", "aaaa")] * 40}),
        f"tokenizer.json: its normalizer {GROWS}",
    ),
    case(
        "a pattern that is found between all characters",
        tokenizer(normalizer={"type": "Sequence", "normalizers": [replacing({"Regex": "x*"}, "y")] * 12}),
        f"tokenizer.json: its normalizer {GROWS}",
    ),
    case("a decoder that grows", tokenizer(decoder=replacing("a", "a" * 2000)), f"its decoder {GROWS}"),
    case(
        "a normalizer nested 400 deep",
        tokenizer(normalizer=nested(400)),
        "does not load",
    )._replace(through="tokenize"),
    case(
        "tokenizer.json nested 100,000 deep",
        written("tokenizer.json", b"[" * 100_000),
        "tokenizer.json is nested too deeply, or has a number of thousands of digits",
    ),
    case(
        "tokenizer.json that is cut off",
        written("tokenizer.json", b'{"a'),
        "tokenizer.json is not JSON: a text that no quote ends, column 2",
    ),
    case(
        "tokenizer.json of more bytes than any",
        lambda folder: os.truncate(folder / "tokenizer.json", 1 << 28),
        "tokenizer.json has 268,435,456 bytes; expected at most 134,217,728 of a tokenizer's file",
    ),
    case(
        "a normalizer as models have them, of many steps",
        tokenizer(normalizer={"type": "Sequence", "normalizers": [replacing(" ", "▁"), replacing("``", '"')] * 50}),
        "download@model: tiny-bert",
    )._replace(ends_well=True),
    case("a token beyond the model's vocabulary", far_token, "is token 1000000; expected one below")._replace(
        through="tokenize"
    ),
    case(
        "a pattern that goes back and forth",
        tokenizer(pre_tokenizer=splitting("(x+x+)+y")),
        "the tokenizer fails (Onig: Regex search error: retry-limit-in-match over); expected a tokenizer.json whose "
        "patterns and tokens",
    )._replace(through="tokenize", files={"toy.jsonl": long_word}),
    case("no token to fill batches with", without_padding, "the tokenizer has no pad_token and no eos_token")._replace(
        through="tokenize"
    ),
    case(
        "a normalizer that leaves nothing of any text",
        tokenizer(normalizer=replacing({"Regex": "."}, "")),
        "the base model's tokenizer encodes the letter a as no token; expected one for each word",
    )._replace(through="tokenize"),
    # Models that are made from nothing.
    new("of 10^7 layers", {"n_layer": 10**7}, "it has 10,000,000 layers; expected 1 to 2,000"),
    new("of heads that do not part its width", {"n_head": 3}, "ValueError: `embed_dim` must be divisible by num_heads"),
    new("without a width", {"n_embd": 0}, "ZeroDivisionError"),
    new("whose dropout is 2", {"attn_pdrop": 2.0}, "attn_pdrop"),
]
