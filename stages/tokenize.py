"""Turns data/corpus into features: data/tokenized."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from finetrail import layout, params, stage, tasks

EXAMPLES_A_BATCH = 4096  # bounds memory, whatever the size of the corpus


def main() -> None:
    """Encode every split with the base model's tokenizer, and keep that as it was used."""
    declared = params.load("tokenize")
    task, settings = tasks.module(declared.task, "encoding"), declared.tokenize
    tokenizer = task.load_tokenizer(layout.BASE_TOKENIZER, settings.max_length)
    train = (batch for _, batch in read(layout.split_file(layout.CORPUS, "train"), None))
    label_names = task.label_names(train, settings)
    encoder = task.Encoder(tokenizer, label_names, settings)
    with stage.output(layout.TOKENIZED) as folder:
        folder.mkdir()
        counts = {}
        for split in layout.SPLITS:
            batches = read(layout.split_file(layout.CORPUS, split), settings.limit)
            counts[split] = encode(batches, encoder, task.FEATURES, folder / layout.features_file(split).name)
            numbers = (f"{count:,} {name.replace('_', ' ')}" for name, count in counts[split].items())
            stage.log(f"tokenize: {split}: {', '.join(numbers)}")
        stage.write_json(folder / layout.LABEL_NAMES.name, label_names)
        stage.write_json(folder / layout.TOKENIZED_COUNTS.name, {"settings": settings.model_dump(), "splits": counts})
        tokenizer.save_pretrained(folder / layout.USED_TOKENIZER.name)


def encode(
    batches: Iterator[tuple[np.ndarray, pa.Table]], encoder: Any, schema: pa.Schema, path: Path
) -> dict[str, int]:
    """Write the features of one split as an Arrow stream, batch by batch, and return their counts."""
    counts: Counter[str] = Counter()
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for rows, examples in tqdm(batches, desc=path.stem, unit="batch", disable=None, leave=False):
            features = encoder.encode(examples, rows)
            writer.write_table(features)
            counts.update(encoder.count(examples, features))
    return dict(counts)


def read(path: Path, limit: int | None) -> Iterator[tuple[np.ndarray, pa.Table]]:
    """Yield (row numbers, examples) of a split in batches: all of it, or `limit` rows spread evenly over it.

    Evenly, and not the first: corpora are often sorted by label or by document.
    """
    file = pq.ParquetFile(path)
    total = file.metadata.num_rows
    kept = np.arange(total) if limit is None or limit >= total else np.arange(limit) * total // limit
    start = 0
    for batch in file.iter_batches(EXAMPLES_A_BATCH):
        rows = kept[np.searchsorted(kept, start) : np.searchsorted(kept, start + len(batch))]
        if len(rows):
            yield rows, pa.Table.from_batches([batch]).take(rows - start)
        start += len(batch)


if __name__ == "__main__":
    stage.run(main)
