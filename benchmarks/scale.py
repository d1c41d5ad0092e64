"""Time and memory of the stages on corpora that grow: `python -m benchmarks.scale CASE [SIZE ...] [--until STAGE]`.

Each stage is a process of its own, as DVC starts it, without DVC. Training has one update, on 200 examples, and is not
measured. All sizes of a case, where none is named; results/scale.json keeps what was measured before.
"""

import argparse
import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

from benchmarks import RESULTS, ROOT, keep, machine, scale_corpora
from finetrail import layout, params

LIMIT = 200  # examples of the model's training
MOST_GIB = 6  # of private memory: a stage that asks for more fails
MOST_SECONDS = 900  # of a stage
QUERIES = 1_000  # of each split
COPIED = ("dvc.yaml", "finetrail", "stages")
MEASURED = ("download_corpus", "tokenize", "evaluate", "export", "report")


class Case(NamedTuple):
    """A task, the recipe that is taken, what is changed in it, the unit of its sizes, and what writes its corpus."""

    task: str
    recipe: str
    changes: dict[str, Any]
    unit: str
    sizes: tuple[int, ...]
    write: Callable[[Path, int], None]


TEXTS = {
    "corpus.splits.train": "train.jsonl",
    "corpus.reader": {"format": "jsonl", "columns": {"text": "text", "label": "label"}, "encoding": "utf-8"},
}
WHOLE = {"corpus.splits.train": "train.txt", "corpus.splits.validation": "validation.txt",
         "corpus.splits.test": "test.txt", "corpus.reader.unit": "line"}  # fmt: skip
CASES = {
    "tagging": Case(
        "token_classification", "bring-your-own-conll", {"corpus.splits.test": 0.1}, "words", (10**5, 10**6, 10**7),
        lambda folder, size: scale_corpora.tagging(folder, size, labels=20),
    ),
    "classification": Case(
        "text_classification", "bring-your-own-csv", TEXTS, "documents", (10**4, 10**5, 10**6),
        lambda folder, size: scale_corpora.documents(folder, size, labels=20, mean=50),
    ),
    "labels": Case(
        "text_classification", "bring-your-own-csv", TEXTS, "labels of 150,000 documents", (10**3, 10**5),
        lambda folder, size: scale_corpora.documents(folder, 150_000, labels=size, mean=8),
    ),
    "entity_types": Case(
        "token_classification", "bring-your-own-conll", {"corpus.splits.test": 0.1}, "entity types in 10^6 words",
        (10, 100, 1000), lambda folder, size: scale_corpora.tagging(folder, 10**6, labels=size),
    ),
    "retrieval": Case(
        "retrieval", "cranfield-files",
        {"corpus.splits.train": "train.tsv", "corpus.splits.validation": "validation.tsv",
         "corpus.splits.test": "test.tsv", "tokenize.max_query_length": 32, "evaluate.candidates": None},
        "documents", (10**4, 10**5, 10**6),
        lambda folder, size: scale_corpora.collection(folder, size, QUERIES, mean=20),
    ),
    "files": Case(
        "text_classification", "bring-your-own-folders",
        {"corpus.source": {"kind": "archive", "path": "corpus/corpus.tar.gz", "sha256": None, "max_unpacked_mib": 999}},
        "files in an archive", (6_000, 60_000),
        lambda folder, size: scale_corpora.archive(folder, size, labels=20, mean=50),
    ),
    "long_line": Case(
        "masked_lm", "bring-your-own-text", WHOLE | {"tokenize.block_size": 64},
        "characters in one line", (10**6, 10**7), scale_corpora.long_text,
    ),
}  # fmt: skip


def project(folder: Path, case: Case, size: int) -> None:
    """Write the parts of this project that stages need, the corpus, the model, and the recipe."""
    for name in COPIED:
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, folder / name)
    (folder / "corpus").mkdir()
    case.write(folder / "corpus", size)
    scale_corpora.model(folder / "base")
    yaml = YAML()
    with contextlib.chdir(ROOT):
        recipe = params.read_recipe(layout.recipe_file(case.task, case.recipe)).values
    source = {"kind": "file", "path": "corpus", "sha256": None}
    changes = {"corpus.source": source, "model.source": source | {"path": "base"}, "tokenize.max_length": 64,
               "train.epochs": 0.01, "train.patience": None, "export.int8": False} | case.changes  # fmt: skip
    for key, value in changes.items():
        section, _, name = key.rpartition(".")
        at = recipe
        for part in section.split("."):
            at = at[part]
        if name in at or name in ("reader", "source"):
            at[name] = value
    target = folder / f"recipes/{case.task}/scale.yaml"
    target.parent.mkdir(parents=True)
    yaml.dump(recipe, target)
    shutil.copy(ROOT / layout.defaults_file(case.task), target.parent)
    write_params(folder, case.task, None)


def write_params(folder: Path, task: str, limit: int | None) -> None:
    """Write params.yaml; the limit is that of tokenize."""
    yaml = YAML()
    given = yaml.load(ROOT / "params.yaml")
    given.update(task=task, recipe="scale", threads=1, limit=limit)
    yaml.dump(given, folder / "params.yaml")


def measured(stage: str, folder: Path) -> dict[str, Any]:
    """Run a stage; return its seconds, those of CPU, and its peak memory: all, and what is not mapped from files."""
    started = time.perf_counter()
    with (folder / f"{stage}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", f"stages.{stage}"], cwd=folder, stdout=log, stderr=log, env=environment(),
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (MOST_GIB << 30, MOST_GIB << 30)),
        )  # fmt: skip
    peaks = {"VmHWM": 0, "RssAnon": 0}
    while True:
        # Not wait4's ru_maxrss: a child's begins with the size of its parent. VmHWM only grows, RssAnon is sampled.
        for name, value in status(process.pid, *peaks).items():
            peaks[name] = max(peaks[name], value)
        ended, code, used = os.wait4(process.pid, os.WNOHANG)
        if ended:
            break
        if time.perf_counter() - started > MOST_SECONDS:
            process.kill()
        time.sleep(0.02)
    process.returncode = os.waitstatus_to_exitcode(code)
    found = {
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_mib": round(peaks["VmHWM"] / 1024),
        "anonymous_mib": round(peaks["RssAnon"] / 1024),
    }
    if process.returncode:
        lines = (folder / f"{stage}.log").read_text(errors="replace").splitlines()
        found["failed"] = f"{process.returncode}: {lines[-1] if lines else ''}"[:200]
    print(stage, found, flush=True)
    return found


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}


def status(pid: int, *names: str) -> dict[str, int]:
    """Return such lines of a process's status, in KiB; none of one that has ended."""
    try:
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    except OSError:
        return {}
    return {name: int(lines[name].split()[0]) for name in names if name in lines}


def run(case: Case, size: int, folder: Path, until: str) -> dict[str, Any]:
    """Run the stages on a corpus of one size, and return what each took; up to the named one, or one that fails."""
    project(folder, case, size)
    corpus = sum(path.stat().st_size for path in (folder / "corpus").iterdir())
    print(f"{case.unit} {size:,}: {corpus / 1e6:,.1f} MB", flush=True)
    found: dict[str, Any] = {"corpus_mb": round(corpus / 1e6, 1)}
    steps = [("download_model", None), ("download_corpus", None), ("tokenize", LIMIT), ("teach", LIMIT),
             ("train", LIMIT), *((stage, None) for stage in MEASURED[1:])]  # fmt: skip
    steps = steps[: steps.index((until, None)) + 1]
    for stage, limit in steps:
        write_params(folder, case.task, limit)
        taken = measured(stage, folder)
        if stage in MEASURED and limit is None:
            found[stage] = taken
        if "failed" in taken:
            found[stage] = taken
            print((folder / f"{stage}.log").read_text(errors="replace")[-3000:], flush=True)
            break
    return found


def main(name: str, sizes: list[int], until: str) -> None:
    file = RESULTS / "scale.json"
    for size in sizes or CASES[name].sizes:
        with tempfile.TemporaryDirectory(prefix="scale-", dir=os.environ.get("SCALE_FOLDER")) as folder:
            found = run(CASES[name], size, Path(folder), until)
        known = json.loads(file.read_text()) if file.is_file() else {"machine": machine(), "cases": {}}
        known["cases"].setdefault(name, {"unit": CASES[name].unit, "sizes": {}})["sizes"][str(size)] = found
        keep("scale", known)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("sizes", nargs="*", type=int)
    parser.add_argument("--until", choices=MEASURED, default=MEASURED[-1])
    given = parser.parse_args()
    main(given.case, given.sizes, given.until)
