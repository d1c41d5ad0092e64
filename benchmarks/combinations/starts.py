"""Where combinations start: a small corpus of each kind and the plain recipe for it, of all tasks."""

import copy
import csv
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.accelerator import corpora, projects
from benchmarks.combinations.menu import Menu

Recipe = dict[str, Any]
Rows = list[dict[str, Any]]

SENTENCES = 45
# In a recipe that is not laid out yet.
CORPUS, BASES, TEACHER = "CORPUS", "BASES", "TEACHER"
# Encoder architectures. All share one tokenizer except roberta, whose tokens are pieces of bytes.
ENCODERS = ("bert", "distilbert", "electra", "albert", "roberta", "deberta-v2", "modernbert", "mpnet")
DECODERS = ("gpt2", "llama", "gpt_neox", "opt", "qwen2")
SPLITS = {"train": "train.*", "validation": 0.2, "test": 0.2, "seed": 0, "stratify": None, "group": None}
TEMPLATE = (
    "{% for message in messages %}{{ message.role + ':\\n' + message.content + eos_token }}{% endfor %}"
    "{{ 'assistant:\\n' if add_generation_prompt }}"
)


class Start(NamedTuple):
    """A recipe that runs, and what values the keys have that the schema leaves open."""

    task: str
    recipe: Recipe
    given: Menu
    write: Callable[[Path], None]  # writes the corpus, a folder for each format of it


def rows_of(make: Callable[[list[str]], Rows]) -> Rows:
    """Return rows with an id, and a source that can be a slice or a group."""
    made = make(corpora.sentences(SENTENCES))
    return [{"id": f"n{number}", "source": f"s{number % 20}"} | row for number, row in enumerate(made)]


def write_flat(rows: Rows, formats: tuple[str, ...]) -> Callable[[Path], None]:
    """Return what writes the rows in each format, as train and as files of the two others."""

    def write(folder: Path) -> None:
        parts = {"train": rows, "validation": rows[3::5], "test": rows[1::4]}
        for name, (form, part) in itertools.product(parts, zip(formats, formats, strict=True)):
            (folder / form).mkdir(parents=True, exist_ok=True)
            WRITERS[part](parts[name], folder / form / f"{name}.{form}")

    return write


def _jsonl(rows: Rows, path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _csv(rows: Rows, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _text(rows: Rows, path: Path) -> None:
    path.write_text("\n".join(row["text"] for row in rows) + "\n", encoding="utf-8")


WRITERS: dict[str, Callable[[Rows, Path], None]] = {
    "jsonl": _jsonl,
    "json": lambda rows, path: path.write_text(json.dumps(rows), encoding="utf-8") and None,
    "csv": _csv,
    "parquet": lambda rows, path: pq.write_table(pa.Table.from_pylist(rows), path),
    "text": _text,
    "spans": _jsonl,
}


def reader(form: str, columns: list[str]) -> Recipe:
    """Return the reader of a format for these columns, which have the task's names."""
    own: Recipe = {"format": form, "columns": {name: name for name in columns}}
    if form == "csv":
        own |= {"delimiter": ",", "quoting": "minimal"}
    if form == "json":
        own |= {"array": None}
    return own if form == "parquet" else own | {"encoding": "utf-8"}


def start(
    task: str,
    make: Callable[[list[str]], Rows],
    formats: tuple[str, ...],
    changes: Recipe,
    given: dict[str, list[Any]],
    optional: tuple[str, ...] = (),
) -> Start:
    """Return the start of a task with a corpus; changes: the recipe's, by dotted key; optional: columns."""
    rows = rows_of(make)
    plain = projects.recipe(task, Path(CORPUS), base("bert" if task != "text_generation" else "gpt2"), {})
    recipe = copy.deepcopy(plain)
    recipe["corpus"]["splits"] |= SPLITS
    recipe["train"] |= {"lr": 0.01}
    needed = [name for name in rows[0] if name not in ("id", "source", *optional)]
    forms = [
        reader(form, [*needed, "id", "source", *more]) for form in formats if form != "text" for more in ((), optional)
    ]
    recipe["corpus"] |= {"reader": forms[0], "slices": ["source"]}
    values: Menu = {
        ("corpus", "reader"): forms + ([lines()] if "text" in formats else []),
        ("corpus", "slices"): [["source"]],
        ("corpus", "splits", "train"): ["train.*"],
        ("corpus", "splits", "validation"): [0.2, 0.05, "validation.*"],
        ("corpus", "splits", "test"): [0.2, 0.5, "test.*"],
        ("corpus", "splits", "stratify"): [None, *[name for name in needed if name in ("label", "labels")]],
        ("corpus", "splits", "group"): [None, "source"],
        ("corpus", "language"): [None, "en"],
        ("model", "source"): [base(name) for name in (DECODERS if task == "text_generation" else ENCODERS)],
        # Those of decoders cannot be left out.
        ("model", "layers"): [None] if task == "text_generation" else [None, [0], [1], [0, 1]],
        ("model", "teacher"): [None, teacher(5), teacher(1)],
        # A Ray cluster, or more processes, take longer to start than all stages.
        ("tokenize", "engine"): ["local"],
        ("tokenize", "num_proc"): [1],
        # Not what needs a GPU, and is refused in a line without one.
        ("train", "execution"): ["auto", "eager", "compile"],
        ("train", "precision"): ["auto", "fp32", "bf16"],
        ("train", "lora", "quantize"): [None],
        ("train", "batching", "mix", "weights"): [{"one": 1.0, "two": 3.0}],
        ("train", "lora", "target_modules"): [None, ["query", "value"]],
        ("tokenize", "eos_token"): [None, "</s>"],
        ("export", "hub_repo"): [None],
    }
    if task == "text_generation":
        recipe["evaluate"]["samples"]["count"] = 2  # each token of a continuation is a pass
    for key, value in changes.items():
        put(recipe, tuple(key.split(".")), value)
    values |= {tuple(key.split(".")): of for key, of in given.items()}
    return Start(task, recipe, values, write_flat(rows, formats))


def base(name: str) -> Recipe:
    """Return the source of a base model."""
    return {"kind": "file", "path": f"{BASES}/{name}", "sha256": None}


def teacher(batch_size: int) -> Recipe:
    """Return a teacher: what the start itself trained."""
    source = {"kind": "file", "path": TEACHER, "sha256": None}
    return {"name": "teacher", "source": source, "license": "MIT", "batch_size": batch_size}


def lines() -> Recipe:
    """Return the reader of a text a line."""
    return {"format": "text", "unit": "line", "columns": {"text": "text"}, "encoding": "utf-8"}


def put(recipe: Recipe, path: tuple[str, ...], value: Any) -> None:
    """Set the value of a key."""
    for name in path[:-1]:
        recipe = recipe[name]
    recipe[path[-1]] = value


def mixed(one: Start, **more: Any) -> Start:
    """Return a start whose corpus is a mixture of two parts, of the same files; more: other keys of a mixture."""
    corpus = one.recipe["corpus"]
    parts = {"one": corpus, "two": corpus | {"splits": corpus["splits"] | {"seed": 1, "test": 0.4}}}
    mixture = {"name": "both", "license": None, "language": None, "parts": parts} | more
    return one._replace(recipe=one.recipe | {"corpus": mixture})


# --- rows of each kind ---------------------------------------------------------------------------------------------


def upper_or_lower(texts: list[str]) -> Rows:
    return [{"tokens": text.split(), "labels": [_case(word) for word in text.split()]} for text in texts]


def _case(word: str) -> str:
    return "name" if word[0].isupper() else "word" if word.isalpha() else "sign"


def spans(texts: list[str]) -> Rows:
    """Mark the first word, with the blank after it in every second text."""
    return [
        {"text": text, "spans": [{"start": 0, "end": text.index(" ") + number % 2, "label": "FIRST"}]}
        for number, text in enumerate(texts)
    ]


def text_pairs(texts: list[str]) -> Rows:
    return [
        {"text": text, "text_pair": texts[number - number % 2], "label": "same" if number % 2 == 0 else "other"}
        for number, text in enumerate(texts)
    ]


def several_labels(texts: list[str]) -> Rows:
    return [
        {"text": text, "labels": [label for label in ("train", "far", "friend") if label in text]} for text in texts
    ]


def scored(texts: list[str]) -> Rows:
    return [{"text": text, "score": len(text) / 7} for text in texts]


def some_unanswerable(texts: list[str]) -> Rows:
    rows = corpora.questions(texts)
    return [row | ({} if number % 3 else {"answers": []}) for number, row in enumerate(rows)]


def with_negatives(texts: list[str]) -> Rows:
    rows = corpora.pairs(texts)
    return [row | {"negatives": [rows[number - 2]["document"]]} for number, row in enumerate(rows)]


def judged(texts: list[str]) -> Rows:
    rows = corpora.pairs(texts)
    return [row | {"label": "0" if number % 4 == 0 else "1"} for number, row in enumerate(rows)]


def conversations(texts: list[str]) -> Rows:
    return [
        {
            "messages": [
                {"role": "user", "content": " ".join(text.split()[:3])},
                {"role": "assistant", "content": " ".join(text.split()[3:7]) or "yes"},
            ]
            * (1 + number % 2)
        }
        for number, text in enumerate(texts)
    ]


SPAN_READERS = [
    {"format": "spans", "encoding": "utf-8", "spans": dict(zip(
        ("words", "units", "blanks", "inside_words", "overlapping", "empty"), rules, strict=True))}
    for rules in (
        ("unicode", "characters", "trim", "snap", "longest", "drop"),
        ("punctuation", "utf16", "trim", "drop", "refuse", "refuse"),
        ("characters", "graphemes", "drop", "refuse", "longest", "drop"),
    )
]  # fmt: skip


def starts() -> dict[str, Start]:
    """Return all starts by name."""
    nested, flat = ("jsonl", "json", "parquet"), ("jsonl", "json", "parquet", "csv")
    scheme = {"corpus.tags.scheme": ["iob2", "iob1", {"name": "iob2", "shape": "B-TYPE", "strip": True}]}
    chat = [None, {"template": TEMPLATE, "bad_conversations": "refuse"}]
    labels = {
        "evaluate.positive_label": [None, "travel"],
        "train.class_weights": ["balanced", None, {"travel": 2.0, "other": 0.5}],
        "corpus.label_map": [None, "strip", {"travel": "other place", "other": "here"}],
        "train.best_metric": ["accuracy", "macro_f1", "mcc", "loss"],
    }
    made = {
        "token_classification": start("token_classification", corpora.tagged, nested, {}, scheme),
        "token_classification without a scheme": start(
            "token_classification", upper_or_lower, nested,
            {"corpus.tags.scheme": "none", "train.best_metric": "accuracy"},
            {"corpus.tags.scheme": ["none", {"name": "none", "shape": None, "strip": False}]},
        ),
        "masked_lm": start("masked_lm", corpora.plain, (*flat, "text"), {}, {}),
        "text_classification": start("text_classification", corpora.labelled, flat, {}, labels),
        "text_classification of pairs": start(
            "text_classification", text_pairs, flat, {}, labels | {"evaluate.positive_label": [None, "same"]}
        ),
        "text_classification, several labels": start(
            "text_classification", several_labels, nested,
            {"corpus.problem": "multi_label", "evaluate.threshold": 0.5, "train.best_metric": "micro_f1"},
            {"train.best_metric": ["micro_f1", "macro_f1", "exact_match", "loss"]},
        ),
        "text_classification, scores": start(
            "text_classification", scored, flat,
            {"corpus.problem": "regression", "train.best_metric": "pearson"},
            {"train.best_metric": ["pearson", "spearman", "mae", "rmse", "loss"]},
        ),
        "question_answering": start("question_answering", corpora.questions, nested, {}, {}),
        "question_answering, some without": start("question_answering", some_unanswerable, nested, {}, {}),
        "retrieval": start("retrieval", corpora.pairs, flat, {}, {}),
        "retrieval with negatives": start(
            "retrieval", with_negatives, nested, {"tokenize.max_negatives": 1}, {}, optional=("negatives",)
        ),
        "retrieval of judged pairs": start(
            "retrieval", judged, flat, {"corpus.positive_label": "1"}, {"corpus.positive_label": ["1", "0"]}
        ),
        "text_generation": start(
            "text_generation", corpora.completions, flat, {},
            {"tokenize.chat": chat, "tokenize.template": [None, "{prompt} >"]},
        ),
        "text_generation of documents": start(
            "text_generation", corpora.plain, (*flat, "text"),
            {"tokenize.template": None, "evaluate.samples.prompt_tokens": 3}, {},
        ),
        "text_generation of conversations": start(
            "text_generation", conversations, nested,
            {"corpus.bad_conversations": "refuse", "tokenize.template": None, "tokenize.chat": chat[1]},
            {"tokenize.chat": chat},
        ),
    }  # fmt: skip
    made["token_classification of spans"] = spans_start()
    for name in ("token_classification", "masked_lm", "text_classification", "question_answering", "text_generation"):
        heads = {"heads": "shared"} if name == "text_classification" else {}
        made[f"{name}, a mixture"] = mixed(made[name], **heads)
    return made


def spans_start() -> Start:
    """Return the start of character spans."""
    given = {"corpus.reader": SPAN_READERS, "corpus.slices": [["text"]], "corpus.splits.group": [None, "text"]}
    plain = start("token_classification", spans, ("jsonl",), {}, given)
    plain.recipe["corpus"] |= {"reader": SPAN_READERS[0], "slices": ["text"]}
    return plain._replace(write=write_flat(rows_of(spans), ("spans",)))


def laid_out(recipe: Recipe, name: str, work: Path) -> Recipe:
    """Return a recipe with the places of corpora, base models and teachers under a folder."""

    def place(value: Any) -> Any:
        if isinstance(value, list):
            return [place(one) for one in value]
        if not isinstance(value, dict):
            return value
        filled = {key: place(inner) for key, inner in value.items()}
        if "source" in value and "reader" in value:
            folder = work / "corpora" / name / value["reader"]["format"]
            filled["source"] = {"kind": "file", "path": str(folder), "sha256": None}
        path = value.get("path")
        if isinstance(path, str) and path.startswith(BASES):
            filled["path"] = str(work / "bases" / path.removeprefix(f"{BASES}/"))
        if path == TEACHER:
            filled["path"] = str(work / "teachers" / name)
        return filled

    return {key: place(value) for key, value in recipe.items()}
