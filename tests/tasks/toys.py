"""A toy corpus and recipe of each task, for the tests that hold for all of them."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from conftest import PLAIN_LOSS, toy_recipe, toy_settings
from ruamel.yaml import YAML

Rows = list[dict[str, Any]]
Recipe = dict[str, Any]

JSONL = {"format": "jsonl", "encoding": "utf-8"}


class Toy(NamedTuple):
    """What differs between tasks: the corpus's rows, the recipe's sections, and how to ask of a test split's row."""

    rows: Callable[[list[str]], Rows]  # sentences -> objects of a JSON Lines file
    corpus: Recipe
    tokenize: Recipe
    train: Recipe
    evaluate: Recipe
    ask: Callable[[dict[str, Any]], dict[str, Any]]  # row of the corpus or, for blocks, of the features -> input


def labelled(sentences: list[str]) -> Rows:
    return [{"text": text, "label": "travel" if "lives" in text or "train" in text else "other"} for text in sentences]


def tagged(sentences: list[str]) -> Rows:
    words = [text.split() for text in sentences]
    return [{"tokens": of, "labels": ["B-X" if word[:1].isupper() else "O" for word in of]} for of in words]


def questions(sentences: list[str]) -> Rows:
    """Ask for the word after the first blank of a context."""
    rows = []
    for text in sentences:
        start = text.index(" ") + 1
        answer = text[start:].split(" ")[0]
        rows.append({"question": "who was it ?", "context": text, "answers": [{"text": answer, "start": start}]})
    return rows


def pairs(sentences: list[str]) -> Rows:
    return [{"query": " ".join(text.split()[:3]), "document": f"{text} {i}"} for i, text in enumerate(sentences)]


def masked(row: dict[str, Any]) -> dict[str, Any]:
    positions = [place for place, label in enumerate(row["labels"]) if label != -100]
    return {"input_ids": row["input_ids"], "positions": positions}


TOYS = {
    "token_classification": Toy(
        tagged,
        {
            "reader": JSONL | {"columns": {"tokens": "tokens", "labels": "labels"}},
            "tags": {"scheme": "iob2", "impossible_transitions": "refuse", "unseen_labels": "keep"},
        },
        {"max_length": 16, "stride": 4, "label_subwords": "first"},
        {"best_metric": "f1"} | PLAIN_LOSS,
        {},
        lambda row: {"tokens": row["tokens"]},
    ),
    "masked_lm": Toy(
        lambda sentences: [{"text": text} for text in sentences],
        {"reader": JSONL | {"columns": {"text": "text"}}},
        {
            "block_size": 16,
            "join_documents": True,
            "remainder": "pad",
            "mask_probability": 0.2,
            "whole_word": True,
            "mask_seed": 0,
        },
        {"best_metric": "perplexity", "mask_probability": 0.2, "whole_word": True},
        {"fill_mask_examples": 4},
        masked,
    ),
    "text_classification": Toy(
        labelled,
        {
            "reader": JSONL | {"columns": {"text": "text", "label": "label"}},
            "problem": "single_label",
            "label_separator": None,
            "label_map": None,
            "normalize": "nfc",
            "unseen_labels": "keep",
        },
        {"max_length": 10, "overflow": "windows", "head_tokens": None, "stride": 2},
        {"best_metric": "accuracy"} | PLAIN_LOSS,
        {"pool": "mean", "positive_label": "travel", "threshold": None},
        lambda row: {"text": row["text"]},
    ),
    "question_answering": Toy(
        questions,
        {
            "reader": JSONL | {"columns": {"question": "question", "context": "context", "answers": "answers"}},
            "answer_mismatch": "refuse",
        },
        {"max_length": 20, "stride": 2, "max_question_length": 8},
        {"best_metric": "span_accuracy"},
        {"n_best": 3, "max_answer_length": 5, "null_threshold": None, "script": "squad"},
        lambda row: {"question": row["question"], "context": row["context"]},
    ),
    "retrieval": Toy(
        pairs,
        {
            "reader": JSONL | {"columns": {"query": "query", "document": "document"}},
            "positive_label": None,
            "rankings": None,
        },
        {
            "max_query_length": 8,
            "max_length": 16,
            "query_prefix": "",
            "document_prefix": "",
            "max_negatives": 0,
            "negatives": None,
            "pooling": "mean",
            "dimensions": None,
        },
        {"best_metric": "mrr@10", "micro_batch": None, "scale": 20.0, "batching": "random"},
        {"index": "exact", "bm25_terms": "words", "candidates": 5},
        lambda row: {"query": row["query"]},
    ),
    "text_generation": Toy(
        lambda sentences: [{"prompt": " ".join(text.split()[:3]), "completion": text} for text in sentences],
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
                "count": 100,
                "prompt_tokens": None,
                "max_new_tokens": 6,
                "temperature": 0.8,
                "top_p": 0.9,
                "seed": 0,
            }
        },
        lambda row: {"prompt": row["prompt"]},
    ),
}

NEW_MODEL = {
    "kind": "new",
    "config": {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 48},
    "tokenizer": {"kind": "byte_level_bpe", "vocab_size": 300, "min_frequency": 2},
}


def write(task: str, base: Recipe, sentences: list[str], folder: Path) -> Recipe:
    """Write the toy corpus of a task, and return its recipe: that of token classification with the task's own parts."""
    toy = TOYS[task]
    file = folder / "toy.jsonl"
    lines = (json.dumps(row, ensure_ascii=False) for row in toy.rows(sentences))
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    common = {key: base["corpus"][key] for key in ("name", "splits", "license", "language")}
    splits = common["splits"] | {"train": file.name} | ({"documents": None} if task == "retrieval" else {})
    source = {"kind": "file", "path": str(file), "sha256": None}
    model = base["model"] | ({"source": NEW_MODEL} if task == "text_generation" else {})
    evaluate = {key: base["evaluate"][key] for key in ("batch_size", "bootstrap", "worst_errors")}
    return {
        "corpus": common | {"source": source, "splits": splits} | toy.corpus,
        "model": model,
        "tokenize": toy.tokenize | {"engine": "local", "num_proc": 1, "limit": None},
        "numerics": "fast",
        "train": toy_settings() | toy.train,
        "evaluate": evaluate | toy.evaluate,
        "export": base["export"] | {"max_metric_drop": 1000.0},
    }


def add_source(corpus: Recipe) -> None:
    """Give each example of a toy corpus a source, which is a slice."""
    file = Path(corpus["source"]["path"])
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    rows = [row | {"source": "web" if number % 3 else "books"} for number, row in enumerate(rows)]
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    columns = corpus["reader"]["columns"] | {"source": "source"}
    corpus |= {"reader": corpus["reader"] | {"columns": columns}, "slices": ["source"]}


@contextmanager
def projects(
    request: pytest.FixtureRequest, *stages: ModuleType, sliced: bool = False, **train: Any
) -> Iterator[Callable[[str], Path]]:
    """Give the function that enters the project of a task, run once through these stages; train: changed settings."""
    done: dict[str, Path] = {}
    sentences = [" ".join(tokens) for tokens, _ in request.getfixturevalue("toy_sentences")]
    with pytest.MonkeyPatch.context() as patch:

        def enter(task: str) -> Path:
            if task not in done:
                parent = request.getfixturevalue("tmp_path_factory").mktemp(task)
                project = request.getfixturevalue("make_project")(parent)
                base = toy_recipe(parent, request.getfixturevalue("tiny_checkpoint"))
                recipe = write(task, base, sentences, parent)
                if sliced:
                    add_source(recipe["corpus"])
                recipe["train"] |= train
                save(project, task, recipe)
                patch.chdir(project)
                for stage in stages:
                    stage.main()
                done[task] = project
            patch.chdir(done[task])
            return done[task]

        yield enter


def save(project: Path, task: str, recipe: Recipe) -> None:
    """Write the recipe, and let params.yaml name it."""
    yaml = YAML()
    (project / "recipes" / task).mkdir(exist_ok=True)
    yaml.dump(recipe, project / "recipes" / task / "toy.yaml")
    params = yaml.load(project / "params.yaml")
    params.update(task=task, recipe="toy")
    yaml.dump(params, project / "params.yaml")
