"""Turns a base model's folder into a model that fills masks, and features into its batches."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy
from transformers import MODEL_FOR_MASKED_LM_MAPPING, AutoModelForMaskedLM, PreTrainedModel, PreTrainedTokenizerBase

from finetrail.encoding import padding
from finetrail.encoding.masking import mask, masking
from finetrail.labels import IGNORE_INDEX
from finetrail.model import distillation
from finetrail.model.lm_head import with_lm_head
from finetrail.patches import labelled_tokens
from finetrail.tasks.masked_lm.settings import Train

# Optional in tasks/contract.py, and not used here.
finish = None

COLUMNS = ("input_ids", "pieces", "labels", "row_seed")
SEPARABLE = True

NEW_HEAD = (
    "the base model has no masked-LM head: it got a new one, tied to its word embeddings, "
    "and its perplexity before training is that of an untrained head"
)


def notes(base_model: Path) -> list[str]:
    return [NEW_HEAD] if with_lm_head(base_model)[1] else []


def build_model(base_model: Path, target: None, settings: Train, train: Dataset) -> PreTrainedModel:
    """Load a base model with its masked-LM head, or with a new one. UserError if weights of the encoder are missing."""
    return with_lm_head(base_model)[0]


def load_teacher(folder: Path, target: None) -> PreTrainedModel:
    """Load a finished masked language model; UserError for any other."""
    return distillation.load_teacher(folder, AutoModelForMaskedLM, MODEL_FOR_MASKED_LM_MAPPING, label_names=None)


def divergence(outputs: Any, inputs: dict[str, Any], taught: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the mean divergence over the tokens with labels."""
    logits = outputs["logits"][inputs["labels"] != IGNORE_INDEX]
    return distillation.divergences(logits, taught, temperature).mean()


def asking(teacher: PreTrainedModel, precision: str) -> Callable[[dict[str, Any]], torch.Tensor]:
    """Return what gives a teacher's logits of a batch, of its tokens with labels: [labelled, vocabulary]."""
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    teacher.eval().requires_grad_(False)
    known: list[torch.Tensor] = []

    def keep_labelled(base: Any, _: Any, output: Any) -> None:
        output.last_hidden_state = output.last_hidden_state[known.pop()][None]  # the head of all costs as much again

    keeps = labelled_tokens.knows(teacher)
    if keeps:
        teacher.base_model.register_forward_hook(keep_labelled)

    def ask(inputs: dict[str, Any]) -> torch.Tensor:
        labelled = inputs["labels"] != IGNORE_INDEX
        if keeps:
            known.append(labelled)
        texts = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        device = texts["input_ids"].device
        with torch.no_grad(), torch.autocast(device.type, half, enabled=half is not None):
            logits = teacher.to(device)(**texts)["logits"]
        return logits[0] if keeps else logits[labelled]

    return ask


# Masks are drawn anew in each epoch, so a teacher has to see each batch.
TEACHING = distillation.Teaching(load_teacher, divergence, asking=asking)


def build_collator(
    tokenizer: PreTrainedTokenizerBase, settings: Train
) -> Callable[[pa.Table], dict[str, torch.Tensor]]:
    """Return the function that pads features, and draws masks with the seed `row_seed` if labels are null."""
    how = masking(tokenizer, settings)

    def collate(features: pa.Table) -> dict[str, torch.Tensor]:
        (ids, lengths), (pieces, _), (frozen, _) = map(padding.runs, (features[name] for name in COLUMNS[:3]))
        ends, unmasked = np.cumsum(lengths), features["labels"].is_null().to_numpy()
        labels = np.empty_like(ids)
        labels[~np.repeat(unmasked, lengths)] = frozen
        for row in np.flatnonzero(unmasked):
            block = slice(ends[row] - lengths[row], ends[row])
            generator = np.random.default_rng(features["row_seed"][row].as_py())
            ids[block], labels[block] = mask(ids[block], pieces[block], how, generator)
        arrays = {
            "input_ids": padding.filled(ids, lengths, tokenizer.pad_token_id),
            "attention_mask": padding.filled(np.ones_like(ids), lengths, 0),
            "labels": padding.filled(labels, lengths, IGNORE_INDEX),
        }
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    return collate


def num_items(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Count the tokens with labels."""
    return (batch["labels"] != IGNORE_INDEX).sum()


def reduce(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return sums per block: losses, correct tokens and tokens, float32 [batch, 3]."""
    known = labels != IGNORE_INDEX
    kept, wanted = logits[known].float(), labels[known]
    values = [cross_entropy(kept, wanted, reduction="none"), kept.argmax(-1) == wanted, torch.ones_like(wanted)]
    block = known.nonzero()[:, 0]
    sums = torch.zeros(len(labels), len(values), device=logits.device)
    return sums.index_add(0, block, torch.stack([value.float() for value in values], dim=-1))
