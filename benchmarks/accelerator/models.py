"""Tokenizers and models with random weights, made from configurations."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
GPT2_NO_DROPOUT = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
SMALL = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024}
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
GPT2_TINY = {"n_embd": 32, "n_layer": 2, "n_head": 2}
LLAMA_1B = {
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 8192,
}
LLAMA_TINY = TINY | {"num_key_value_heads": 1}
ROBERTA_LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
}
MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
VOCABULARY = {"bert": 30522, "distilbert": 30522, "roberta": 50265, "gpt2": 50257, "llama": 32000}
TINY_VOCABULARY = 500


def shape(name: str, tiny: bool) -> PreTrainedConfig:
    """Return the configuration of a model by its name, with the dropout that it is trained with."""
    sizes = TINY if tiny else {}
    if name == "bert-base":
        return BertConfig(**{"vocab_size": vocabulary("bert", tiny), "pad_token_id": 0} | sizes)
    if name == "minilm-l6":
        return BertConfig(**{"vocab_size": vocabulary("bert", tiny), "pad_token_id": 0} | MINILM | sizes)
    if name == "distilbert":
        small = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64} if tiny else {}
        return DistilBertConfig(vocab_size=vocabulary("distilbert", tiny), pad_token_id=0, **small)
    if name == "roberta-large":
        return RobertaConfig(**{"vocab_size": vocabulary("roberta", tiny), "pad_token_id": 0} | ROBERTA_LARGE | sizes)
    if name == "gpt2":
        ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0)
        return GPT2Config(vocab_size=vocabulary("gpt2", tiny), **ids, **(GPT2_TINY if tiny else {}))
    ids = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    sizes = LLAMA_TINY if tiny else LLAMA_1B
    return LlamaConfig(vocab_size=vocabulary("llama", tiny), tie_word_embeddings=True, **ids, **sizes)


def vocabulary(kind: str, tiny: bool) -> int:
    """Return the tokens of a kind of model."""
    return TINY_VOCABULARY if tiny else VOCABULARY[kind]


def tokenizer_of_words(words: Iterable[str], folder: Path, max_length: int) -> int:
    """Save an uncased WordPiece tokenizer that knows these words and all letters; return the size of its vocabulary."""
    known = sorted({word.lower() for word in words})
    letters = sorted(set("".join(known)))
    pieces = [*TOKENS.values(), *letters, *("##" + letter for letter in letters), *known]
    ids = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token=TOKENS["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(TOKENS[name], ids[TOKENS[name]]) for name in ("cls_token", "sep_token")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=max_length, **TOKENS).save_pretrained(folder)
    return len(ids)


def save_bert(words: Iterable[str], sizes: dict[str, Any], dropout: bool, folder: Path, max_length: int = 64) -> None:
    """Save a random BERT for these words, with its tokenizer: a base model as the Hub has them."""
    config = {"vocab_size": tokenizer_of_words(words, folder, max_length), "pad_token_id": 0} | sizes
    save(BertConfig(max_position_embeddings=max_length, **config, **({} if dropout else NO_DROPOUT)), folder)


def save(config: PreTrainedConfig, folder: Path, device: str = "cpu") -> None:
    """Save a model with random weights, the same each time on one device; its head is BERT's for masks, or none."""
    from transformers import AutoModel

    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(0)
        make = BertForMaskedLM if config.model_type == "bert" else AutoModel.from_config
        make(config).save_pretrained(folder)
