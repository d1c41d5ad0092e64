"""Corpora of any size, drawn from a seed, with words by Zipf's law: sentences, documents, queries; and a tiny model.

Nothing is copied from a real corpus, so that they can have any size; the same arguments give the same bytes.
"""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

LETTERS = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
VOCABULARY = 200_000  # distinct words, of which most are rare
EXPONENT = 1.07  # of Zipf's law for English words
AT_ONCE = 10_000  # texts that are drawn together
TOKENS = 8_000  # of the model's vocabulary: the frequent words, and letters for the others


class Words:
    """Draws words, the same for a seed."""

    def __init__(self, seed: int) -> None:
        self.draw = np.random.default_rng(seed)
        lengths = np.clip(np.random.default_rng(0).poisson(6, VOCABULARY), 1, 20)
        letters = np.random.default_rng(1).choice(LETTERS, lengths.sum(), p=_zipf(len(LETTERS), 0.7))
        ends = np.cumsum(lengths)
        # A number distinguishes words of the same letters, as in names of things.
        spelled = ("".join(letters[end - size : end]) for end, size in zip(ends, lengths, strict=True))
        seen: dict[str, int] = {}
        self.known = np.array([_numbered(word, seen) for word in spelled])
        self.bounds = np.cumsum(_zipf(VOCABULARY, EXPONENT))

    def texts(self, number: int, mean: float) -> Iterator[list[str]]:
        """Yield so many texts of words; their lengths are lognormal around a mean."""
        for start in range(0, number, AT_ONCE):
            size = min(AT_ONCE, number - start)
            lengths = np.clip(self.draw.lognormal(np.log(mean) - 0.125, 0.5, size), 3, 20 * mean).astype(np.int64)
            ranks = np.searchsorted(self.bounds, self.draw.random(lengths.sum()) * self.bounds[-1])
            for words in np.split(self.known[ranks], np.cumsum(lengths)[:-1]):
                yield words.tolist()

    def ranks(self, number: int, of: int, exponent: float = 1.0) -> np.ndarray:
        """Return so many numbers below `of`, the low ones often and each at least once where there is room: labels."""
        drawn = np.searchsorted(np.cumsum(_zipf(of, exponent)), self.draw.random(number)).clip(max=of - 1)
        drawn[:of] = np.arange(of)[:number]
        return self.draw.permutation(drawn)


def _zipf(number: int, exponent: float) -> np.ndarray:
    weights = 1 / np.arange(1, number + 1) ** exponent
    return weights / weights.sum()


def _numbered(word: str, seen: dict[str, int]) -> str:
    seen[word] = seen.get(word, 0) + 1
    return word if seen[word] == 1 else f"{word}{seen[word]}"


def tagging(folder: Path, words: int, labels: int) -> None:
    """Write sentences of about so many words with entities of so many types, as CoNLL has them."""
    source = Words(words)
    sentences = words // 20
    kinds = iter(source.ranks(3 * sentences, labels).tolist())
    with (folder / "train.conll").open("w") as file:
        for number, tokens in enumerate(source.texts(sentences, 20)):
            tags = ["O"] * len(tokens)
            for start in range(number % 3, len(tokens) - 2, 9):
                kind = f"T{next(kinds, 0)}"
                tags[start : start + 2] = [f"B-{kind}", f"I-{kind}"]
                tokens[start] = f"{kind.lower()}{tokens[start]}"
            file.write("".join(f"{token}\t{tag}\n" for token, tag in zip(tokens, tags, strict=True)) + "\n")


def documents(folder: Path, number: int, labels: int, mean: int) -> None:
    """Write so many documents of about so many words with one of so many labels, which a word of each tells."""
    source = Words(number)
    kinds = source.ranks(number, labels).tolist()
    with (folder / "train.jsonl").open("w") as file:
        for text, kind in zip(source.texts(number, mean), kinds, strict=True):
            file.write(json.dumps({"text": " ".join([*text, f"about{kind}"]), "label": f"L{kind}"}) + "\n")


def collection(folder: Path, number: int, queries: int, mean: int) -> None:
    """Write so many documents in BEIR's layout, and for each split so many queries: words of the document judged."""
    source, names = Words(number), ("train", "validation", "test")
    wanted = source.draw.choice(number, len(names) * queries, replace=False)
    asked: dict[int, list[str]] = dict.fromkeys(wanted.tolist(), [])
    with (folder / "corpus.jsonl").open("w") as file:
        for row, text in enumerate(source.texts(number, mean)):
            file.write(json.dumps({"_id": f"d{row}", "title": "", "text": " ".join(text)}) + "\n")
            if row in asked:
                asked[row] = text[1::4][:8]
    with (folder / "queries.jsonl").open("w") as file:
        for row, text in asked.items():
            file.write(json.dumps({"_id": f"q{row}", "text": " ".join(text)}) + "\n")
    for name, rows in zip(names, np.split(wanted, len(names)), strict=True):
        lines = ["query-id\tcorpus-id\tscore", *(f"q{row}\td{row}\t1" for row in rows)]
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")


def long_text(folder: Path, characters: int) -> None:
    """Write one text of so many characters in one line, and two short ones beside it."""
    source, parts, size = Words(characters), [], 0
    for words in source.texts(characters, 20):
        parts.append(" ".join(words))
        size += len(parts[-1]) + 1
        if size > characters:
            break
    (folder / "train.txt").write_text(" ".join(parts)[:characters] + "\n")
    for name in ("validation", "test"):
        lines = (" ".join(words) for words in source.texts(500, 20))
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")


def archive(folder: Path, number: int, labels: int, mean: int) -> None:
    """Write a .tar.gz of so many files, a document each, in a folder for each label."""
    source = Words(number)
    with tarfile.open(folder / "corpus.tar.gz", "w:gz", compresslevel=1) as tar:
        for row, text in enumerate(source.texts(number, mean)):
            content = " ".join(text).encode()
            member = tarfile.TarInfo(f"L{row % labels}/{row}.txt")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def model(folder: Path) -> None:
    """Write a BERT of one layer of 16 numbers: its passes cost little, so that all else is what is measured."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    letters = [*LETTERS.tolist(), *"0123456789."]
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]",
               "mask_token": "[MASK]"}  # fmt: skip
    pieces = [*special.values(), *letters, *(f"##{letter}" for letter in letters), *Words(0).known.tolist()]
    ids = {piece: number for number, piece in enumerate(list(dict.fromkeys(pieces))[:TOKENS])}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(name, ids[name]) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **special).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(ids), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=64, pad_token_id=0,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
