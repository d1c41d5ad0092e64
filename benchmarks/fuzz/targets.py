"""What is fuzzed: a function of bytes for each reader, archives, YAML, tables, inputs and requests, and its seeds.

A function returns, or raises UserError with one line; all else is a finding. Seeds are the files of tests/catalogue and
of the shipped recipes, so that what is mutated is nearly valid. The tests mutate them too, without coverage.
"""

import asyncio
import copy
import gzip
import importlib
import json
import os
import pkgutil
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from benchmarks import ROOT
from finetrail import delimited, layout, params, schema, stage, tasks
from finetrail.corpus.raw import objects
from finetrail.errors import UserError
from finetrail.recipe import text as text_of_recipe
from finetrail.service import Limits, Service, make_app
from finetrail.sources import Fetched, archives
from stages.download_corpus import canonical_rows, write_tables

SEPARATOR = b"\x1e\x1e"  # between the files of one input
LONGEST = 2000  # characters of a line that somebody still reads
LIMIT_MIB = 1  # of what an archive may unpack to
FORMATS = (
    "conll", "conllu", "jsonl", "json", "parquet", "csv", "text", "squad", "beir", "doccano", "label_studio", "prodigy",
    "brat", "spacy", "spans",
)  # fmt: skip


class Target(NamedTuple):
    """A function of (bytes, an empty folder), and bytes to begin with."""

    run: Callable[[bytes, Path], object]
    seeds: Callable[[], list[bytes]]


class Corpus(NamedTuple):
    """A corpus section, and the files that it reads."""

    task: str
    section: Any
    names: tuple[str, ...]


def outcome(target: Target, data: bytes, folder: Path) -> UserError | None:
    """Return how a target refuses bytes, None if it accepts them; AssertionError for a message that is no line."""
    try:
        target.run(data, folder)
    except UserError as error:
        line = stage.one_line(error)
        assert 0 < len(line) < LONGEST, f"nothing, or more than somebody reads: {line[:300]!r}"
        return error
    return None


@contextmanager
def empty_folder() -> Iterator[Path]:
    """Give a folder in memory, where there is one: the disk is not what is tried."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        yield Path(folder)


# --- corpora ------------------------------------------------------------------------------------------------------


def as_lines(objects: list[Any]) -> bytes:
    return "".join(f"{json.dumps(one)}\n" for one in objects).encode()


TEXTS = [{"text": f"Ada{n} sat here {n}", "label": "xy"[n % 2]} for n in range(20)]
PERSON = {"start": 0, "end": 4, "label": "PER"}
SPANS = [{"text": f"Ada{n % 10} sat here {n}", "spans": [PERSON]} for n in range(20)]
REGION = [{"type": "labels", "value": {"start": 0, "end": 4, "labels": ["PER"]}}]
# Good files of formats of which the catalogue has bad ones alone: the content of each by its name.
GOOD: dict[str, Callable[[str], bytes]] = {
    "json": lambda name: json.dumps(TEXTS).encode(),
    "text": lambda name: b"".join(b"a line of text %d\n" % n for n in range(20)),
    "doccano": lambda name: as_lines([{"text": one["text"], "label": [[0, 4, "PER"]]} for one in SPANS]),
    "label_studio": lambda name: json.dumps(
        [{"id": n, "data": {"text": one["text"]}, "annotations": [{"result": REGION}]} for n, one in enumerate(SPANS)]
    ).encode(),
    "brat": lambda name: b"Ada sat here" if name.endswith(".txt") else b"T1\tPER 0 3\tAda\n#1\tNote T1\ta note\n",
    "prodigy": lambda name: as_lines([one | {"answer": "accept"} for one in SPANS]),
}


@cache
def corpora(name: str) -> list[tuple[Corpus, bytes]]:
    """Return the corpus sections of a format in the catalogue, each with the bytes of its files."""
    if name == "spacy":
        return [(of_spacy(), zlib.decompress(spacy_file()))]
    found: list[tuple[Corpus, bytes]] = []
    for case, recipe in cases():
        plain = all(isinstance(content, bytes) for content in case.files.values())
        if case.model is not None or not case.files or not plain or recipe["corpus"]["source"].get("kind") != "file":
            continue
        section = section_of(case.task, recipe)
        if section is not None and section.reader.format == name:
            names, contents = zip(*case.files.items(), strict=True)
            found.append((Corpus(case.task, section, names), SEPARATOR.join(contents)))
    if name in GOOD and found:  # what the catalogue has of these is all refused
        corpus, _ = found[0]
        if name == "brat":  # whose examples are files, and a case has one of them
            splits = corpus.section.splits.model_copy(update={"train": "*.txt"})
            names = tuple(f"{number}.{kind}" for number in range(9) for kind in ("ann", "txt"))
            corpus = Corpus(corpus.task, corpus.section.model_copy(update={"splits": splits}), names)
        found.insert(0, (corpus, SEPARATOR.join(GOOD[name](file) for file in corpus.names)))
    return found[:256]  # which one byte tells apart


@cache
def cases() -> list[tuple[Any, dict[str, Any]]]:
    """Return each case of the catalogue and its recipe."""
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/tasks")]
    import catalogue
    import toys
    from catalogue.case import changed
    from conftest import toy_recipe

    found = []
    with empty_folder() as folder:
        for module in pkgutil.iter_modules(catalogue.__path__):
            for case in getattr(importlib.import_module(f"catalogue.{module.name}"), "CASES", []):
                base = toy_recipe(folder / "unused", folder / "model")
                recipe = copy.deepcopy(toys.write(case.task, base, ["Ada lives in Oslo ."], folder))
                found.append((case, changed(recipe, case.changes)))
    return found


@cache
def corpus_type(task: str) -> TypeAdapter[Any]:
    return TypeAdapter(schema.sliced(tasks.module(task, "settings").Corpus))


def section_of(task: str, recipe: dict[str, Any]) -> Any:
    """Return the corpus section of a recipe; None if the schema refuses it."""
    try:
        return corpus_type(task).validate_python(recipe["corpus"])
    except ValidationError:
        return None


def of_spacy() -> Corpus:
    """Return a corpus of a DocBin, without tests/catalogue, which has the name of a package that spaCy imports."""
    rules = {"words": "unicode", "units": "characters", "blanks": "trim", "inside_words": "snap", "empty": "drop"}
    splits = {"train": "a.spacy", "validation": 0.2, "test": 0.2, "seed": 0, "stratify": None, "group": None}
    section = {
        "name": "Toy",
        "source": {"kind": "file", "path": "a.spacy", "sha256": None},
        "splits": splits,
        "license": None,
        "language": None,
        "reader": {"format": "spacy", "group": None, "spans": rules | {"overlapping": "longest"}},
        "tags": {"scheme": "iob2", "impossible_transitions": "refuse", "unseen_labels": "keep"},
    }
    return Corpus("token_classification", section_of("token_classification", {"corpus": section}), ("a.spacy",))


def read_corpus(data: bytes, folder: Path, known: list[Corpus]) -> None:
    """Do what download@corpus does with the files: rows, tables, checks, and what it says of them.

    The first byte chooses among the corpus sections of the catalogue.
    """
    corpus = known[data[0] % len(known)] if data else known[0]
    root = folder / "source"
    contents = data[1:].split(SEPARATOR, maxsplit=len(corpus.names) - 1)
    names = corpus.names[: len(contents)]
    for name, content in zip(names, contents, strict=True):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(zlib.compress(content) if name.endswith(".spacy") else content)
    task = tasks.module(corpus.task, "corpus")
    tables = task.tables(corpus.section)
    counts = {table: task.Counts() for table in tables}
    rows = canonical_rows(
        Fetched(root, sorted(names), {"kind": "file", "source": {}}), corpus.section, task, counts, Counter()
    )
    (folder / "tables").mkdir()
    write_tables(rows, tables, folder / "tables")
    report_concerns(corpus.task, counts, corpus.section)


def report_concerns(name: str, counts: dict[str, Any], section: Any) -> None:
    task, concerns = tasks.module(name, "corpus"), tasks.module(name, "concerns")
    checks = task.checks(counts, section)
    json.dumps(checks, allow_nan=False).encode()
    summaries = (task.summary(of_table, section) for of_table in counts.values())
    for line in map(str, [*summaries, *concerns.of_corpus(checks)]):
        assert len(stage.plain(line).splitlines()) == 1, f"more than one line: {line[:300]!r}"


def corpus_target(name: str) -> Target:
    return Target(
        lambda data, folder: read_corpus(data, folder, [corpus for corpus, _ in corpora(name)]),
        lambda: [bytes([number]) + content for number, (_, content) in enumerate(corpora(name))],
    )


def spacy_file() -> bytes:
    import spacy
    from spacy.tokens import Doc, DocBin, Span

    docs = []
    for number in range(20):
        doc = Doc(spacy.blank("en").vocab, words=["Ada", "Roe", f"sat{number}", "."], spaces=[True, True, False, False])
        doc.set_ents([Span(doc, 0, 2, label="PER")])
        docs.append(doc)
    return DocBin(docs=docs, store_user_data=True).to_bytes()


# --- archives -----------------------------------------------------------------------------------------------------


def unpack(data: bytes, folder: Path, ending: str) -> None:
    """Unpack, and check that nothing is outside the folder, other than a file, or larger than the limit."""
    root, archive = folder / "unpacked", folder / f"a{ending}"
    root.mkdir()
    archive.write_bytes(data)
    try:
        archives.unpack(archive, root, LIMIT_MIB)
    finally:
        assert sorted(path.name for path in folder.iterdir()) == sorted([archive.name, root.name])
        found = [path for path in root.rglob("*") if not path.is_dir()]
        assert all(path.is_file() and not path.is_symlink() for path in found)
        assert sum(path.stat().st_size for path in found) <= (LIMIT_MIB << 20) + 1


def archive_seeds(ending: str) -> list[bytes]:
    """Return the catalogue's archives; of those that gzip packs, also what is in them."""
    found = []
    for case, recipe in cases():
        if recipe["corpus"]["source"].get("kind") == "archive":
            for name, content in case.files.items():
                if name.endswith(ending):
                    found.append(content)
                elif ending == ".tar" and name.endswith(".tar.gz"):
                    with suppress(OSError, EOFError, zlib.error):
                        found.append(gzip.decompress(content))
    return [content for content in found if isinstance(content, bytes) and len(content) < 100_000]


# --- YAML, tables, inputs, requests -------------------------------------------------------------------------------


def read_params(data: bytes, folder: Path) -> None:
    path = folder / "params.yaml"
    path.write_bytes(data)
    params.validated(schema.Params, path)


def read_recipe(data: bytes, folder: Path) -> None:
    """Read YAML as a recipe of each task; the first byte chooses it."""
    names = tasks.names()
    task = names[data[0] % len(names)] if data else names[0]
    path = folder / "recipe.yaml"
    path.write_bytes(data[1:])
    params.validated(model_of(task), path, partial(params.contradictions, task=task))


@cache
def model_of(task: str) -> Any:
    settings = tasks.module(task, "settings")
    return params.recipe_model(settings, schema.sliced(settings.Corpus))


def recipe_seeds() -> list[bytes]:
    names = tasks.names()
    with chdir(ROOT):
        whole = [(path.parent.name, text_of_recipe(params.read_recipe(path))) for path in layout.recipe_files()]
    return [bytes([names.index(task)]) + text.encode() for task, text in whole]


def read_delimited(data: bytes, folder: Path) -> None:
    """Read a table of inputs as predict does, and write what it holds as a table again."""
    delimiter = ",\t"[data[0] % 2] if data else ","
    path = folder / "a.csv"
    path.write_bytes(data[1:])
    answers = [
        values | {"id": str(values.get("id", number))}
        for number, (_, values) in enumerate(delimited.inputs(path, delimiter))
    ]
    "\n".join(delimited.rows(answers, delimiter)).encode()


def read_inputs(data: bytes, folder: Path) -> None:
    """Turn JSON Lines into examples of a task, which the first byte chooses."""
    names = tasks.names()
    task = tasks.module(names[data[0] % len(names)] if data else names[0], "serving")
    path = folder / "a.jsonl"
    path.write_bytes(data[1:])
    given = [{"id": str(number)} | one for number, (_, one) in enumerate(objects(path, path.name, None))]
    task.examples(given)
    if task.documents is not None:
        task.documents(given)


INPUTS = [
    {"text": "Ada sat"}, {"tokens": ["Ada", "sat"], "id": 3}, {"text": "Ada [MASK]"},
    {"input_ids": [1, 2], "positions": [1]},
    {"question": "who?", "context": "Ada sat"}, {"query": "who"}, {"text": "a", "text_pair": "b", "id": "x"},
    {"prompt": "Ada"}, {"messages": [{"role": "user", "content": "hi"}]}, 
    {"_id": "d", "title": "t", "text": "x", "metadata": {}},
]  # fmt: skip


def input_seeds() -> list[bytes]:
    lines = [json.dumps(one).encode() for one in INPUTS]
    return [bytes([number]) + line for number in range(len(tasks.names())) for line in [*lines, b"\n".join(lines)]]


def request(data: bytes, folder: Path) -> None:
    """Send bytes as the body of a request; the answer is JSON of one line, and no failure of the service."""
    status, answer = asyncio.run(posted(data))
    assert status in (200, 400, 413, 422), (status, answer)
    if status != 200:
        assert set(answer) == {"error"} and "\n" not in answer["error"]


async def posted(body: bytes) -> tuple[int, Any]:
    serving = tasks.module("text_classification", "serving")

    def predict(inputs: Any, **_: Any) -> list[dict[str, Any]]:
        rows = serving.examples([{"id": str(number)} | one for number, one in enumerate(inputs)]).to_pylist()
        return [{"id": row["id"], "text": row["text"]} for row in rows]

    service = Service(
        lambda: predict, lambda: None, serving.text_input, Limits(bytes=4096, inputs=8, waiting=8, batch=8)
    )
    app = make_app(service, {}, lambda error: None)
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/predict", "root_path": "", "headers": [], "query_string": b""}
    working = asyncio.create_task(service.run())
    try:
        while not service.ready:
            await asyncio.sleep(0)
        await app(scope, receive, send)
    finally:
        working.cancel()
    text = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], json.loads(text)


TARGETS: dict[str, Target] = {
    **{name: corpus_target(name) for name in FORMATS},
    **{
        f"archive{ending}": Target(partial(unpack, ending=ending), partial(archive_seeds, ending))
        for ending in (".tar", ".tar.gz", ".zip", ".gz")
    },
    "params.yaml": Target(read_params, lambda: [(ROOT / "params.yaml").read_bytes()]),
    "recipes": Target(read_recipe, recipe_seeds),
    "delimited": Target(read_delimited, lambda: [b'\0id,text\n1,a\n2,"b\n""c"\n', b"\1text\tlabel\na\tb\n"]),
    "inputs": Target(read_inputs, input_seeds),
    "requests": Target(request, lambda: [seed[1:] for seed in input_seeds()] + [b'["a", {"text": "b", "id": 1}]']),
}
