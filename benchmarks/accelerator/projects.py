"""Temporary copies of the project, each with one task's small recipe, and the stages run in them without DVC."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from benchmarks import ROOT
from benchmarks.accelerator import corpora, models, ours
from finetrail import layout

COPIED = ("dvc.yaml", "params.yaml", "stages", "finetrail", ".dvcignore")
RECIPE = "small"
JSONL = {"format": "jsonl", "encoding": "utf-8"}
PREPARED = ("download_corpus", "download_model", "tokenize")
PREDICTED = Path("data/predictions.parquet")
WEIGHTS = Path("data/trained/model.safetensors")
LOSSES = Path("metrics/train/plots/metrics/train/loss.tsv")
RECORD = Path("data/trained/training.json")

Section = dict[str, Any]
# A project's folder, and the stages to run there, in order.
Job = tuple[Path, tuple[str, ...]]

PLAIN_LOSS: Section = {"label_smoothing": 0.0, "class_weights": None}
# Task -> its sections corpus, tokenize, train, evaluate.
SECTIONS: dict[str, tuple[Section, Section, Section, Section]] = {
    "token_classification": (
        {
            "reader": JSONL | {"columns": {"tokens": "tokens", "labels": "labels"}},
            "tags": {"scheme": "iob2", "impossible_transitions": "refuse", "unseen_labels": "keep"},
        },
        {"max_length": 24, "stride": 4, "label_subwords": "first"},
        {"best_metric": "f1"} | PLAIN_LOSS,
        {},
    ),
    "masked_lm": (
        {"reader": JSONL | {"columns": {"text": "text"}}},
        {
            "block_size": 16,
            "join_documents": False,
            "remainder": "pad",
            "mask_probability": 0.2,
            "whole_word": True,
            "mask_seed": 0,
        },
        {"best_metric": "perplexity", "mask_probability": 0.2, "whole_word": True},
        {"fill_mask_examples": 4},
    ),
    "text_classification": (
        {
            "reader": JSONL | {"columns": {"text": "text", "label": "label"}},
            "problem": "single_label",
            "label_separator": None,
            "label_map": None,
            "normalize": "nfc",
            "unseen_labels": "keep",
        },
        {"max_length": 24, "overflow": "head", "head_tokens": None, "stride": None},
        {"best_metric": "accuracy"} | PLAIN_LOSS,
        {"pool": "mean", "positive_label": None, "threshold": None},
    ),
    "question_answering": (
        {
            "reader": JSONL | {"columns": {"question": "question", "context": "context", "answers": "answers"}},
            "answer_mismatch": "refuse",
        },
        {"max_length": 28, "stride": 4, "max_question_length": 8},
        {"best_metric": "span_accuracy"},
        {"n_best": 3, "max_answer_length": 5, "null_threshold": None, "script": "squad"},
    ),
    "retrieval": (
        {
            "reader": JSONL | {"columns": {"query": "query", "document": "document"}},
            "positive_label": None,
            "rankings": None,
        },
        {
            "max_query_length": 12,
            "max_length": 24,
            "query_prefix": "",
            "document_prefix": "",
            "max_negatives": 0,
            "negatives": None,
            "pooling": "mean",
            "dimensions": None,
        },
        {"best_metric": "mrr@10", "micro_batch": None, "scale": 20.0, "batching": "random"},
        {"index": "exact", "bm25_terms": "words", "candidates": None},
    ),
    "text_generation": (
        {"reader": JSONL | {"columns": {"prompt": "prompt", "completion": "completion"}}, "bad_conversations": None},
        {
            "block_size": 48,
            "join_documents": False,
            "remainder": "pad",
            "template": "{prompt} >",
            "eos_token": None,
            "chat": None,
        },
        {"best_metric": "perplexity"},
        {
            "samples": {
                "count": 8,
                "prompt_tokens": None,
                "max_new_tokens": 6,
                "temperature": 0.0,
                "top_p": 1.0,
                "seed": 0,
            }
        },
    ),
}


def make(task: str, folder: Path, sizes: Section, dropout: bool, examples: int, **train: Any) -> Path:
    """Make the project of a task in a folder, with its corpus and base model; train: changed settings of training."""
    folder.mkdir(parents=True)
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    corpus = folder / "corpus.jsonl"
    corpora.write(task, examples, corpus)
    words = {word for text in corpora.sentences(examples) for word in text.split()} | {"who", "was", "it", "?"}
    if task == "text_generation":
        source = new_gpt2(sizes, dropout)
    else:
        models.save_bert(words, sizes, dropout, folder / "base")
        source = {"kind": "file", "path": str(folder / "base"), "sha256": None}
    write_recipe(folder, task, recipe(task, corpus, source, train))
    return folder


def new_gpt2(sizes: Section, dropout: bool) -> Section:
    """Return the source of a GPT-2 of these sizes that the train stage draws."""
    own = {
        "n_embd": sizes["hidden_size"],
        "n_layer": sizes["num_hidden_layers"],
        "n_head": sizes["num_attention_heads"],
    }
    config = {"model_type": "gpt2", "n_positions": 48} | own | ({} if dropout else models.GPT2_NO_DROPOUT)
    return {
        "kind": "new",
        "config": config,
        "tokenizer": {"kind": "byte_level_bpe", "vocab_size": 300, "min_frequency": 2},
    }


def recipe(task: str, corpus: Path, source: Section, train: Section) -> Section:
    """Return a whole recipe of a task."""
    own = SECTIONS[task]
    splits = {"train": corpus.name, "validation": 0.2, "test": 0.2, "seed": 0, "stratify": None, "group": None}
    splits |= {"documents": None} if task == "retrieval" else {}
    corpus_source = {"kind": "file", "path": str(corpus), "sha256": None}
    described = {"name": "people and places", "license": "CC0-1.0", "language": "en"}
    return {
        "corpus": described | {"source": corpus_source, "splits": splits} | own[0],
        "model": {"name": "random", "source": source, "license": "CC0-1.0"},
        "tokenize": own[1] | {"engine": "local", "num_proc": 1, "limit": None},
        "numerics": "fast",
        "train": ours.settings() | own[2] | train,
        "evaluate": {
            "batch_size": 32,
            "bootstrap": {"samples": 100, "confidence": 0.95, "seed": 0},
            "worst_errors": 5,
        }
        | own[3],
        "export": {"int8": False, "max_metric_drop": 1000.0, "hub_repo": None, "hub_private": True},
    }


def write_recipe(folder: Path, task: str, whole: Section) -> None:
    """Write the recipe, and let params.yaml name it; JSON is YAML 1.2."""
    path = folder / "recipes" / task / f"{RECIPE}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(whole, indent=2))
    shutil.copy(ROOT / layout.defaults_file(task), path.parent)
    params = yaml.safe_load((folder / "params.yaml").read_text()) | {"task": task, "recipe": RECIPE}
    (folder / "params.yaml").write_text(json.dumps(params))


def copy(folder: Path, name: str, **train: Any) -> Path:
    """Copy a project beside itself, with what it has computed; train: changed settings of training."""
    target = folder.with_name(name)
    shutil.copytree(folder, target)
    [path] = (target / "recipes").glob(f"*/{RECIPE}.yaml")
    whole = json.loads(path.read_text())
    whole["train"] |= train
    path.write_text(json.dumps(whole, indent=2))
    return target


def run(jobs: list[Job], device: str, workers: int) -> dict[Path, str]:
    """Run the stages of all jobs on a device, in so many processes; return the error of each that failed, in a line.

    A process runs several jobs, for imports take longer than small models.
    """
    shares = [share for share in (jobs[worker::workers] for worker in range(workers)) if share]
    with ThreadPoolExecutor(len(shares)) as pool:
        list(pool.map(lambda share: _run_in_a_process(share, device, len(shares)), shares))
    errors = {}
    for folder, stages in jobs:
        ended = json.loads(_ended(folder).read_text()) if _ended(folder).exists() else {"error": "its process died"}
        if ended["error"]:
            errors[folder] = f"{' '.join(stages)}: {ended['error']}"
    return errors


def environment(code: Path, device: str | None = None, processes: int = 1) -> dict[str, str]:
    """Return the variables of a process that computes beside others, for the code in a folder; "cpu" hides a GPU."""
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    paths = os.pathsep.join([str(code), *filter(None, [os.environ.get("PYTHONPATH")])])
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    return os.environ | {"OMP_NUM_THREADS": threads, "PYTHONPATH": paths} | hidden


def _run_in_a_process(jobs: list[Job], device: str, processes: int) -> None:
    for folder, _ in jobs:
        _ended(folder).unlink(missing_ok=True)
    given = json.dumps([(str(folder), stages) for folder, stages in jobs])
    subprocess.run(
        [sys.executable, "-m", "benchmarks.accelerator.stage_runner"],
        cwd=ROOT, env=environment(ROOT, device, processes), input=given, text=True, check=False,
    )  # fmt: skip


def _ended(folder: Path) -> Path:
    return folder / "ended.json"


def how(record: dict[str, Any]) -> str:
    """Return, from the record of a training, how it was computed."""
    execution = {"none": "unpadded", "buckets": "padded"}.get(record.get("padding", ""), "as always")
    return f"{record['precision']} {execution} {record.get('execution', '')}".strip()


def losses(folder: Path) -> list[float]:
    """Return the loss of each update of a training."""
    lines = (folder / LOSSES).read_text().splitlines()[1:]
    return [float(line.split("\t")[1]) for line in lines]


def worst_difference(found: list[float], expected: list[float]) -> float:
    """Return the largest relative difference of two loss curves."""
    return max(abs(one - other) / abs(other) for one, other in zip(found, expected, strict=True))


def worst_share_of_mean(found: list[float], expected: list[float]) -> float:
    """Return the largest difference of two loss curves as a share of the mean: rounding weighs more in low losses."""
    apart = max(abs(one - other) for one, other in zip(found, expected, strict=True))
    return apart / (sum(expected) / len(expected))
