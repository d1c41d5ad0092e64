"""What a stage depends on must not change while it runs: DVC would record it as it is afterwards."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from finetrail import dependencies, stage
from finetrail.errors import UserError

RECIPE = "recipes/token_classification/toy.yaml"
DEFAULTS = "recipes/token_classification/defaults.yaml"
CODE = "finetrail/encoding/windows.py"


@pytest.fixture
def watched(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose tokenize stage has begun; its inputs are stand-ins."""
    monkeypatch.chdir(project)
    for name in ("data/corpus/train.parquet", "data/model/tokenizer/tokenizer.json"):
        (project / name).parent.mkdir(parents=True)
        (project / name).write_text("content")
    monkeypatch.setattr(stage, "check_dependencies", dependencies.watch("tokenize"))
    return project


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda: Path(CODE).write_text("# edited"), f"{CODE} changed while tokenize ran"),
        (lambda: Path("data/corpus/train.parquet").write_text("CONTENT"), "data/corpus/train.parquet changed"),
        (lambda: Path("data/corpus/train.parquet").unlink(), "data/corpus/train.parquet changed"),
        (lambda: Path("finetrail/encoding/new.py").write_text(""), "finetrail/encoding/new.py changed"),
        (lambda: replace(Path(RECIPE), "max_length: 16", "max_length: 15"), f"{RECIPE}: tokenize changed"),
        (lambda: replace(Path("params.yaml"), "limit:", "limit: 5"), "params.yaml: limit changed"),
        (lambda: replace(Path(DEFAULTS), "engine: local", "engine: ray"), f"{DEFAULTS}: tokenize changed"),
        (lambda: Path(RECIPE).write_text("tokenize: ["), f"{RECIPE}: tokenize and 1 more changed"),
        (lambda: Path(RECIPE).write_text(""), f"{RECIPE}: tokenize and 1 more changed"),
        (lambda: Path("dvc.yaml").write_text(""), f"{RECIPE}: tokenize and 1 more changed"),
        (lambda: replace(Path("params.yaml"), "recipe: toy", "recipe: wnut16"), f"{RECIPE}: tokenize changed"),
    ],
)  # fmt: skip
def test_a_change_is_one_line_and_nothing_is_written(watched: Path, change: object, told: str) -> None:
    output = watched / "data/tokenized"
    output.mkdir()
    (output / "earlier").touch()

    with pytest.raises(UserError) as refused, stage.outputs(output) as [folder]:
        folder.mkdir()
        assert callable(change)
        change()

    assert str(refused.value).startswith(told)
    assert str(refused.value).endswith("nothing was written: run it again, or undo the change before")
    assert [path.name for path in (watched / "data").rglob("*") if "tokenized" in str(path)] == ["tokenized", "earlier"]


@pytest.mark.parametrize(
    "change",
    [
        lambda: os.utime(CODE),  # touched, as by a checkout of the same content
        lambda: Path("finetrail/training/loop.py").write_text("# of another stage"),
        lambda: replace(Path(RECIPE), "max_metric_drop: 0.5", "max_metric_drop: 0.4"),
        lambda: replace(Path("params.yaml"), "lr:", "lr: 1.0"),
        lambda: Path("finetrail/encoding/__pycache__").mkdir() or Path("finetrail/encoding/__pycache__/x").touch(),
    ],
)
def test_what_the_stage_does_not_depend_on_may_change(watched: Path, change: object) -> None:
    assert callable(change)
    with stage.outputs(watched / "data/tokenized") as [folder]:
        folder.mkdir()
        change()
    assert (watched / "data/tokenized").is_dir()


@pytest.mark.parametrize(
    "change", [lambda path: path.write_text("edited"), lambda path: path.write_text("CONTENT"), Path.unlink]
)
def test_a_source_that_is_edited_while_it_is_read_is_refused(tmp_path: Path, change: Callable[[Path], object]) -> None:
    source = tmp_path / "train.conll"
    source.write_text("content")
    check = dependencies.watch_read(iter([source]), "download@corpus")
    check()
    source.chmod(0o600)  # no byte of it changes
    check()
    change(source)
    with pytest.raises(
        UserError, match=r"train.conll changed while download@corpus read it; nothing was written: run it"
    ):
        check()


def written(project: Path) -> Path:
    """Let dvc.lock say what data/corpus is, and give its file."""
    (project / "data/corpus/empty").mkdir()
    (project / "data/corpus/a.json").write_text("a")
    there = dependencies.files([Path("data/corpus")])
    digest = dependencies._md5_of_output(Path("data/corpus"), there, {})
    out = f"outs:\n    - path: data/corpus\n      hash: md5\n      md5: {digest}\n      nfiles: {len(there)}\n"
    (project / "dvc.lock").write_text(f"schema: '2.0'\nstages:\n  download@corpus:\n    {out}")
    return project / "data/corpus/train.parquet"


def test_the_hash_of_an_output_is_dvcs(watched: Path) -> None:
    from dvc_data.hashfile.build import build
    from dvc_data.hashfile.db import HashFileDB
    from dvc_objects.fs.local import LocalFileSystem

    written(watched)
    for name in ("data/corpus", "data/corpus/a.json"):
        _, _, obj = build(
            HashFileDB(LocalFileSystem(), str(watched / "odb")), str(watched / name), LocalFileSystem(), "md5"
        )
        there = dependencies.files([Path(name)])
        assert dependencies._md5_of_output(Path(name), there, {}) == obj.hash_info.value


def test_a_damaged_input_is_refused_where_dvc_runs_the_stage(watched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(watched)
    monkeypatch.setenv("DVC_STAGE", "tokenize")
    dependencies.watch("tokenize")
    file.write_text("contenT")
    with pytest.raises(UserError, match="data/corpus: not what its stage has written.*`python -m finetrail mend`"):
        dependencies.watch("tokenize")
    (watched / "data/corpus/.DS_Store").touch()  # what .dvcignore may leave out
    dependencies.watch("tokenize")
    (watched / "data/corpus/.DS_Store").unlink()
    monkeypatch.delenv("DVC_STAGE")  # by hand, dvc.lock may be of another run
    dependencies.watch("tokenize")
