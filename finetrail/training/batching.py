"""Turns features into the batches of training: their order, and their micro-batches.

1. `Batches` orders the rows of an epoch, at random or by similar length, and cuts the order into batches. Each row
   gets a seed for the collator's random draws. Processes take the batches in turn.
2. `Rows` reads the features of a batch as an Arrow table, with a column `row_seed`.
3. `split_batch` splits a batch into micro-batches of similar length, so that little of each is padding.
4. The collator pads each micro-batch and makes tensors of it. The task counts the items over which its loss is a mean.
5. `run.backward` weights each micro-batch's loss by its items, so that the update is that of the undivided batch.

Both engines use this loader. It depends on seed and epoch alone, so that a resumed run sees the same batches.
"""

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
# The largest share of padding in a micro-batch, where batches have similar lengths.
MOST_PADDING = 0.05
ROW_SEEDS = 2**62
# The seed of a row that only fills up the last batches, so that all processes have equally many; it does not count.
REPEATED = ROW_SEEDS

# {"micro_batches": a list of what the collator made of each, "num_items": the number of items over which the loss of
# each is a mean, int64 [micro_batches]}.
Batch = dict[str, Any]
Collator = Callable[[pa.Table], dict[str, torch.Tensor]]


def length_grouped(lengths: np.ndarray, batch_size: int, generator: np.random.Generator) -> np.ndarray:
    """Return a random order of the features in which each batch_size successive ones have similar lengths.

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
    """The batches of one process in each epoch, as (row, row_seed) pairs; a pure function of seed and epoch.

    A row_seed seeds what a collator draws for a row, such as masks. So the engine, the number of processes and a
    resumption do not change what training sees. Processes take the batches in turn, and all have equally many.
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
        # A mixture may have a row several times, with a seed for each.
        rows = np.arange(len(self.lengths)) if self.mixture is None else self.mixture.rows(self.epoch)
        row_seeds = generator.integers(ROW_SEEDS, size=len(rows))
        lengths = self.lengths[rows]
        order = (
            length_grouped(lengths, self.batch_size, generator) if self.grouped else generator.permutation(len(rows))
        )
        batches = [order[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size)]
        for number in range(self.process, len(self) * self.processes, self.processes):
            if number < len(batches):
                places = batches[number]
                yield list(zip(rows[places].tolist(), row_seeds[places].tolist(), strict=True))
            else:
                yield [(row, REPEATED) for row in rows[batches[0]].tolist()]


class Rows(torch.utils.data.Dataset[pa.Table]):
    """Features by (row, row_seed) pairs, each with its seed; a batch is read from the memory-mapped file."""

    def __init__(self, features: Dataset) -> None:
        self.features = features.with_format("arrow")

    def __len__(self) -> int:
        return len(self.features)

    def __getitems__(self, keys: list[tuple[int, int]]) -> pa.Table:
        rows, row_seeds = zip(*keys, strict=True)
        return self.features[list(rows)].combine_chunks().append_column("row_seed", [row_seeds])


def train_loader(
    features: Dataset,
    collator: Collator,
    num_items: Callable[[dict[str, torch.Tensor]], torch.Tensor],
    batches: Batches,
    columns: Sequence[str],
    micro_batch_size: int | None,
    most_padding: float,
) -> "TrainLoader":
    """Return the loader of one process's batches, each split into micro-batches.

    columns: the features, and "row_seed", that the collator needs.
    micro_batch_size: the largest number of features in one; None does not split batches.
    most_padding: the largest share of padding in one.
    """

    def collate(rows: pa.Table) -> Batch:
        counted = rows["row_seed"][0].as_py() != REPEATED
        lengths = pc.list_value_length(rows["input_ids"]).to_pylist()
        selected = rows.select([name for name in rows.column_names if name in columns])
        parts = split_batch(lengths, micro_batch_size, most_padding) if micro_batch_size else None
        collated = [collator(selected.take(part)) for part in parts] if parts else [collator(selected)]
        return {
            "micro_batches": collated,
            "num_items": torch.stack([num_items(micro_batch) * counted for micro_batch in collated]),
        }

    # Without its own generator, each epoch would draw a number from the generator of dropout.
    own = torch.Generator()
    pinned = torch.cuda.is_available()  # from there it is copied while the device computes
    return TrainLoader(Rows(features), batch_sampler=batches, collate_fn=collate, generator=own, pin_memory=pinned)


class TrainLoader(DataLoader[Batch]):
    """A DataLoader that passes the epoch on to its batches."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that iterating gives, from 0."""
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]


def split_batch(lengths: Sequence[int], most_features: int | None, most_padding: float) -> list[list[int]]:
    """Split a batch into micro-batches of similar length: positions in `lengths`, the longest first.

    A micro-batch gets the next shorter feature as long as it has at most most_features of them, and at most
    most_padding of its tokens are padding.
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

    Examples are a window that has only the middle of one long word, and a text whose label does not occur in train.
    Features whose labels are not integers, or are drawn later (null), are all kept.
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
    """Return the number of tokens of each feature, summed over its texts: int64 [features]."""
    table = features.with_format("arrow")
    columns = [name for name in features.column_names if name.endswith("input_ids")]
    return np.concatenate([sum(_tokens(batch[name]) for name in columns) for batch in table.iter(10_000)])


def _tokens(texts: pa.ChunkedArray) -> np.ndarray:
    """Return the number of tokens of each row, which is a text or a list of texts."""
    lengths = pc.list_value_length(texts).to_numpy().astype(np.int64)
    if not pa.types.is_list(texts.type.value_type):
        return lengths
    inner = pc.list_value_length(pc.list_flatten(texts)).to_numpy()
    rows = pc.list_parent_indices(texts).to_numpy()
    return np.bincount(rows, weights=inner, minlength=len(texts)).astype(np.int64)
