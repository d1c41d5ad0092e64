"""Turns a model into one that trains faster, above all on a CPU, with the same losses but for what dropout draws."""

import ctypes
import os
import platform

import torch
from transformers import PreTrainedModel

from finetrail.training.attention import use_attention_with_dropout
from finetrail.training.dropout import use_scaled_masks
from finetrail.training.last_layer import fills_masks, labels_tokens, only_first, only_labelled

# Of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
NEVER = -1  # mallopt(3); the largest int would be two GiB
# For how many shapes oneDNN, and torch's ideep above it, keep products prepared; they read it at the first product.
PREPARED = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")


def speed_up(model: PreTrainedModel, compiles: bool) -> None:
    """Make training with padding faster; the weights stay as they are.

    On an accelerator only models that fill masks change.
    """
    if fills_masks(model):
        only_labelled(model, compiles)
    if torch.accelerator.is_available():
        return
    keep_memory()
    keep_few_prepared()
    use_scaled_masks(model)
    use_attention_with_dropout(model)
    only_first(model)
    if labels_tokens(model) and not compiles:
        only_labelled(model, compiles)


def keep_memory() -> None:
    """Let glibc keep what tensors free for the next ones.

    Else it returns large blocks to the system, which gives them back page by page, each set to zero first: tens of
    thousands of page faults an update.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, NEVER)


def keep_few_prepared() -> None:
    """Let torch keep what it prepares for the shapes of a pass or two, unless the environment says otherwise.

    Else it keeps a thousand: batches have many lengths, and hundreds of MiB grow in the first hundreds of updates. To
    prepare one anew takes no time that could be measured.
    """
    for name in PREPARED:
        os.environ.setdefault(name, "64")
