"""Answers against the characters of their contexts, over the kinds of tokenizers that models come with."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from finetrail.tasks.question_answering import card, corpus, encoding
from finetrail.tasks.question_answering.settings import Tokenize

# Parts at whose borders an answer begins and ends, with the text between them.
TEXTS = {
    "english": (" ", ["The", "quiet", "river", "(", "the", "old", "one", ")", "was", "1822", "built", ".", "It's"]),
    "no blanks": ("", ["(", "The", ",", "quiet", "-", "river", ",", "1822", ";", "1823", ".", ")"]),
    "korean": (" ", ["서울은", "한국의", "수도", "이다", ".", "한강", "(", "漢江", ")", "도", "있다"]),
    "chinese": ("", ["北京", "是", "中国", "的", "首都", "，", "人口", "2189万", "。"]),
    "arabic": (" ", ["ولدت", "في", "القاهرة", "،", "مدينة", "كبيرة", "عام", "١٩٥٢", "م"]),
    "thai": (" ", ["กรุงเทพ", "เป็น", "เมืองหลวง", "ที่", "ใหญ่", "น้ำ", "๑๒"]),
    "combining": (" ", ["e\u0301te\u0301", "nai\u0308ve", "à", "o\u0302ng", "ñandú", "\u1112\u1161\u11ab", "n\u0303"]),
    "emoji": (" ", ["🙂", "👩‍👩‍👧", "go", "🚀🚀", "👍🏽", "🇰🇷", "ok", "❤️"]),
    "line ends": ("\r\n", ["One", "two", "three", ".", "four", "(", "five", ")"]),
    "wide blanks": (" \u3000\u00a0 ", ["The", "river", "서울", "北京", "1822", "."]),
}
# What vocabularies are made of: the parts, so that no token goes over the border of two.
PARTS = [part for _, parts in TEXTS.values() for part in parts]

LLAMA = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
QWEN = LLAMA.replace(r"\p{N}{1,3}", r"\p{N}")
SPECIAL = ["<s>", "</s>", "<pad>", "<unk>"]
FRAME = {"single": "<s> $A </s>", "pair": "<s> $A </s> $B </s>", "special_tokens": [("<s>", 0), ("</s>", 1)]}


def byte_level(
    before: list[Any], add_prefix_space: bool, post: Any, normalizer: Any = None, use_regex: bool = True
) -> Tokenizer:
    """Make a byte-level BPE, with what parts a text before the bytes."""
    tokenizer = Tokenizer(models.BPE())
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=use_regex)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*before, bytes_]) if before else bytes_
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return trained(tokenizer, post, initial_alphabet=alphabet)


def trained(tokenizer: Tokenizer, post: Any = None, **how: Any) -> Tokenizer:
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=SPECIAL, show_progress=False, **how)
    tokenizer.train_from_iterator([*PARTS, *(f" {part}" for part in PARTS)], trainer)
    tokenizer.post_processor = post or processors.TemplateProcessing(**FRAME)
    return tokenizer


def roberta(trim_offsets: bool, add_prefix_space: bool) -> Any:
    return processors.RobertaProcessing(("</s>", 1), ("<s>", 0), trim_offsets, add_prefix_space)


def cut(pattern: str) -> Any:
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def bytes_then_frame(trim_offsets: bool) -> Any:
    trim = processors.ByteLevel(add_prefix_space=False, trim_offsets=trim_offsets)
    return processors.Sequence([trim, processors.TemplateProcessing(**FRAME)])


def wordpiece(lowercase: bool) -> Tokenizer:
    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    words = [word for part in PARTS for word in normalizer.normalize_str(part).split()]
    characters = sorted(set("".join(words)))
    pieces = [*SPECIAL, *characters, *("##" + character for character in characters), "river", "qui", "##et"]
    tokenizer = Tokenizer(models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="<unk>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(**FRAME)
    return tokenizer


def unigram(prepend_scheme: str) -> Tokenizer:
    normalizer = normalizers.Sequence(  # as that of XLM-RoBERTa, whose table has blanks for line ends
        [normalizers.NFKC(), normalizers.Replace(Regex("[\\r\\n\\t]"), " "), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    characters = sorted(set(normalizer.normalize_str("".join(PARTS))) - set(" \r\n"))
    words = {"▁The": -4.0, "▁the": -4.0, "▁river": -4.0, "riv": -5.0, "▁서울": -5.0, "▁": -6.0}
    pieces = dict.fromkeys(SPECIAL, 0.0) | dict.fromkeys(characters, -8.0) | words
    tokenizer = Tokenizer(models.Unigram(list(pieces.items()), unk_id=3))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend_scheme)
    tokenizer.post_processor = processors.TemplateProcessing(**FRAME)
    return tokenizer


def metaspace_bpe() -> Tokenizer:
    """Make a BPE of characters, with bytes for those that it does not know, as SentencePiece's."""
    return sentencepiece_bpe(None, pre_tokenizers.Metaspace(prepend_scheme="first"))


def gemma() -> Tokenizer:
    return sentencepiece_bpe(normalizers.Replace(" ", "▁"), cut(" "))


def llama_2() -> Tokenizer:
    return sentencepiece_bpe(normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), None)


def sentencepiece_bpe(normalizer: Any, pre_tokenizer: Any) -> Tokenizer:
    known = sorted(set("The quiet river (the old one) was built in 1822. 서울은▁") - {" "})
    pieces = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *known, "Th", "The", "▁The"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    merges = [("T", "h"), ("Th", "e"), ("▁", "The")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteFallback()
    tokenizer.post_processor = processors.TemplateProcessing(**FRAME)
    return tokenizer


TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "bert": lambda: wordpiece(lowercase=False),
    "bert uncased": lambda: wordpiece(lowercase=True),
    "roberta": lambda: byte_level([], False, roberta(True, False)),
    "roberta, untrimmed": lambda: byte_level([], False, roberta(False, False)),
    "roberta, prefix": lambda: byte_level([], True, roberta(True, True)),
    "roberta, prefix, untrimmed": lambda: byte_level([], True, roberta(False, True)),
    "roberta, prefix only in parts": lambda: byte_level([], True, roberta(True, False)),
    "roberta, prefix only trimmed": lambda: byte_level([], False, roberta(True, True)),
    "robbert": lambda: byte_level([pre_tokenizers.Whitespace()], True, roberta(True, True)),
    "robbert, untrimmed": lambda: byte_level([pre_tokenizers.Whitespace()], True, roberta(False, True)),
    "robbert, sequence": lambda: byte_level([pre_tokenizers.WhitespaceSplit()], True, bytes_then_frame(True)),
    "punctuation": lambda: byte_level([pre_tokenizers.Punctuation()], True, roberta(True, True)),
    "digits": lambda: byte_level([pre_tokenizers.Digits(individual_digits=True)], True, roberta(True, True)),
    "unigram": lambda: unigram("always"),
    "unigram, first": lambda: unigram("first"),
    "metaspace bpe": metaspace_bpe,
    "llama 2": llama_2,
    "llama 3": lambda: byte_level([cut(LLAMA)], False, bytes_then_frame(True), use_regex=False),
    "qwen": lambda: byte_level([cut(QWEN)], False, bytes_then_frame(False), normalizers.NFC(), use_regex=False),
    "gemma": gemma,
}


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_each_run_of_words_is_decoded_as_it_was(kind: str) -> None:
    encoder = encoder_of(TOKENIZERS[kind]())

    for name, (between, parts) in TEXTS.items():
        context = between.join(parts)
        spans = [
            (between.join(parts[first:end]), len(between.join([*parts[:first], ""])) if first else 0)
            for first in range(len(parts))
            for end in range(first + 1, len(parts) + 1)
        ]
        pairs = zip(spans, decoded(encoder, context, spans), strict=True)
        assert [(answer, found) for (answer, _), found in pairs if answer != found] == [], name


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_code_of_the_model_card_gives_whole_words(
    kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = TOKENIZERS[kind]()
    encoder, loaded = encoder_of(tokenizer), wrapped(tokenizer)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda folder: loaded)
    code = compile(card.usage("folder", {"unanswerable": False}), "card", "exec")
    question, context = "Where was Ada Lovelace born?", "Ada Lovelace was born in London in 1815."
    answers = ["Ada", "Ada Lovelace", "Lovelace was", "born in London", "London", "1815."]
    features = labelled(encoder, context, [(answer, context.index(answer)) for answer in answers], question)
    for answer, feature in zip(answers, features, strict=True):
        model = pointing(feature["start_positions"], feature["end_positions"], len(feature["input_ids"]))
        monkeypatch.setattr(transformers.AutoModelForQuestionAnswering, "from_pretrained", lambda _, m=model: m)
        exec(code, {})
        assert capsys.readouterr().out == f"{answer}\n"


def pointing(start: int, end: int, tokens: int) -> Callable[..., Any]:
    """Return a model whose answer is from one token to another."""
    logits = torch.nn.functional.one_hot(torch.tensor([start, end]), tokens).float()
    return lambda **_: SimpleNamespace(start_logits=logits[:1], end_logits=logits[1:])


def test_only_a_letter_that_an_offset_lost_is_taken_back() -> None:
    for kind, context in (("bert", "The \u200briver"), ("bert uncased", "The\u200d river")):  # which BERT drops
        [found] = decoded(encoder_of(TOKENIZERS[kind]()), context, [("river", context.index("river"))])
        assert found == "river"


# What BERT's normalizer, or NFKC, takes for white space or removes.
DROPPED = "\u00a8\u00af\u00b4\u00b8"
MARKS = ["\u0301", "\u0e48", "\u093e", "\u064b", "\ufe0f", "\U00011100", "\U000e0100"]
JOINERS = ["\u200d", "\u00ad"]
# A word of any script: it begins and ends with what every tokenizer keeps, and may have marks and joiners inside.
LETTERS = st.characters(categories=["L", "N", "P", "So"], exclude_characters=DROPPED)
WORDS = st.lists(
    st.one_of(
        st.sampled_from(PARTS),
        st.tuples(LETTERS, st.sampled_from(MARKS)).map("".join),
        st.tuples(LETTERS, st.sampled_from([*MARKS, *JOINERS]), LETTERS).map("".join),
        st.text(LETTERS, min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=3,
).map("".join)
BLANKS = st.sampled_from([" ", "  ", "\r\n", "\n", "\t", "\u3000", "\u00a0", " \r\n "])


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(WORDS, BLANKS), min_size=1, max_size=6), st.data())
def test_words_between_blanks_are_decoded_unchanged(drawn: list[tuple[str, str]], data: st.DataObject) -> None:
    context = "".join(word + blank for word, blank in drawn)
    starts = [len("".join(word + blank for word, blank in drawn[:number])) for number in range(len(drawn))]
    first = data.draw(st.integers(0, len(drawn) - 1))
    last = data.draw(st.integers(first, len(drawn) - 1))
    answer = context[starts[first] : starts[last] + len(drawn[last][0])]

    for kind, encoder in ENCODERS.items():
        assert (kind, decoded(encoder, context, [(answer, starts[first])])) == (kind, [answer])


def encoder_of(tokenizer: Tokenizer) -> encoding.Encoder:
    how = Tokenize.model_construct(max_length=2000, stride=0, max_question_length=64, limit=None)
    return encoding.Encoder(wrapped(tokenizer), {"unanswerable": False}, how)


def wrapped(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "model_input_names": ["input_ids", "attention_mask"]}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def labelled(encoder: encoding.Encoder, context: str, spans: list[tuple[str, int]], question: str = "?") -> Any:
    """Return the feature of each answer."""
    rows = [
        {"id": "", "title": None, "question": question, "context": context, "answers": [{"text": text, "start": start}]}
        for text, start in spans
    ]
    return encoder.encode(pa.Table.from_pylist(rows, corpus.SCHEMA), np.arange(len(rows))).to_pylist()


def decoded(encoder: encoding.Encoder, context: str, spans: list[tuple[str, int]]) -> list[str]:
    """Return the text of the tokens that are the labels of each answer."""
    found = []
    for feature in labelled(encoder, context, spans):
        first, last = (feature[name] - feature["context_start"] for name in ("start_positions", "end_positions"))
        assert first >= 0, context
        found.append(context[feature["starts"][first] : feature["ends"][last]])
    return found


ENCODERS = {kind: encoder_of(made()) for kind, made in TOKENIZERS.items()}
