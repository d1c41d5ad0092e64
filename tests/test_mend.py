"""`finetrail mend`: what a kill leaves of DVC's and Git's records is mended, and what is in use is left alone."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import git
from ruamel.yaml import YAML

from finetrail import check, mend, params
from finetrail.errors import UserError

ROOT = Path(__file__).parent.parent
LOCK = (ROOT / "dvc.lock").read_bytes()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder in Git with this project's dvc.lock."""
    (tmp_path / "dvc.lock").write_bytes(LOCK)
    (tmp_path / "tmp").mkdir()
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "dvc.lock")
    return tmp_path


def entries(content: bytes) -> list[dict[str, object]]:
    stages = (YAML(typ="safe").load(content.decode()) or {}).get("stages", {}).values()
    return [entry for one in stages for kind in ("deps", "outs") for entry in one.get(kind, ()) if "hash" in entry]


def test_what_is_taken_for_whole_has_no_entry_that_was_cut() -> None:
    assert mend.is_whole(LOCK)
    ends = [place + 1 for place, byte in enumerate(LOCK) if byte == ord("\n")]
    draw = random.Random(0)
    between_stages = LOCK.index(b"\n  tokenize:") + 1
    cuts = [0, between_stages, *draw.sample(range(len(LOCK)), 2), *draw.sample(ends[:-1], 5)]
    whole = [LOCK[:cut] for cut in cuts if mend.is_whole(LOCK[:cut])]
    known = entries(LOCK)
    assert 0 < len(whole) < len(cuts) and not mend.is_whole(b"")
    assert all(entry in known for content in whole for entry in entries(content))


def test_a_folder_in_a_remote_that_has_versions_is_whole() -> None:
    files = "- relpath: a\n          md5: '0123'\n          size: 1\n          cloud: {s3: {version_id: '1'}}\n"
    out = f"outs:\n      - path: data\n        hash: md5\n        files:\n        {files}"
    assert mend.is_whole(f"schema: '2.0'\nstages:\n  one:\n    cmd: x\n    {out}".encode())


@pytest.mark.parametrize("left", [0, 1000, len(LOCK) - 1])
def test_a_lock_file_that_was_cut_off_comes_back_from_git(root: Path, left: int) -> None:
    (root / "dvc.lock").write_bytes(LOCK[:left])
    [line] = mend.records(root, root / "tmp")
    assert line.startswith("dvc.lock: it was truncated: restored from Git") and (root / "dvc.lock").read_bytes() == LOCK
    assert not list(mend.records(root, root / "tmp"))


def test_a_lock_file_stays_where_git_does_not_tell(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", str(root / "nowhere"))
    (root / "dvc.lock").write_bytes(LOCK[:1000])
    with pytest.raises(UserError, match="Git cannot restore it: fatal"):
        list(mend.records(root, root / "tmp"))
    assert (root / "dvc.lock").exists()


def test_one_that_git_does_not_have_is_removed(root: Path) -> None:
    git(root, "rm", "--quiet", "--cached", "dvc.lock")
    (root / "dvc.lock").write_bytes(LOCK[:1000])
    [line] = mend.records(root, root / "tmp")
    assert "removed, because Git does not have it" in line and not (root / "dvc.lock").exists()


def test_two_sides_of_a_merge_are_left_to_people(root: Path) -> None:
    git(root, "commit", "--quiet", "--message=base")
    for branch, old in (("one", b"2.0"), ("other", b"2.0")):
        git(root, "checkout", "--quiet", "-b", branch, *(["HEAD~1"] if branch == "other" else []))
        (root / "dvc.lock").write_bytes(LOCK.replace(old, branch.encode(), 1))
        git(root, "commit", "--quiet", "--all", f"--message={branch}")
    subprocess.run(
        ["git", "-c", "user.name=x", "-c", "user.email=x@y.z", "merge", "one"], cwd=root, capture_output=True
    )
    assert b"<<<<<<<" in (root / "dvc.lock").read_bytes()
    with pytest.raises(UserError, match="merge conflicts, and Git cannot restore it: .*unmerged"):
        list(mend.records(root, root / "tmp"))
    assert b"<<<<<<<" in (root / "dvc.lock").read_bytes()


@pytest.mark.parametrize("cwd_is_here", [True, False])
def test_dvc_records_stay_while_a_named_process_works(root: Path, cwd_is_here: bool) -> None:
    sleeper = [sys.executable, "-S", "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(sleeper, cwd=root if cwd_is_here else "/", stdin=subprocess.PIPE) as process:
        record = {"write": {}, "read": {"data": [{"pid": process.pid, "cmd": "dvc repro"}]}}
        (root / "tmp/rwlock").write_text(json.dumps(record))
        lines = list(mend.records(root, root / "tmp"))
        process.communicate()
    assert (root / "tmp/rwlock").exists() == cwd_is_here == (not lines)


@pytest.mark.parametrize("content", ["", '{"write": {"a', '{"write": {"a": {"pid": 999999999, "cmd": "x"}}}', "[1]"])
def test_a_record_that_was_cut_off_or_names_nobody_goes(root: Path, content: str) -> None:
    (root / "tmp/rwlock").write_text(content)
    assert len(list(mend.records(root, root / "tmp"))) == 1 and not (root / "tmp/rwlock").exists()


def test_gits_index_is_unlocked_where_no_git_works(root: Path) -> None:
    (root / ".git/index.lock").touch()
    (root / "dvc.lock").write_bytes(b"")  # which Git could not bring back
    assert [line.partition(":")[0] for line in mend.records(root, root / "tmp")] == ["Git's index.lock", "dvc.lock"]
    assert not (root / ".git/index.lock").exists()


def test_gits_index_stays_locked_while_git_works_here(root: Path) -> None:
    with subprocess.Popen(["git", "hash-object", "--stdin"], cwd=root, stdin=subprocess.PIPE, stdout=-3) as working:
        (root / ".git/index.lock").touch()
        assert not list(mend.records(root, root / "tmp"))
        working.communicate()


def test_check_names_the_command(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setattr(params, "check", lambda: None)
    check.main()
    (root / "dvc.lock").write_bytes(LOCK[:1000])
    with pytest.raises(UserError, match="dvc.lock is cut off.*expected `python -m finetrail mend`"):
        check.main()
    assert (root / "dvc.lock").exists()
