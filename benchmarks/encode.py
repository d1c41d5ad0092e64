"""Encoding CoNLL-2003 train: the Hugging Face course's align function over datasets.map beside the tokenize stage.

python -m benchmarks.encode [CORPUS_FOLDER]    (the folder of eng.train; needs data/model: run `dvc repro` before)
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import CORPORA, keep
from finetrail import layout
from finetrail.corpus import readers
from finetrail.corpus.tags import to_iob2
from finetrail.encoding.tokenizer import load_tokenizer
from finetrail.schema import ConllReader
from finetrail.tasks.token_classification import encoding
from finetrail.tasks.token_classification.corpus import SCHEMA
from finetrail.tasks.token_classification.settings import Tokenize
from stages import tokenize

READER = ConllReader(format="conll", separator=None, token_column=0, label_column=-1, comment=None, encoding="utf-8")
SETTINGS = Tokenize(engine="local", num_proc=1, max_length=512, stride=32, label_subwords="all", limit=None)
ROUNDS = 3
COPIES = 10


def sentences(folder: Path) -> Iterator[dict[str, Any]]:
    for record in readers.read(folder, [folder / "eng.train"], READER):
        yield {
            "id": record.id,
            "tokens": record.values["tokens"],
            "labels": to_iob2(record.values["labels"], "iob1")[0],
        }


def label_names(source: Path) -> list[str]:
    return encoding.target((batch for _, batch in tokenize.read(source, None)), SETTINGS)


def ours(tokenizer: Any, names: list[str], source: Path, target: Path) -> None:
    """What stages/tokenize.py does with one split: Parquet to an Arrow stream."""
    encoder = encoding.Encoder(tokenizer, names, SETTINGS)
    features = encoder.encode_table("train", tokenize.read(source, None))
    tokenize.write(features, encoder.tables["train"], target)


def course(dataset: Any, tokenizer: Any, names: list[str], cache: Path) -> Any:
    """The course's chapter 7, token classification: tokenize_and_align_labels over datasets.map, batched."""
    label_ids = {name: index for index, name in enumerate(names)}
    inside = {index: label_ids.get("I-" + name[2:], index) for name, index in label_ids.items() if name[:2] == "B-"}

    def align_labels_with_tokens(labels: list[int], word_ids: list[int | None]) -> list[int]:
        new_labels, current_word = [], None
        for word_id in word_ids:
            if word_id != current_word:
                current_word = word_id
                new_labels.append(-100 if word_id is None else labels[word_id])
            elif word_id is None:
                new_labels.append(-100)
            else:
                label = labels[word_id]
                new_labels.append(inside.get(label, label))
        return new_labels

    def tokenize_and_align_labels(examples: dict[str, Any]) -> Any:
        inputs = tokenizer(examples["tokens"], truncation=True, max_length=512, is_split_into_words=True)
        inputs["labels"] = [
            align_labels_with_tokens(labels, inputs.word_ids(i)) for i, labels in enumerate(examples["label_ids"])
        ]
        return inputs

    return dataset.map(
        tokenize_and_align_labels, batched=True, remove_columns=dataset.column_names,
        cache_file_name=str(cache), load_from_cache_file=False,
    )  # fmt: skip


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def peak_mib(source: Path) -> float:
    """Return the peak memory of encoding a corpus in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.encode", "--peak", str(source)], check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def write_copies(rows: list[dict[str, Any]], copies: int, path: Path) -> None:
    """Write a corpus several times over; each copy has names of its own, so that its vocabulary grows too."""
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for copy in range(copies):
            renamed = [
                row | {"tokens": [f"{w}{copy}" if copy and w[:1].isupper() else w for w in row["tokens"]]}
                for row in rows
            ]
            writer.write_table(pa.Table.from_pylist(renamed, SCHEMA), row_group_size=10_000)


def main(folder: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    rows = list(sentences(folder))
    words = sum(len(row["tokens"]) for row in rows)
    with tempfile.TemporaryDirectory() as name:
        temporary = Path(name)
        once, many = temporary / "once.parquet", temporary / "many.parquet"
        write_copies(rows, 1, once)
        write_copies(rows, COPIES, many)
        tokenizer, names = load_tokenizer(layout.BASE_TOKENIZER, SETTINGS.max_length), label_names(once)
        label_ids = {label: index for index, label in enumerate(names)}
        dataset = datasets.Dataset.from_list(
            [{"tokens": r["tokens"], "label_ids": [label_ids[label] for label in r["labels"]]} for r in rows]
        )
        target = temporary / "features.arrow"
        seconds: dict[str, list[float]] = {"course": [], "ours": []}
        for _ in range(ROUNDS):
            took, peer = timed(lambda: course(dataset, tokenizer, names, temporary / "course.arrow"))
            seconds["course"].append(took)
            took, _ = timed(lambda: ours(tokenizer, names, once, target))
            seconds["ours"].append(took)
        with pa.memory_map(str(target)) as file:
            features = pa.ipc.open_stream(file).read_all()
        # The course also stores attention_mask (all ones) and token_type_ids (all zeros), which the collator makes.
        identical = all(features[column].to_pylist() == peer[column][:] for column in ("input_ids", "labels"))
        best = {who: min(values) for who, values in seconds.items()}
        peaks = {"once": peak_mib(once), f"{COPIES}_times": peak_mib(many)}
    keep(
        "encode",
        {
            "corpus": "CoNLL-2003 train",
            "words": words,
            "identical_features": identical,
            "course_words_per_second": round(words / best["course"]),
            "ours_words_per_second": round(words / best["ours"]),
            "ratio": round(best["course"] / best["ours"], 2),
            "seconds_of_each_round": {who: [round(value, 3) for value in values] for who, values in seconds.items()},
            "peak_mib": peaks,
            "peak_ratio": round(peaks[f"{COPIES}_times"] / peaks["once"], 3),
        },
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        with tempfile.TemporaryDirectory() as target:
            given = Path(sys.argv[2])
            tokenizer = load_tokenizer(layout.BASE_TOKENIZER, SETTINGS.max_length)
            ours(tokenizer, label_names(given), given, Path(target) / "features.arrow")
        # Not getrusage: a child's ru_maxrss begins with its parent's size. VmHWM, in KiB, is of this process alone.
        status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
        print(int(status["VmHWM"].split()[0]) / 1024)
    else:
        main(Path(sys.argv[1]) if sys.argv[1:] else CORPORA / "conll2003")
