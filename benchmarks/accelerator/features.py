"""Features of random tokens with a realistic distribution of lengths, laid out as the train stage reads them."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers import models as tokenizer_models
from transformers import PreTrainedTokenizerFast

from benchmarks.accelerator import models
from benchmarks.accelerator.cases import Case
from finetrail import layout
from finetrail.encoding import masking, ragged
from finetrail.labels import IGNORE_INDEX
from finetrail.stage import write_json

# Lengths are lognormal, as those of sentences and documents nearly are: the median is this share of the longest.
MEDIAN_SHARE, SPREAD = 0.4, 0.6
SHORTEST = 8
LABELS = ("bad", "fair", "good")
NAMES = ("O", "B-X", "I-X")
VALIDATION = 32  # which no measurement gets to
SPECIAL_TOKENS = len(models.TOKENS)
TARGETS: dict[str, Any] = {
    "text_classification": {"problem": "single_label", "label_names": list(LABELS), "texts": ["text"]},
    "token_classification": list(NAMES),
    "masked_lm": None,
    "text_generation": {"template": None, "chat": False},
}


def lengths(count: int, longest: int) -> np.ndarray:
    """Return so many lengths, the same each time; what would be longer is cut off there, as by max_length."""
    drawn = np.random.default_rng(0).lognormal(np.log(MEDIAN_SHARE * longest), SPREAD, count)
    return drawn.clip(min(SHORTEST, longest), longest).astype(np.int64)


def table(task: str, count: int, longest: int, vocabulary: int) -> pa.Table:
    """Return features of a task, whose tokens and labels are random."""
    generator = np.random.default_rng(1)
    sizes = lengths(count, longest)
    ids = generator.integers(SPECIAL_TOKENS, vocabulary, sizes.sum(), dtype=np.int32)
    columns = {"example": pa.array(np.arange(count), pa.int32()), "input_ids": ragged.lists(sizes, ids)}
    if task == "text_classification":
        columns["labels"] = pa.array(generator.integers(len(LABELS), size=count), pa.int32())
    elif task == "masked_lm":
        pieces = np.where(generator.random(len(ids)) < 0.2, masking.LATER, masking.FIRST).astype(np.int8)
        columns["pieces"] = ragged.lists(sizes, pieces)
        columns["labels"] = pa.nulls(count, pa.list_(pa.int32()))
    elif task == "text_generation":
        columns["labels"] = columns["input_ids"]
    else:
        # The first token of each word has a label.
        known = generator.integers(len(NAMES), size=len(ids), dtype=np.int32)
        columns["labels"] = ragged.lists(sizes, np.where(generator.random(len(ids)) < 0.8, known, IGNORE_INDEX))
    return pa.table(columns)


def of_case(case: Case, device: str, tiny: bool, folder: Path, updates: int) -> Path:
    """Return the folder with the model and the features of a case, for so many updates; both are made once."""
    weights = folder / "models" / case.model
    config: Any = models.shape(case.model, tiny)
    if not weights.exists():
        if case.task == "text_generation":  # the stage draws it
            config.save_pretrained(weights)
        else:
            models.save(config, weights, device)
    rows = case.batch_size * (updates + 1)  # so that no epoch ends while it is measured
    target = folder / f"{case.task}-{case.model}-{case.longest}-{rows}"
    if not target.exists():
        target.mkdir()
        lay_out(case.task, rows, case.longest, config.vocab_size, weights, target)
    return target


def lay_out(task: str, count: int, longest: int, vocabulary: int, weights: Path, folder: Path) -> None:
    """Write data/ as far as the train stage reads it; the weights are linked to."""
    for split, rows in {"train": count, "validation": VALIDATION}.items():
        path = folder / layout.features_file(split)
        path.parent.mkdir(parents=True, exist_ok=True)
        features = table(task, rows, longest, vocabulary)
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, features.schema) as writer:
            writer.write_table(features)
    write_json(folder / layout.TARGET, TARGETS[task])
    save_tokenizer(vocabulary, longest, folder / layout.USED_TOKENIZER)
    (folder / layout.MODEL).mkdir()
    os.symlink(weights, folder / layout.WEIGHTS)


def save_tokenizer(vocabulary: int, longest: int, folder: Path) -> None:
    """Save a tokenizer of as many made-up words: batches need its padding and its mask."""
    ids = {
        word: index
        for index, word in enumerate([*models.TOKENS.values(), *map(str, range(SPECIAL_TOKENS, vocabulary))])
    }
    tokenizer = Tokenizer(tokenizer_models.WordLevel(ids, unk_token=models.TOKENS["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=longest, **models.TOKENS).save_pretrained(
        folder
    )
