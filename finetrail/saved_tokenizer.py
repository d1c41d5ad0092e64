"""Loads the tokenizer of an exported folder for encoders, without importing transformers."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from finetrail.errors import UserError

# The names under which tokenizer_config.json has special tokens.
ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class SavedTokenizer:
    """The part of transformers' fast tokenizers that encoding and decoding use, by the same names.

    backend: of tokenizer.json, whole: save_pretrained() wrote into it what load_tokenizer() had changed.
    """

    def __init__(self, backend: Tokenizer, config: dict[str, Any], model_input_names: list[str]) -> None:
        self.backend_tokenizer, self.model_input_names = backend, model_input_names
        named = {role: _text(config[role]) for role in ROLES if config.get(role) is not None}
        others = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
        extra = others.values() if isinstance(others, dict) else others
        tokens = dict.fromkeys([*named.values(), *map(_text, extra)])
        self.all_special_ids = [backend.token_to_id(token) for token in tokens]
        self.eos_token = named.get("eos_token")
        self.pad_token_id, self.eos_token_id, self.unk_token_id, self.mask_token_id = (
            backend.token_to_id(named[role]) if role in named else None
            for role in ("pad_token", "eos_token", "unk_token", "mask_token")
        )

    def get_vocab(self) -> dict[str, int]:
        """Return the id of each token, added tokens included."""
        return dict(self.backend_tokenizer.get_vocab(with_added_tokens=True))

    def get_added_vocab(self) -> dict[str, int]:
        """Return the id of each added or special token."""
        return {token.content: number for number, token in self.backend_tokenizer.get_added_tokens_decoder().items()}

    def convert_ids_to_tokens(self, ids: Iterable[int]) -> list[str | None]:
        """Return the token of each id; None if an id has no token."""
        return [self.backend_tokenizer.id_to_token(int(number)) for number in ids]


def is_enough(folder: Path) -> bool:
    """Return True if SavedTokenizer suffices for a folder: it cannot render a chat template."""
    return not (folder / "chat_template.jinja").is_file()


def load(folder: Path, model_input_names: list[str]) -> SavedTokenizer:
    """Read the tokenizer of a folder, for a model with these inputs; UserError if it does not load."""
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
        return SavedTokenizer(backend, config, model_input_names)
    except Exception as error:  # foreign files: tokenizers raises whatever its parsing runs into
        reason = str(error).split(". ")[0]
        raise UserError(f"{folder}: the tokenizer does not load: {reason}; expected what export wrote") from None


def _text(token: Any) -> str:
    """Return the text of a special token, which is given as a string or as an object with its options."""
    return str(token["content"] if isinstance(token, dict) else token)
