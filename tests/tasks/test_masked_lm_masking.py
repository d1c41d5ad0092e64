"""Masks: proportions within binomial bounds, whole words, and what is never masked."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from finetrail.encoding.masking import FIRST, LATER, SPECIAL, Masking, mask, masking
from finetrail.errors import UserError
from finetrail.labels import IGNORE_INDEX

MASK = 4
ORDINARY = np.arange(10, 110)
CERTAIN = 1e-6  # of all runs may fail by chance, if the seed were not fixed


def how(probability: float = 0.15, whole_word: bool = False) -> Masking:
    return Masking(probability, whole_word, MASK, ORDINARY)


def blocks(number: int, length: int) -> np.ndarray:
    return np.random.default_rng(1).choice(ORDINARY, (number, length))


def expected(count: int, of: int, probability: float) -> bool:
    low, high = binom.interval(1 - CERTAIN, of, probability)
    return bool(low <= count <= high)


@pytest.mark.parametrize("whole_word", [False, True])
def test_draws_the_probability_and_shows_80_10_10_of_it(whole_word: bool) -> None:
    pieces = np.full(200, FIRST)
    pieces[1::2] = LATER if whole_word else FIRST  # words of two tokens: 100 draws a block
    drawn = shown_as_mask = shown_as_any = unchanged = 0
    generator = np.random.default_rng(0)
    for ids in blocks(400, 200):
        shown, labels = mask(ids, pieces, how(whole_word=whole_word), generator)
        chosen = labels != IGNORE_INDEX
        drawn += chosen.sum()
        shown_as_mask += (shown[chosen] == MASK).sum()
        unchanged += (shown[chosen] == ids[chosen]).sum()
        shown_as_any += ((shown[chosen] != MASK) & (shown[chosen] != ids[chosen])).sum()

    units = 2 if whole_word else 1
    assert expected(drawn // units, 400 * 200 // units, 0.15)
    assert expected(shown_as_mask, drawn, 0.8)
    # One of a hundred random tokens is the token itself.
    assert expected(shown_as_any, drawn, 0.1 * 0.99)
    assert expected(unchanged, drawn, 0.1 + 0.1 * 0.01)


def test_any_token_is_drawn_from_the_whole_vocabulary_alike() -> None:
    generator = np.random.default_rng(0)
    ids, pieces = np.full(1000, 5), np.full(1000, FIRST)
    found: list[int] = []
    for _ in range(300):
        shown, labels = mask(ids, pieces, how(0.5), generator)
        found += shown[(labels != IGNORE_INDEX) & (shown != MASK) & (shown != 5)].tolist()
    counts = np.bincount(found, minlength=110)
    assert counts[:10].sum() == 0
    assert all(expected(count, len(found), 0.01) for count in counts[10:])


pieces_of_blocks = st.lists(st.sampled_from([SPECIAL, FIRST, LATER]), min_size=1, max_size=40).filter(
    lambda pieces: any(piece != SPECIAL for piece in pieces)
)


@settings(max_examples=300)
@given(pieces_of_blocks, st.booleans(), st.floats(0.001, 0.9), st.integers(0, 99))
def test_holds_for_any_block(pieces: list[int], whole_word: bool, probability: float, seed: int) -> None:
    kinds, ids = np.array(pieces), blocks(1, len(pieces))[0]
    before = ids.copy()
    shown, labels = mask(ids, kinds, how(probability, whole_word), np.random.default_rng(seed))
    chosen = labels != IGNORE_INDEX

    assert chosen.any()  # so that the loss is a number
    assert not chosen[kinds == SPECIAL].any()
    assert (shown[~chosen] == ids[~chosen]).all()
    assert (np.where(chosen, labels, shown) == ids).all()  # the block comes back from its labels
    assert (ids == before).all()
    if whole_word:
        for position in range(1, len(pieces)):
            if pieces[position] == LATER and pieces[position - 1] != SPECIAL:
                assert chosen[position] == chosen[position - 1]


def test_single_tokens_of_a_word_are_drawn_on_their_own() -> None:
    pieces = np.tile([FIRST, LATER], 500)
    _, labels = mask(blocks(1, 1000)[0], pieces, how(), np.random.default_rng(0))
    chosen = (labels != IGNORE_INDEX).reshape(-1, 2)
    assert (chosen[:, 0] != chosen[:, 1]).any()


WHOLE_WORDS = SimpleNamespace(mask_probability=0.3, whole_word=True)


@pytest.mark.parametrize("kind", ["tiny_wordpiece", "tiny_bpe", "tiny_sentencepiece"])
def test_special_tokens_are_never_put_in_the_place_of_others(kind: str, request: pytest.FixtureRequest) -> None:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(request.getfixturevalue(kind))

    found = masking(tokenizer, WHOLE_WORDS)

    assert set(found.ordinary) == set(range(len(tokenizer))) - set(tokenizer.all_special_ids)
    assert found[:3] == (0.3, True, tokenizer.mask_token_id)


# As Llama's, Gemma's, and Llama's once more: blanks are letters, so that all of a text is one word.
PARTING_NO_WORDS = (None, pre_tokenizers.Split(" ", "merged_with_previous"), pre_tokenizers.Metaspace(split=False))


@pytest.mark.parametrize("parting", PARTING_NO_WORDS)
def test_whole_words_need_a_tokenizer_that_knows_words(parting: Any) -> None:
    backend = Tokenizer(models.BPE({"a": 1, "b": 2, "c": 3, "▁": 4}, []))
    backend.normalizer = normalizers.Replace(" ", "▁")
    if parting is not None:
        backend.pre_tokenizer = parting
    tokenizer: Any = SimpleNamespace(
        backend_tokenizer=backend, all_special_ids=[0], get_vocab=lambda: {"<mask>": 0, "a": 1}, mask_token_id=0
    )
    with pytest.raises(UserError, match="whole_word: true, but the base model's tokenizer does not split"):
        masking(tokenizer, WHOLE_WORDS)
    assert masking(tokenizer, SimpleNamespace(mask_probability=0.3, whole_word=False)).ordinary.tolist() == [1]
