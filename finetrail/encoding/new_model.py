"""Trains the tokenizer of a new model on texts: the same bytes in each process."""

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from finetrail.errors import UserError
from finetrail.schema import TOKENIZER_TO_TRAIN, TokenizerToTrain

END_OF_TEXT = "<|endoftext|>"


def is_new(folder: Path) -> bool:
    """Return True if data/model/tokenizer describes a tokenizer that is to be trained."""
    return (folder / TOKENIZER_TO_TRAIN).is_file()


def train_tokenizer(folder: Path, texts: Iterator[str]) -> Any:
    """Train the tokenizer that the folder describes; UserError if transformers would misread its config.json."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    _check_config(folder)
    settings = TokenizerToTrain.model_validate_json((folder / TOKENIZER_TO_TRAIN).read_text(encoding="utf-8"))
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    # tokenizers 0.23: the trainers of WordPiece and Unigram give other bytes in each process, this one the same.
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocab_size,
        min_frequency=settings.min_frequency,
        special_tokens=[END_OF_TEXT],  # gets the id 0, which config.json names
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    roles = dict.fromkeys(("bos_token", "eos_token", "pad_token"), END_OF_TEXT)
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **roles)


def _check_config(folder: Path) -> None:
    """Raise UserError for a model_type or key that transformers does not know: it would use its own default instead."""
    from transformers import CONFIG_MAPPING

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model_type = config.pop("model_type")
    if model_type not in CONFIG_MAPPING:
        raise UserError(f"model.source.config: transformers has no model_type {model_type!r}; expected such as gpt2")
    kind = CONFIG_MAPPING[model_type]
    known = {field.name for field in fields(kind)} | set(kind.attribute_map)
    if unknown := sorted(set(config) - known):
        raise UserError(
            f"model.source.config: {model_type} has no {unknown[0]}; expected keys of {kind.__name__}, such as "
            f"{', '.join(sorted(kind.attribute_map)) or 'hidden_size'}"
        )
    try:
        kind(**config)
    except Exception as error:  # each configuration checks its fields in its own way
        raise UserError(f"model.source.config: {model_type}: {' '.join(str(error).split())}") from None
