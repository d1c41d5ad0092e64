"""Texts to blocks: the Hugging Face course's way, the tokenize stage's, and the raw tokenizer, on one text file.

python -m benchmarks.blocks [TEXT_FILE]    (a line is a text; needs data/model: run `dvc repro` before)
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import CORPORA, keep
from finetrail import layout
from finetrail.tasks.masked_lm import encoding
from finetrail.tasks.masked_lm.corpus import SCHEMA
from finetrail.tasks.masked_lm.settings import Tokenize
from stages import tokenize

SETTINGS = Tokenize(
    block_size=128, join_documents=True, remainder="drop", mask_probability=0.15, whole_word=False, mask_seed=0,
    limit=None, engine="local", num_proc=1,
)  # fmt: skip
ROUNDS = 5
COPIES = 10


def load_tokenizer() -> Any:
    return encoding.load_tokenizer(layout.BASE_TOKENIZER, SETTINGS, lambda: iter(()))


def ours(tokenizer: Any, source: Path, target: Path) -> None:
    """What stages/tokenize.py does with train: Parquet to an Arrow stream of blocks."""
    encoder = encoding.Encoder(tokenizer, None, SETTINGS)
    blocks = encoder.encode_table("train", tokenize.read(source, None))
    tokenize.write(blocks, encoding.FEATURES, target)


def course(dataset: Any, tokenizer: Any, cache: Path, num_proc: int | None = None) -> Any:
    """The course's chapter 7, masked language modeling: tokenize_function and group_texts over datasets.map."""

    def tokenize_function(examples: dict[str, Any]) -> Any:
        result = tokenizer(examples["text"])
        result["word_ids"] = [result.word_ids(i) for i in range(len(result["input_ids"]))]
        return result

    def group_texts(examples: dict[str, Any]) -> dict[str, Any]:
        joined = {key: sum(examples[key], []) for key in examples}
        total = len(joined["input_ids"]) // SETTINGS.block_size * SETTINGS.block_size
        result = {
            key: [values[i : i + SETTINGS.block_size] for i in range(0, total, SETTINGS.block_size)]
            for key, values in joined.items()
        }
        result["labels"] = result["input_ids"].copy()
        return result

    files = [str(cache.with_name(f"{cache.name}-{name}.arrow")) for name in ("tokens", "blocks")]
    options: dict[str, Any] = {"batched": True, "load_from_cache_file": False, "num_proc": num_proc}
    tokens = dataset.map(tokenize_function, remove_columns=["text"], cache_file_name=files[0], **options)
    return tokens.map(group_texts, cache_file_name=files[1], **options)


def timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def peak_mib(source: Path) -> float:
    """Return the peak memory of making blocks of a corpus in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.blocks", "--peak", str(source)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def write_texts(texts: list[str], copies: int, path: Path) -> None:
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for copy in range(copies):
            ids = [f"{copy}-{number}" for number in range(len(texts))]
            writer.write_table(pa.table({"id": ids, "text": texts}), row_group_size=10_000)


def main(file: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    texts = [line for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
    tokenizer = load_tokenizer()
    backend = tokenizer.backend_tokenizer
    dataset = datasets.Dataset.from_dict({"text": texts})
    seconds: dict[str, list[float]] = {"raw": [], "course": [], "ours": []}
    with tempfile.TemporaryDirectory() as name:
        temporary = Path(name)
        once, many, target = temporary / "once.parquet", temporary / "many.parquet", temporary / "blocks.arrow"
        write_texts(texts, 1, once)
        write_texts(texts, COPIES, many)
        for _ in range(ROUNDS):
            seconds["raw"].append(timed(lambda: backend.encode_batch(texts, add_special_tokens=False)))
            seconds["course"].append(timed(lambda: course(dataset, tokenizer, temporary / "course")))
            seconds["ours"].append(timed(lambda: ours(tokenizer, once, target)))
        peaks = {"once": peak_mib(once), f"{COPIES}_times": peak_mib(many)}
    tokens = sum(len(encoded) for encoded in backend.encode_batch(texts, add_special_tokens=False))
    best = {who: min(values) for who, values in seconds.items()}
    keep(
        "blocks",
        {
            "corpus": f"{file.parent.name}/{file.name}",
            "tokens": tokens,
            "tokens_per_second": {who: round(tokens / value) for who, value in best.items()},
            "share_of_raw": {who: round(best["raw"] / best[who], 2) for who in ("course", "ours")},
            "seconds_of_each_round": {who: [round(value, 3) for value in values] for who, values in seconds.items()},
            "peak_mib": {which: round(peak, 1) for which, peak in peaks.items()},
            "peak_ratio": round(peaks[f"{COPIES}_times"] / peaks["once"], 3),
        },
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        with tempfile.TemporaryDirectory() as folder:
            ours(load_tokenizer(), Path(sys.argv[2]), Path(folder) / "blocks.arrow")
        # Not getrusage: a child's ru_maxrss begins with its parent's size. VmHWM, in KiB, is of this process alone.
        status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
        print(int(status["VmHWM"].split()[0]) / 1024)
    else:
        main(Path(sys.argv[1]) if sys.argv[1:] else CORPORA / "brown_text" / "brown.txt")
