"""The code of docs/extending.md runs as the page has it."""

import re
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import ROOT, toy_settings
from pydantic import ValidationError
from transformers import AutoModel

from finetrail import schema, upgrades
from finetrail.errors import UserError
from finetrail.schema import readers, sources, training
from finetrail.tasks.token_classification import scoring

PAGE = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
BLOCKS = [textwrap.dedent(block) for block in re.findall(r"(?ms)^ *```python\n(.*?)^ *```", PAGE)]


def block(part: str) -> str:
    """Return the only block of the page with this text."""
    [found] = [one for one in BLOCKS if part in one]
    return found


def run(part: str, names: dict[str, Any]) -> dict[str, Any]:
    """Run a block among the names of its module, and return these with those that it defines."""
    names = dict(names)
    exec(compile(block(part), "docs/extending.md", "exec", dont_inherit=True), names)
    return names


def test_the_metric_is_in_the_scores_and_in_their_resamplings() -> None:
    names = run("def score(", vars(scoring))
    sentences = [["B-LOC", "O"], ["O", "O"], ["B-LOC", "I-LOC"]]
    columns = {"references": sentences, "predictions": [sentences[0], ["O", "B-LOC"], sentences[2]]}
    table, target = pa.table(columns), ["B-LOC", "I-LOC", "O"]
    scores = names["score"](table, target, None)
    resampled = names["statistics"](table, target, None)(np.ones((1, 3)))
    assert scores["sentence_accuracy"] == pytest.approx(2 / 3) and scores["f1"] > 0
    assert {name: values[0] for name, values in resampled.items()} == pytest.approx(scores)


def test_the_reader_reads_its_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = run("class FastTextReader", vars(readers))["FastTextReader"]
    monkeypatch.setattr(schema, "FastTextReader", section, raising=False)
    read = run("def fasttext(", {})["fasttext"]
    columns = {"text": "text", "label": "label"}
    reader = section(format="fasttext", columns=columns, encoding="utf-8")
    path = tmp_path / "a.txt"
    path.write_text("__label__good a text\n__label__bad another\n")
    assert [values for *_, values in read(path, "a.txt", reader)] == [
        {"text": "a text", "label": "good"},
        {"text": "another", "label": "bad"},
    ]
    path.write_text("a text\n")
    with pytest.raises(UserError, match=r"^a\.txt:1: no label"):
        list(read(path, "a.txt", reader))
    field = re.sub(r"^reader: ", "", block("schema.FastTextReader, Field"))
    pydantic = {"Annotated": readers.Annotated, "Field": readers.Field, "schema": schema}
    assert section in eval(field, pydantic).__origin__.__args__


def test_the_source_gives_the_same_files_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = run("class GitSource", vars(sources))["GitSource"]
    monkeypatch.setattr(schema, "GitSource", section, raising=False)
    fetch = run("def fetch(", {})["fetch"]
    git = ["git", "-C", str(tmp_path), "-c", "user.name=toy", "-c", "user.email=toy@example.org"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    (tmp_path / "a.txt").write_text("a")
    subprocess.run([*git, "add", "a.txt"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "a"], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    source = section(kind="git", repo=str(tmp_path), rev=commit, sha256=None)
    first, second = (fetch(source, tmp_path / "scratch") for _ in range(2))
    assert first.provenance == second.provenance and (second.root / "a.txt").read_text() == "a"
    with pytest.raises(UserError, match="expected a commit that is there"):
        fetch(section(kind="git", repo=str(tmp_path), rev="0" * 40, sha256=None), tmp_path / "scratch")


def test_the_option_is_a_required_setting_that_is_used(tiny_checkpoint: Path) -> None:
    names = dict(vars(training))
    exec("class Option(Train):\n" + textwrap.indent(block("freeze_embeddings: bool"), "    "), names)
    section: dict[str, Any] = toy_settings()
    with pytest.raises(ValidationError, match="freeze_embeddings\n  Field required"):
        names["Option"](**section)
    settings = names["Option"](**section, freeze_embeddings=True)
    model = AutoModel.from_pretrained(tiny_checkpoint)
    run("if settings.freeze_embeddings", {"settings": settings, "model": model})
    assert not model.get_input_embeddings().weight.requires_grad
    assert any(parameter.requires_grad for parameter in model.parameters())


def test_the_options_version_is_the_next_one() -> None:
    version = eval(block('"train.freeze_embeddings"'), vars(upgrades))
    assert version.number == upgrades.VERSION + 1, "the example of the page has the next version's number"
    assert version.added == {"train.freeze_embeddings": False}
