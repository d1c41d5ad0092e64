"""What surrounds every stage: an output is there whole or not at all, and what a user can mend is one line."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from safetensors.numpy import save_file

from finetrail import stage
from finetrail.errors import UserError


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), OSError(errno.ENOSPC, "full")])
def test_a_failing_output_leaves_only_the_earlier_one(tmp_path: Path, error: Exception) -> None:
    target = tmp_path / "data"
    with stage.output(target) as folder:
        folder.mkdir()
        (folder / "a").write_text("1")

    with pytest.raises((type(error), UserError)), stage.output(target) as folder:
        folder.mkdir()
        (folder / "b").write_text("2")
        raise error

    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == ["data", "data/a"]


@pytest.mark.parametrize(("umask", "file_mode", "folder_mode"), [(0o022, 0o644, 0o755), (0o007, 0o660, 0o770)])
def test_files_are_for_whom_the_umask_lets_read(
    tmp_path: Path, umask: int, file_mode: int, folder_mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "UMASK", umask)
    with stage.output(tmp_path / "data") as folder:
        (folder / "sub").mkdir(parents=True, mode=0o700)
        folder.chmod(0o700)
        (folder / "sub/model.safetensors").touch(mode=0o600)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {"data": folder_mode, "sub": folder_mode, "model.safetensors": file_mode}


def test_of_several_outputs_all_are_moved_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / name for name in "abc"]

    def write() -> None:
        with stage.outputs(*paths) as beside:
            for path in beside:
                path.touch()

    def changed() -> None:
        raise UserError("x changed")

    monkeypatch.setattr(stage, "check_dependencies", changed)
    with pytest.raises(UserError, match="x changed"):
        write()
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(stage, "check_dependencies", lambda: None)
    write()
    assert sorted(tmp_path.iterdir()) == paths


def test_a_full_disk_names_the_output(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match=r"no space left on the disk of .*data; free some"),
        stage.output(tmp_path / "data"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device", "the file that was read")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("a\n  b"), "error: a b"),
        (OSError(errno.ENOSPC, "full"), "error: no space left on a disk; free some"),
        (
            ValueError("Error while serializing: No space left on device (os error 28)"),
            "error: no space left on a disk",
        ),
        (
            RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 9 vs 8"),
            "error: no space left on a",
        ),
        (RuntimeError("basic_ios::clear: iostream error"), "error: no space left on a disk"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "error: no memory left ([Errno 12] "),
        (MemoryError(), "error: no memory left (MemoryError); expected more of it"),
        (
            RuntimeError("could not create a primitive"),
            "error: no memory left (could not create a primitive); expected",
        ),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "error: no memory left"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "error: /x: Permission denied; expected a place"),
        (OSError(errno.EROFS, "Read-only file system", "/x"), "error: /x: Read-only file system; expected a place"),
    ],
)
def test_what_a_user_can_mend_is_one_line(error: Exception, line: str) -> None:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        stage.run(main)

    assert str(ended.value).startswith(line)
    assert "\n" not in str(ended.value)


def test_a_bug_of_ours_keeps_its_traceback() -> None:
    def main() -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        stage.run(main)


def test_lines_command_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    stage.log("label \x1b[31mred\x9b \u202egnol\u2066 \tkept é 한")
    assert capfd.readouterr().err == "label \\x1b[31mred\\x9b \\u202egnol\\u2066 \tkept é 한\n"


def test_a_line_that_an_id_makes_long_keeps_both_ends() -> None:
    line = stage.one_line(UserError(f"a.csv:3: the id {'x' * 50_000} stands here a second time; expected it once"))
    assert line.startswith("a.csv:3: the id xxx") and line.endswith("xxx stands here a second time; expected it once")
    assert " ... " in line and len(line) < 2000
    assert stage.one_line(UserError("a\n b\x1b[2J\u2028c")) == "a b\\x1b[2J c"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def flipped(path: Path) -> None:
    path.write_bytes(bytes(4) + path.read_bytes()[4:-8] + bytes(8))


def write_tables(folder: Path) -> None:
    """Write a file of each format that stages leave for each other."""
    table = pa.table({"text": ["one", "two"] * 50})
    for name in ("corpus", "tokenized", "trained"):
        (folder / "data" / name).mkdir(parents=True)
    pq.write_table(table, folder / "data/corpus/train.parquet")
    with (
        pa.OSFile(str(folder / "data/tokenized/train.arrow"), "wb") as file,
        pa.ipc.new_stream(file, table.schema) as writer,
    ):
        writer.write_table(table)
    save_file({"a": np.ones(50)}, folder / "data/trained/model.safetensors")
    stage.write_json(folder / "data/tokenized/target.json", ["O", "B-PER"] * 10)


def fails() -> None:
    raise IndexError("whatever a damaged file leads to")


@pytest.mark.parametrize(
    "name", ["corpus/train.parquet", "tokenized/train.arrow", "trained/model.safetensors", "tokenized/target.json"]
)
@pytest.mark.parametrize("damage", [cut, flipped, lambda path: path.write_bytes(b"")])
def test_a_failing_stage_names_the_damaged_earlier_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, damage: Callable[[Path], None]
) -> None:
    write_tables(tmp_path)
    (tmp_path / "data/.exported.partial").mkdir()  # of a run that was killed
    for own in ("data/mine.json", "data/.exported.partial/model.safetensors"):
        (tmp_path / own).write_bytes(b'{"a": 1}\n{"a": 2}\n')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(IndexError):
        stage.run(fails)  # no output is damaged: the fault is ours
    damage(tmp_path / "data" / name)
    with pytest.raises(SystemExit) as ended:
        stage.run(fails)
    said = str(ended.value)
    assert said.startswith(f"error: data/{name} is damaged (") and said.isprintable()


END = """
from pathlib import Path
from finetrail import stage
with stage.output(Path("data/out")) as folder:
    folder.mkdir()
    (folder / "half").touch()
    stage.end("it takes too long")
"""


def test_an_ended_process_leaves_one_line_and_nothing_partial(tmp_path: Path) -> None:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", END], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (1, "error: it takes too long\n")
    assert not list((tmp_path / "data").iterdir())
