"""Texts to blocks on more processes: the course's datasets.map(num_proc) beside tokenize.num_proc, on one text file.

python -m benchmarks.encode_processes [TEXT_FILE]    (a line is a text; needs data/model: run `dvc repro` before)
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks import CORPORA, blocks, keep
from finetrail.encoding.engines import ordered_map
from finetrail.tasks.masked_lm import encoding
from stages import tokenize

PROCESSES = (1, 2)
ROUNDS = 2
COPIES = 4


def ours(tokenizer: Any, source: Path, target: Path, num_proc: int) -> None:
    """What stages/tokenize.py does with train, the start of its processes included."""
    encoder = encoding.Encoder(tokenizer, None, blocks.SETTINGS)
    with ordered_map("local", num_proc) as mapped:
        tokenize.write(encoder.encode_table("train", tokenize.read(source, None), mapped), encoding.FEATURES, target)


def main(file: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    texts = [line for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
    words = COPIES * sum(len(line.split()) for line in texts)
    tokenizer = blocks.load_tokenizer()
    seconds: dict[str, list[float]] = {f"{who}_{count}": [] for who in ("course", "ours") for count in PROCESSES}
    with tempfile.TemporaryDirectory() as name:
        temporary = Path(name)
        source, targets = temporary / "texts.parquet", [temporary / f"{count}.arrow" for count in PROCESSES]
        blocks.write_texts(texts, COPIES, source)
        dataset = datasets.Dataset(pq.read_table(source, columns=["text"]))
        for _ in range(ROUNDS):
            for count, target in zip(PROCESSES, targets, strict=True):
                work = blocks.timed(lambda c=count: blocks.course(dataset, tokenizer, temporary / "course", c))
                seconds[f"course_{count}"].append(work)
                work = blocks.timed(lambda c=count, t=target: ours(tokenizer, source, t, c))
                seconds[f"ours_{count}"].append(work)
        identical = len({target.read_bytes() for target in targets}) == 1
    best = {which: min(values) for which, values in seconds.items()}
    keep(
        "encode_processes",
        {
            "corpus": f"{file.parent.name}/{file.name}, {COPIES} times",
            "words": words,
            "identical_features": identical,
            "words_per_second": {which: round(words / value) for which, value in best.items()},
            "speedup_of_2": {who: round(best[f"{who}_1"] / best[f"{who}_2"], 2) for who in ("course", "ours")},
            "seconds_of_each_round": {
                which: [round(value, 2) for value in values] for which, values in seconds.items()
            },
        },
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else CORPORA / "brown_text" / "brown.txt")
