"""Loads a base model's tokenizer, and rejects those that would fail or lose text later."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetrail.encoding.vocabulary import wordpiece
from finetrail.errors import UserError

# Options of loading, such as from HF_HUB_OFFLINE, that transformers (5.23) would save as the tokenizer's own.
OF_LOADING = ("is_local", "local_files_only")


def load_tokenizer(folder: Path, max_length: int, pre_split: bool = False) -> Any:
    """Load a fast tokenizer; UserError if there is none, or max_length exceeds the model.

    pre_split: the input is words. Byte-level BPE (GPT-2, RoBERTa) needs add_prefix_space to mark them.
    """
    from transformers import AutoConfig  # seconds to import, and encode() does not need it

    require_folder(folder)
    tokenizer = loaded(folder, lambda: _load_as_file_says(folder, pre_split))
    config = loaded(folder, lambda: AutoConfig.from_pretrained(folder))
    require_fast(folder, tokenizer)
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise UserError(f"{folder}: the tokenizer has only special tokens; expected tokens of words, in tokenizer.json")
    check_tokens(folder, tokenizer, getattr(config, "vocab_size", None))
    limit = model_positions(config)
    if limit is not None and max_length > limit:
        raise UserError(
            f"features of {max_length} tokens exceed the {limit} positions of the base model; expected fewer"
        )
    pad_on_the_right(folder, tokenizer)
    # klue/roberta-base has BERT's tokenizer, whose second token type is out of range in a RoBERTa, which has one.
    if getattr(config, "type_vocab_size", 0) < 2:
        names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
        tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = names  # the second one is saved
    if pre_split:
        _space_before_words(tokenizer.backend_tokenizer)
    for key in OF_LOADING:
        tokenizer.init_kwargs.pop(key, None)
    return tokenizer


def require_folder(folder: Path) -> None:
    """Raise UserError if the folder of the base model's tokenizer is missing."""
    if not folder.is_dir():
        raise UserError(f"{folder} is missing; expected the output of download@model: run `dvc repro`")


def loaded(folder: Path, load: Callable[[], Any]) -> Any:
    """Return the result of load(); UserError if it raises anything."""
    try:
        return load()
    except Exception as error:  # for invalid files the libraries raise exceptions of any type
        reason = str(error).split(". ")[0]
        raise UserError(f"{folder}: the tokenizer does not load: {reason}; expected one of transformers") from None


def require_fast(folder: Path, tokenizer: Any) -> None:
    """Raise UserError for a slow tokenizer, which is in Python and has no backend."""
    if not tokenizer.is_fast:
        kind = type(tokenizer).__name__
        raise UserError(f"{folder}: {kind} is a slow tokenizer; expected a fast one (tokenizer.json)")


def pad_on_the_right(folder: Path, tokenizer: Any) -> None:
    """Make the tokenizer pad on the right, with eos if it has no padding token; UserError if it has neither."""
    if tokenizer.pad_token is None:  # as of GPT-2; any token will do, because padding is masked
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise UserError(
            f"{folder}: the tokenizer has no pad_token and no eos_token; expected one, to fill batches with"
        )
    tokenizer.padding_side = "right"


def plain_backend(tokenizer: Any) -> Any:
    """Return the tokenizer's backend, without the truncation and padding that a saved one may keep of earlier use."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    return backend


def check_tokens(folder: Path, tokenizer: Any, vocabulary: int | None) -> None:
    """Raise UserError if a tokenizer fails on a letter, or has more tokens or larger ids than the model."""
    try:
        tokenizer.backend_tokenizer.encode("a")
    except BaseException as error:  # a panic of Rust is not an Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        raise UserError(f"{folder}: the tokenizer fails at the letter a: {error}; expected one that does not") from None
    if vocabulary is None:
        return
    if len(tokenizer) > vocabulary:
        raise UserError(f"{folder}: {len(tokenizer)} tokens in the tokenizer; expected the model's {vocabulary}")
    token, number = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if number >= vocabulary:
        raise UserError(f"{folder}: the tokenizer's {token!r:.60} is token {number}; expected one below {vocabulary}")


def _load_as_file_says(folder: Path, pre_split: bool) -> Any:
    """Load a tokenizer that normalizes and splits texts as in its tokenizer.json, if there is one.

    AutoTokenizer (5.23) takes vocabulary and merges from that file, and the rest from the defaults of the class that
    goes with the model: a cased Korean BERT whose tokenizer_config.json lacks do_lower_case finds no Korean then.
    """
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if (of_vocabulary := wordpiece(folder)) is not None:
        return of_vocabulary
    made = AutoTokenizer.from_pretrained(folder)
    file = folder / "tokenizer.json"
    if made.is_fast and file.is_file():
        meant = _pipeline(Tokenizer.from_file(str(file)))
        if _pipeline(made.backend_tokenizer) != meant:
            kept: dict[str, Any] = {"model_input_names": list(made.model_input_names), **made.special_tokens_map}
            return PreTrainedTokenizerFast.from_pretrained(folder, **kept)
    # Only for words: passing the option at all changes how texts are tokenized.
    return AutoTokenizer.from_pretrained(folder, add_prefix_space=True) if pre_split else made


def _pipeline(backend: Any) -> tuple[Any, ...]:
    """Return the steps that are applied to a text before the lookup in the vocabulary."""
    parts = backend.normalizer, backend.pre_tokenizer
    return type(backend.model).__name__, *(None if part is None else json.loads(part.__getstate__()) for part in parts)


def _space_before_words(backend: Any) -> None:
    """Apply add_prefix_space, which transformers 5.23 ignores for the general tokenizer class, as of ModernBERT."""
    from tokenizers import normalizers, pre_tokenizers

    top = backend.pre_tokenizer
    first = top[0] if isinstance(top, pre_tokenizers.Sequence) else top
    if isinstance(first, pre_tokenizers.ByteLevel):
        first.add_prefix_space = True
    elif not _words_are_those_of_texts(
        backend
    ):  # not of one that is not first, which would put a space before each part
        known = [] if backend.normalizer is None else [backend.normalizer]
        backend.normalizer = normalizers.Sequence([normalizers.Prepend(" "), *known])


def _words_are_those_of_texts(backend: Any) -> bool:
    """Return True if a word on its own has the same tokens as after a blank."""
    words = ["a", "don't", "2023!"]
    alone = backend.encode(words, is_pretokenized=True, add_special_tokens=False)
    behind_first = [number for number, word in zip(alone.ids, alone.word_ids, strict=True) if word]
    text = backend.encode(" ".join(words), add_special_tokens=False).ids
    return bool(text[len(text) - len(behind_first) :] == behind_first)


# Architectures whose positions start after that of padding: of 514 embeddings, 512 are for tokens.
BEHIND_PADDING = {
    "camembert", "data2vec-text", "ibert", "longformer", "luke", "mpnet", "roberta", "roberta-prelayernorm",
    "xlm-roberta", "xlm-roberta-xl", "xmod",
}  # fmt: skip


def model_positions(config: Any) -> int | None:
    """Return the maximum number of tokens of a model, or None if its config sets no limit (relative positions)."""
    positions = getattr(config, "max_position_embeddings", None)
    if not positions or positions < 0:
        return None
    offset = config.pad_token_id + 1 if config.model_type in BEHIND_PADDING else 0
    return int(positions) - offset


def special_tokens(backend: Any) -> tuple[list[int], list[int]]:
    """Return the ids of the special tokens before and after a sentence."""
    encoding = backend.encode(["a"], is_pretokenized=True, add_special_tokens=True)
    inside = [index for index, word in enumerate(encoding.word_ids) if word is not None]
    if not inside:
        raise UserError("the base model's tokenizer encodes the letter a as no token; expected one for each word")
    return encoding.ids[: inside[0]], encoding.ids[inside[-1] + 1 :]
