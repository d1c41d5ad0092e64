"""Rewrites the configuration files of an exported folder so that other tools, and older releases, read them alike."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from finetrail.encoding.tokenizer import model_positions

TOKENIZER, MODEL, GENERATION = "tokenizer_config.json", "config.json", "generation_config.json"
CHAT_TEMPLATE = "chat_template.jinja"
# transformers' pipeline generates 256 tokens by default, which fit into models with more positions than this.
FEW_POSITIONS = 1024


def open_everywhere(folder: Path, model: PreTrainedModel) -> None:
    """Use names that transformers 4 and transformers.js know too, and write the maximum length of a text."""
    positions = model_positions(model.config)
    template = folder / CHAT_TEMPLATE
    chat = template.read_text(encoding="utf-8") if template.is_file() else None
    edit(folder / TOKENIZER, lambda given: tokenizer_config(given, positions, chat))
    if model.can_generate():
        edit(folder / MODEL, lambda given: given | {"use_cache": True})  # training switches it off
        if positions is not None and positions <= FEW_POSITIONS:
            edit(folder / GENERATION, lambda given: given | {"max_length": positions})


def tokenizer_config(given: dict[str, Any], positions: int | None, chat_template: str | None) -> dict[str, Any]:
    """Return a tokenizer's configuration under the names of transformers 4, which 5 reads too."""
    found = dict(given)
    if found.get("tokenizer_class") == "TokenizersBackend":
        found["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(found.get("extra_special_tokens"), list):
        found["additional_special_tokens"] = found.pop("extra_special_tokens")
    if positions is not None:
        found["model_max_length"] = min(found.get("model_max_length", positions), positions)
    if chat_template is not None:  # transformers.js (4.3) does not read its file
        found["chat_template"] = chat_template
    return found


def edit(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Rewrite a JSON file as transformers writes it."""
    changed = change(json.loads(path.read_text(encoding="utf-8")))
    path.write_text(json.dumps(changed, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
