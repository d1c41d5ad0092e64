"""A tiny model of each task with a batch that it takes, for what must hold for all of them."""

from pathlib import Path
from typing import Any

import torch
from conftest import NO_FEATURES, PLAIN_LOSS, toy_settings
from transformers import GPT2Config, GPT2LMHeadModel

from finetrail import tasks

MASK = {"attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]])}
TEXTS = {"input_ids": torch.tensor([[2, 9, 8, 7, 3], [2, 6, 5, 3, 0]])} | MASK
TARGETS: dict[str, Any] = {
    "masked_lm": None,
    "question_answering": {"unanswerable": False},
    "retrieval": {"pooling": "mean", "dimensions": None, "max_length": 16, "query_prefix": "", "document_prefix": ""},
    "text_classification": {"problem": "single_label", "label_names": ["bad", "fair", "good"]},
    "text_generation": {"block_size": 8, "template": None, "chat": False},
    "token_classification": ["O", "B-LOC", "B-PER"],
}
BATCHES: dict[str, dict[str, torch.Tensor]] = {
    "masked_lm": TEXTS | {"labels": torch.tensor([[-100, 4, -100, 9, -100], [-100, -100, 7, -100, -100]])},
    "question_answering": TEXTS | {"start_positions": torch.tensor([1, 0]), "end_positions": torch.tensor([2, 0])},
    "retrieval": TEXTS
    | {
        "document_input_ids": torch.tensor([[[2, 4, 3]], [[2, 5, 3]]]),
        "document_attention_mask": torch.ones(2, 1, 3, dtype=torch.int64),
        "documents": torch.tensor([[11], [12]]),
        "relevant": torch.tensor([[11], [12]]),
    },
    "text_classification": TEXTS | {"labels": torch.tensor([2, 0])},
    "text_generation": TEXTS | {"labels": torch.tensor([[-100, 9, 8, 7, 3], [-100, 6, 5, 3, -100]])},
    "token_classification": TEXTS | {"labels": torch.tensor([[-100, 1, 0, 2, -100], [-100, 0, 0, -100, -100]])},
}
OWN_SETTINGS: dict[str, dict[str, Any]] = {
    "masked_lm": {"mask_probability": 0.2, "whole_word": False},
    "retrieval": {"micro_batch": None, "scale": 20.0},
    "text_classification": PLAIN_LOSS,
    "token_classification": PLAIN_LOSS,
}


def save_gpt2(folder: Path) -> Path:
    """Save a random 2-layer GPT-2, whose layers are Conv1D."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GPT2Config(
            n_layer=2, n_head=2, n_embd=16, n_positions=16, vocab_size=12, bos_token_id=1, eos_token_id=1
        )
        GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def build(task: str, bert: Path, folder: Path, seed: int = 0) -> Any:
    """Build the model of a task from a random BERT, or from a GPT-2 that is saved in the folder."""
    base = save_gpt2(folder / "gpt2") if task == "text_generation" else bert
    settings = tasks.module(task, "settings").Train(**toy_settings(**OWN_SETTINGS.get(task, {})))
    torch.manual_seed(seed)
    return tasks.module(task, "modeling").build_model(base, TARGETS[task], settings, NO_FEATURES)


def without_dropout(model: Any) -> Any:
    """Return the model, which then gives the same outputs in training as in evaluation."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def steps(model: Any, batch: dict[str, torch.Tensor], count: int = 3) -> None:
    """Train a few steps, with what requires a gradient."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    model.train()
    for _ in range(count):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
