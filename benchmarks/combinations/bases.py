"""Tiny base models with random weights: the architectures that a combination may name."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, ByteLevelBPETokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedTokenizerFast

from benchmarks.accelerator import corpora, models
from benchmarks.combinations.starts import DECODERS, ENCODERS, SENTENCES

LONGEST = 64
TINY = models.TINY
OTHER_NAMES: dict[str, dict[str, Any]] = {
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": LONGEST},
    "electra": TINY | {"embedding_size": 16},
    "albert": TINY | {"embedding_size": 16},
    "roberta": TINY | {"max_position_embeddings": LONGEST + 2, "type_vocab_size": 1},
    "deberta-v2": TINY | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16},
    "modernbert": TINY | {"global_attn_every_n_layers": 2, "local_attention": 8},
    "gpt2": models.GPT2_TINY | {"n_positions": LONGEST},
    "llama": models.LLAMA_TINY,
    "qwen2": models.LLAMA_TINY,
    "opt": TINY | {"ffn_dim": 64, "word_embed_proj_dim": 32},
}


def write(folder: Path, names: tuple[str, ...] = (*ENCODERS, *DECODERS)) -> None:
    """Write base models, as the Hub has them."""
    for name in names:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            _write(name, folder / name)


def _write(name: str, folder: Path) -> None:
    pieces = name in DECODERS or name == "roberta"
    texts = corpora.sentences(SENTENCES)
    words = {word for text in texts for word in text.split()} | {"who", "was", "it", "?"}
    size = byte_pieces(texts, folder, name) if pieces else models.tokenizer_of_words(words, folder, LONGEST)
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2} if pieces else {"pad_token_id": 0}
    sizes = {"max_position_embeddings": LONGEST} | OTHER_NAMES.get(name, TINY)
    config = AutoConfig.for_model(name, vocab_size=size, **ids, **sizes)
    of = AutoModelForCausalLM if name in DECODERS else AutoModelForMaskedLM
    of.from_config(config).save_pretrained(folder)


def byte_pieces(texts: list[str], folder: Path, name: str) -> int:
    """Save a tokenizer of byte-level pieces, with RoBERTa's tokens or a decoder's; return its size."""
    trained = ByteLevelBPETokenizer(add_prefix_space=name == "roberta")
    tokens = ["<s>", "<pad>", "</s>", "<unk>"]
    trained.train_from_iterator(texts, vocab_size=400, special_tokens=tokens, show_progress=False)
    tokenizer = trained._tokenizer
    named = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    if name == "roberta":
        tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True)])
        named |= {"cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}
        from tokenizers.processors import RobertaProcessing

        tokenizer.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=True)
    saved = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=LONGEST, **named)
    saved.save_pretrained(folder)
    return len(saved)
