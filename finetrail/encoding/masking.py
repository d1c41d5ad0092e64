"""Masks blocks of tokens for masked language modeling, in tokenize and in training."""

from typing import Any, NamedTuple

import numpy as np

from finetrail.errors import UserError
from finetrail.labels import IGNORE_INDEX

# Kinds of tokens: never masked; the first token of a word; a later token of a word.
SPECIAL, FIRST, LATER = range(3)

# Shares of the tokens to predict that are replaced by the mask, and by a random token; the others stay
# (Devlin et al. 2019).
SHOWN_AS_MASK, SHOWN_AS_ANY = 0.8, 0.1


class Masking(NamedTuple):
    """How tokens are drawn and replaced."""

    probability: float
    whole_word: bool
    mask_token_id: int
    ordinary: np.ndarray  # the ids of the vocabulary without special tokens


def masking(tokenizer: Any, settings: Any) -> Masking:
    """Return the masking of the recipe's section tokenize or train.

    UserError if whole words are to be masked and the tokenizer does not split texts into words.
    """
    words = tokenizer.backend_tokenizer.encode("a b c", add_special_tokens=False).word_ids
    if settings.whole_word and len(set(words)) < 3:  # none, or one that is the whole text, as of Gemma's
        raise UserError(
            "whole_word: true, but the base model's tokenizer does not split texts into words; expected false"
        )
    special = set(tokenizer.all_special_ids)
    ordinary = sorted(set(tokenizer.get_vocab().values()) - special)
    return Masking(settings.mask_probability, settings.whole_word, tokenizer.mask_token_id, np.array(ordinary))


def mask(
    ids: np.ndarray, pieces: np.ndarray, how: Masking, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return (input_ids, labels) of one block, int64 [length]: IGNORE_INDEX at positions without a prediction.

    Each token, or each word, is drawn with the probability on its own; where that draws none of the block, one is, so
    that its loss is a number. pieces: SPECIAL, FIRST or LATER of each token, not all SPECIAL.
    """
    # A LATER at the start of a block, whose word was cut, is a word with the special token before it, or alone.
    units = np.cumsum(pieces != LATER) if how.whole_word else np.arange(len(ids))
    number = generator.random(len(ids) + 1)[units]
    number[pieces == SPECIAL] = 1
    drawn = number <= max(how.probability, number.min())
    shown = generator.random(len(ids))
    any_token = how.ordinary[generator.integers(len(how.ordinary), size=len(ids))]
    swapped = np.where(shown < SHOWN_AS_MASK, how.mask_token_id, ids)
    swapped = np.where((shown >= SHOWN_AS_MASK) & (shown < SHOWN_AS_MASK + SHOWN_AS_ANY), any_token, swapped)
    return np.where(drawn, swapped, ids), np.where(drawn, ids, IGNORE_INDEX)
