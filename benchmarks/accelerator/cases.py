"""What the part `speed` measures, the most important first, and the operations that a model's training needs."""

from typing import Any, NamedTuple

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from benchmarks.accelerator import models

CLASSES = {
    "text_classification": AutoModelForSequenceClassification,
    "token_classification": AutoModelForTokenClassification,
    "masked_lm": AutoModelForMaskedLM,
    "text_generation": AutoModelForCausalLM,
}
MASKED = 0.15
LABELLED = {"masked_lm": MASKED, "text_generation": 1.0}  # of the tokens, where a vocabulary is predicted
FORMULA = (
    "6 * weights * tokens + 12 * layers * width * sum(length^2), half of that where attention is causal, "
    "+ 6 * width * vocabulary * predicted tokens for a language model; weights: without embeddings; "
    "4 in place of 6 for frozen weights"
)
LORA = {"rank": 16, "alpha": 32.0, "dropout": 0.0, "target_modules": None, "keep": False, "quantize": None}


# What a task's section train has besides.
OWN: dict[str, dict[str, Any]] = {
    "text_classification": {"label_smoothing": 0.0, "class_weights": None},
    "token_classification": {"label_smoothing": 0.0, "class_weights": None},
    "masked_lm": {"mask_probability": MASKED, "whole_word": False},
}


class Side(NamedTuple):
    """A way to train: the plain Trainer's, or one of ours."""

    plain: bool = False
    best: bool = False  # of plain: with its fastest switches
    compiles: bool = False
    execution: str = "auto"  # of ours
    padding: bool | None = None  # of ours; None: as by default
    deterministic: bool = True


SIDES = {
    "plain": Side(plain=True),
    "plain_best": Side(plain=True, best=True),
    "ours": Side(),
    "ours_padded": Side(execution="eager", padding=True),
    "ours_unpadded": Side(execution="eager", padding=False),
    "ours_graphs": Side(execution="graphs", padding=False),
    "ours_any_order": Side(deterministic=False),
    "plain_compile": Side(plain=True, best=True, compiles=True),
    "ours_compile": Side(execution="compile"),
}
THREE = ("plain", "plain_best", "ours")
VARIANTS = ("ours_padded", "ours_unpadded", "ours_graphs")


class Case(NamedTuple):
    """A model and features of at most so many tokens, in batches."""

    task: str
    model: str
    longest: int
    batch_size: int
    sides: tuple[str, ...] = THREE
    lora: bool = False

    @property
    def name(self) -> str:
        adapters = " LoRA" if self.lora else ""
        return f"{self.task} {self.model}{adapters} {self.longest}/{self.batch_size}"


CLASSIFIER, TAGGER, MASKER, WRITER = "text_classification", "token_classification", "masked_lm", "text_generation"
CASES = (
    Case(CLASSIFIER, "bert-base", 128, 32, (*THREE, *VARIANTS, "ours_any_order")),
    Case(CLASSIFIER, "bert-base", 512, 32, (*THREE, *VARIANTS)),
    Case(CLASSIFIER, "bert-base", 128, 16),
    Case(CLASSIFIER, "bert-base", 128, 128),
    Case(TAGGER, "bert-base", 128, 32),
    Case(MASKER, "bert-base", 128, 32),
    Case(WRITER, "gpt2", 512, 16),
    Case(CLASSIFIER, "bert-base", 512, 16),
    Case(WRITER, "llama-1b", 512, 8, ("plain_best", "ours"), lora=True),
    Case(CLASSIFIER, "roberta-large", 128, 32, ("plain_best", "ours", "plain")),
    Case(CLASSIFIER, "bert-base", 512, 128),
    Case(TAGGER, "bert-base", 512, 32),
    Case(CLASSIFIER, "bert-base", 128, 32, ("plain_compile", "ours_compile")),
    Case(CLASSIFIER, "distilbert", 128, 32),
)
# Each kind of task and side once; torch.compile takes a CPU too long.
CASES_TINY = (
    Case(CLASSIFIER, "bert-base", 32, 8, (*THREE, *VARIANTS, "ours_any_order")),
    Case(TAGGER, "bert-base", 32, 8, ("ours",)),
    Case(MASKER, "bert-base", 32, 8, ("plain", "ours")),
    Case(WRITER, "gpt2", 32, 8, ("plain", "ours")),
    Case(WRITER, "llama-1b", 32, 8, ("plain_best", "ours"), lora=True),
    Case(CLASSIFIER, "roberta-large", 32, 8, ("ours",)),
)


class Work(NamedTuple):
    """What the operations of a training follow from."""

    weights: int
    layers: int
    width: int
    vocabulary: int  # 0 where none is predicted
    predicted: float  # share of the tokens
    causal: bool
    frozen: bool

    def operations(self, tokens: float, squares: float) -> float:
        """Return those of so many tokens, whose lengths have this sum of squares."""
        passes = 4 if self.frozen else 6
        attention = 12 * self.layers * self.width * squares / (2 if self.causal else 1)
        head = passes * self.width * self.vocabulary * self.predicted * tokens
        return passes * self.weights * tokens + attention + head


def work(case: Case, tiny: bool) -> Work:
    """Count the weights of a case's model, without making them."""
    config: Any = models.shape(case.model, tiny)
    with torch.device("meta"):
        model = CLASSES[case.task].from_config(config)
    embeddings = {
        parameter
        for module in model.modules()
        if isinstance(module, torch.nn.Embedding)
        for parameter in module.parameters()
    }
    weights = sum(parameter.numel() for parameter in model.parameters() if parameter not in embeddings)
    return Work(
        weights=weights,
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        vocabulary=config.vocab_size if case.task in LABELLED else 0,
        predicted=LABELLED.get(case.task, 0.0),
        causal=case.task == WRITER,
        frozen=case.lora,
    )
