"""Turns a bare WordPiece vocabulary (vocab.txt), as old checkpoints have it, into BERT's tokenizer."""

import json
from pathlib import Path
from typing import Any

CHANGED = 100  # lower-casing changes at most one in so many tokens of an uncased vocabulary


def wordpiece(folder: Path) -> Any | None:
    """Return transformers' BertTokenizer for a folder whose files name no tokenizer; None if they name one.

    AutoTokenizer (5.23) takes the class that goes with the model: for a RoBERTa one that knows no word of vocab.txt.
    And it lower-cases where no file says whether to, which leaves a cased Korean vocabulary nothing but unknown tokens.
    """
    from transformers import BertTokenizer

    declared = _declared(folder / "tokenizer_config.json")
    if (folder / "tokenizer.json").is_file() or "tokenizer_class" in declared or not (folder / "vocab.txt").is_file():
        return None
    tokens = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
    if "[UNK]" not in tokens or not any(token.startswith("##") for token in tokens):
        return None
    lower = declared.get("do_lower_case")
    return BertTokenizer.from_pretrained(folder, do_lower_case=not is_cased(tokens) if lower is None else lower)


def is_cased(tokens: list[str]) -> bool:
    """Return True if a vocabulary has tokens that lower-cased text without accents never gives."""
    from tokenizers.normalizers import BertNormalizer

    lower = BertNormalizer(clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=True)
    ordinary = [token for token in tokens if not (token.startswith("[") and token.endswith("]"))]
    return sum(lower.normalize_str(token) != token for token in ordinary) * CHANGED > len(ordinary)


def _declared(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
