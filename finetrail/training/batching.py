"""Turns features into what training sees: which batches, in what order, and in what pieces."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets import Dataset
from torch.utils.data import DataLoader, Sampler

from finetrail.labels import IGNORE_INDEX
from finetrail.training.mixing import Mixture

BATCHES_SORTED_TOGETHER = 100
# Of a piece of a batch of similar lengths.
MOST_PADDING = 0.05
DRAWS = 2**62
# The draw of a row that only fills up the last batches, so that all processes have as many; it counts nothing.
REPEATED = DRAWS

# A batch: {"pieces": what the collator made of each, "items": over how many items the loss of each is a mean [pieces]}.
Batch = dict[str, Any]
Collator = Callable[[pa.Table], dict[str, torch.Tensor]]


def length_grouped(lengths: np.ndarray, batch_size: int, generator: np.random.Generator) -> np.ndarray:
    """Return a random order of the features in which each run of batch_size has similar lengths.

    A random permutation is sorted by length within groups of batches, and the batches are then shuffled, so that
    short and long ones alternate; an incomplete batch comes last.
    """
    order = generator.permutation(len(lengths))
    group = batch_size * BATCHES_SORTED_TOGETHER
    runs = [order[start : start + group] for start in range(0, len(order), group)]
    order = np.concatenate([run[np.argsort(lengths[run], kind="stable")] for run in runs] or [order])
    whole = len(order) // batch_size * batch_size
    batches = order[:whole].reshape(-1, batch_size)
    return np.concatenate([generator.permutation(batches).ravel(), order[whole:]])


class Batches(Sampler[list[tuple[int, int]]]):
    """The batches of one process in each epoch, as (row, draw) pairs; a pure function of seed and epoch.

    A draw seeds what a collator draws for a row, such as masks: so neither the engine, nor the number of processes, nor
    a resumption changes what training sees. Processes take the batches in turn, and all have as many.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        batch_size: int,
        grouped: bool,
        seed: int,
        process: int = 0,
        processes: int = 1,
        mixture: Mixture | None = None,
    ) -> None:
        self.lengths, self.batch_size, self.grouped, self.seed = lengths, batch_size, grouped, seed
        self.mixture = mixture
        self.process, self.processes = process, processes
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that iterating gives, from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(math.ceil(len(self.lengths) / self.batch_size) / self.processes)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        generator = np.random.default_rng([self.seed, self.epoch])
        # A row may stand there several times, with a draw for each.
        rows = np.arange(len(self.lengths)) if self.mixture is None else self.mixture.rows(self.epoch)
        draws = generator.integers(DRAWS, size=len(rows))
        lengths = self.lengths[rows]
        order = (
            length_grouped(lengths, self.batch_size, generator) if self.grouped else generator.permutation(len(rows))
        )
        batches = [order[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size)]
        for number in range(self.process, len(self) * self.processes, self.processes):
            if number < len(batches):
                places = batches[number]
                yield list(zip(rows[places].tolist(), draws[places].tolist(), strict=True))
            else:
                yield [(row, REPEATED) for row in rows[batches[0]].tolist()]


class Rows(torch.utils.data.Dataset[pa.Table]):
    """Features by (row, draw) pairs, each with its draw; a batch is read where it is mapped into memory."""

    def __init__(self, features: Dataset) -> None:
        self.features = features.with_format("arrow")

    def __len__(self) -> int:
        return len(self.features)

    def __getitems__(self, keys: list[tuple[int, int]]) -> pa.Table:
        rows, draws = zip(*keys, strict=True)
        return self.features[list(rows)].combine_chunks().append_column("draw", [draws])


def train_loader(
    features: Dataset,
    collator: Collator,
    items: Callable[[dict[str, torch.Tensor]], torch.Tensor],
    batches: Batches,
    columns: Sequence[str],
    piece_size: int | None,
    most_padding: float,
) -> "TrainLoader":
    """Return the loader of one process's batches, each in pieces of at most piece_size features; None: one piece.

    No piece has a larger share of padding than most_padding.

    columns are what the collator takes of the features and of "draw".
    """

    def collate(rows: pa.Table) -> Batch:
        counted = rows["draw"][0].as_py() != REPEATED
        lengths = pc.list_value_length(rows["input_ids"]).to_pylist()
        taken = rows.select([name for name in rows.column_names if name in columns])
        parts = pieces(lengths, piece_size, most_padding) if piece_size else None
        collated = [collator(taken.take(part)) for part in parts] if parts else [collator(taken)]
        return {"pieces": collated, "items": torch.stack([items(piece) * counted for piece in collated])}

    # A generator of its own: else each new epoch would take a number from the one that dropout draws from.
    own = torch.Generator()
    pinned = torch.cuda.is_available()  # from there it is copied while the device computes
    return TrainLoader(Rows(features), batch_sampler=batches, collate_fn=collate, generator=own, pin_memory=pinned)


class TrainLoader(DataLoader[Batch]):
    """A DataLoader that passes the epoch on to its batches."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that iterating gives, from 0."""
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]


def pieces(lengths: Sequence[int], most_features: int | None, most_padding: float) -> list[list[int]]:
    """Part a batch into pieces of similar length: positions in `lengths`, the longest first.

    A piece takes the next shorter feature while it has no more than most_features, and padding of no more than
    most_padding of its tokens.
    """
    found: list[list[int]] = []
    width = tokens = 0
    for position in sorted(range(len(lengths)), key=lambda position: -lengths[position]):
        padded = (len(found[-1]) + 1) * width if found else 0
        full = not found or len(found[-1]) == most_features
        if full or padded - tokens - lengths[position] > most_padding * padded:
            found.append([])
            width, tokens = lengths[position], 0
        found[-1].append(position)
        tokens += lengths[position]
    return found


def labelled(features: Dataset) -> Dataset:
    """Leave out the features without any label, whose mean loss would be 0 / 0.

    Such is a window that holds only the middle of one long word, or words or a text whose labels train lacks.
    Features whose labels are no whole numbers, or are yet to be drawn (null), all stay.
    """
    labels = features.features.arrow_schema.field("labels").type if "labels" in features.column_names else None
    if labels is not None and pa.types.is_integer(labels):
        column = features.with_format("arrow")["labels"][:]
        return features.select(np.flatnonzero(column.to_numpy() != IGNORE_INDEX))
    if labels is None or not (pa.types.is_list(labels) and pa.types.is_integer(labels.value_type)):
        return features
    kept = []
    for batch in features.with_format("arrow").iter(10_000):
        known = pc.list_flatten(batch["labels"]).to_numpy() != IGNORE_INDEX
        counts = np.bincount(pc.list_parent_indices(batch["labels"]).to_numpy()[known], minlength=len(batch))
        kept.append((counts > 0) | batch["labels"].is_null().to_numpy())
    return features.select(np.flatnonzero(np.concatenate(kept)))


def feature_lengths(features: Dataset) -> np.ndarray:
    """Return the tokens of each feature, of all its texts where it has several: int64 [features]."""
    table = features.with_format("arrow")
    columns = [name for name in features.column_names if name.endswith("input_ids")]
    return np.concatenate([sum(_tokens(batch[name]) for name in columns) for batch in table.iter(10_000)])


def _tokens(texts: pa.ChunkedArray) -> np.ndarray:
    """Return the tokens of each row: of a text, or of a list of texts."""
    lengths = pc.list_value_length(texts).to_numpy().astype(np.int64)
    if not pa.types.is_list(texts.type.value_type):
        return lengths
    inner = pc.list_value_length(pc.list_flatten(texts)).to_numpy()
    rows = pc.list_parent_indices(texts).to_numpy()
    return np.bincount(rows, weights=inner, minlength=len(texts)).astype(np.int64)
