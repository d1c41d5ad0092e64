"""Teams: remotes and Git servers of each kind on loopback, `make join`, and what a conflict of two results needs."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path

import dvc.api
import pytest
from conftest import git
from dvc.cli import main as dvc_main
from dvc.config import Config
from dvc.repo import Repo as DvcRepo

from finetrail import check, mend, remotes
from finetrail.errors import UserError
from tests import remote_servers

# DVC 3.67 and its libraries, as they run in this process.
pytestmark = [
    pytest.mark.filterwarnings("ignore:_NoneStep.value will soon raise:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

GRAPH = """\
stages:
  train:
    cmd: mkdir model && cat params.yaml code.py > model/weights && echo ran >> runs.txt
    deps: [code.py]
    params: [lr]
    outs: [model]
  report:
    cmd: mkdir -p metrics && cp model/weights metrics/metrics.json
    deps: [model]
    metrics:
      - metrics/metrics.json: {cache: false}
"""
# Kind of remote -> the packages that pip installs for its test.
PACKAGES = {"ssh": "dvc-ssh", "s3": "dvc-s3 moto[s3] flask flask-cors"}


def dvc_run(folder: Path, *arguments: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert dvc_main([*arguments, "--quiet"]) == 0


def set_remote(folder: Path, section: dict[str, str], level: str = "repo") -> None:
    with Config(str(folder / ".dvc")).edit(level) as config:
        config["remote"] = {"team": section}
        config["core"]["remote"] = "team"


def runs(folder: Path) -> int:
    """Return how often the train stage ran in a folder."""
    file = folder / "runs.txt"
    return len(file.read_text().splitlines()) if file.exists() else 0


def refused(folder: Path) -> str:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError) as error:
        patch.chdir(folder)
        remotes.join(Path())
    assert runs(folder) == 0
    return str(error.value)


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a fake train stage that ran, in Git and DVC."""
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "x")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "x@example.com")
    folder = tmp_path / "mine"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main")
    (folder / ".dvc").mkdir()
    for name in (".dvc/config", ".dvc/.gitignore", ".gitattributes"):
        shutil.copy(Path(__file__).parent.parent / name, folder / name)
    (folder / "dvc.yaml").write_text(GRAPH)
    (folder / "params.yaml").write_text("lr: 1\n")
    (folder / "code.py").write_text("")
    (folder / ".gitignore").write_text("/model\n/runs.txt\n")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=before")
    dvc_run(folder, "repro")
    return folder


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=after")


def clone(folder: Path) -> Path:
    yours = folder.parent / "yours"
    git(folder.parent, "clone", "--quiet", str(folder), str(yours))
    return yours


@pytest.fixture(params=["folder", "http", "ssh", "s3"])
def section(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    """A remote of each kind on a server, as DVC's configuration has it."""
    for package in PACKAGES.get(request.param, "").split():
        if not find_spec(package.partition("[")[0].replace("-", "_")):
            pytest.skip(f"{package} is not installed; expected: pip install {PACKAGES[request.param]}")
    server: Callable[[Path], AbstractContextManager[dict[str, str]]] = getattr(remote_servers, request.param)
    with server(tmp_path) as settings:
        yield settings


def test_what_one_pushes_the_other_joins(mine: Path, section: dict[str, str], tmp_path: Path) -> None:
    set_remote(mine, section)
    commit(mine)
    dvc_run(mine, "push", "--run-cache")
    yours = clone(mine)

    remotes.join(yours)

    assert (yours / "model/weights").read_text() == "lr: 1\n"
    # Even without dvc.lock what somebody ran comes from the run-cache, which remotes by HTTP do not have.
    (yours / "dvc.lock").unlink()
    dvc_run(yours, "repro", "--pull")
    assert runs(yours) == section["url"].startswith("http")
    # And without a clone: get, the API, and import into another project.
    shutil.rmtree(mine / ".dvc/cache")
    dvc_run(tmp_path, "get", str(mine), "model", "--out", str(tmp_path / "got"))
    assert (tmp_path / "got/weights").read_text() == "lr: 1\n"
    assert dvc.api.read("model/weights", repo=str(mine), rev="main") == "lr: 1\n"
    dvc_run(yours, "import", str(mine), "model", "--out", "base")
    assert (yours / "base/weights").read_text() == "lr: 1\n"


def test_joining_trains_nothing_with_a_bad_remote(mine: Path, tmp_path: Path) -> None:
    commit(mine)
    yours = clone(mine)
    assert refused(yours).startswith("no default DVC remote is set; expected one: run `git pull`")

    for url in (str(tmp_path / "remote"), "http://127.0.0.1:9/remote"):
        set_remote(mine, {"url": url})
        set_remote(yours, {"url": url})
        assert url in (message := refused(yours)) and "expected a reachable remote" in message, message

    set_remote(mine, {"url": str(tmp_path / "remote")})
    dvc_run(mine, "push", "--run-cache")
    set_remote(yours, {"url": str(tmp_path / "remote")})
    [weights] = [
        file for file in (tmp_path / "remote").rglob("*") if file.is_file() and file.read_bytes() == b"lr: 1\n"
    ]
    weights.chmod(0o644)
    weights.write_text("lr: 7\n")
    assert "files that dvc.lock names are missing or damaged: model; expected" in refused(yours)
    weights.write_text("lr: 1\n")
    remotes.join(yours)
    assert (yours / "model/weights").read_text() == "lr: 1\n" and runs(yours) == 0


def test_joining_tells_what_is_left_to_run(mine: Path, tmp_path: Path) -> None:
    set_remote(mine, {"url": str(tmp_path / "remote")})
    commit(mine)
    dvc_run(mine, "push")
    yours = clone(mine)
    (yours / "params.yaml").write_text("lr: 2\n")
    assert "`dvc repro` would run train again: changed deps params.yaml lr modified; expected settings" in refused(
        yours
    )


def test_experiments_go_through_a_git_server(mine: Path, tmp_path: Path) -> None:
    set_remote(mine, {"url": str(tmp_path / "remote")})
    commit(mine)
    dvc_run(mine, "push")
    with remote_servers.git(tmp_path) as url:
        git(mine, "remote", "add", "origin", url)
        git(mine, "push", "--quiet", "origin", "main")
        dvc_run(mine, "exp", "run", "--name", "faster", "-S", "lr=2")
        dvc_run(mine, "exp", "push", "--run-cache", "origin", "faster")
        git(tmp_path, "clone", "--quiet", url, "yours")
        yours = tmp_path / "yours"
        dvc_run(yours, "exp", "pull", "--run-cache", "origin", "faster")
    remotes.join(yours)

    # With the run-cache, its settings train nothing here; and `exp apply` brings it into the workspace.
    dvc_run(yours, "exp", "run", "-S", "lr=2")
    assert (yours / "model/weights").read_text() == "lr: 2\n" and runs(yours) == 0
    git(yours, "checkout", ".")
    (yours / "code.py").write_text("my edit\n")
    dvc_run(yours, "exp", "apply", "faster")
    assert "lr: 2" in (yours / "params.yaml").read_text() and runs(yours) == 0
    # It drops an edit, as docs/sharing.md warns, and says there how to get it back.
    assert (yours / "code.py").read_text() == ""
    git(yours, "checkout", ".")
    git(yours, "stash", "apply", "refs/exps/apply/stash")
    assert (yours / "code.py").read_text() == "my edit\n"


def test_a_relative_remote_that_all_clones_share_is_refused(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check.params, "check", lambda: None)
    monkeypatch.chdir(mine)
    set_remote(mine, {"url": "../remote"})
    with pytest.raises(UserError, match=f"expected an absolute path: dvc remote modify team url {mine.parent}/remote"):
        check.main()
    for level, url in (("local", "../remote"), ("repo", str(mine.parent / "remote")), ("repo", "s3://bucket/x")):
        set_remote(mine, {"url": str(mine.parent)})
        set_remote(mine, {"url": url}, level)
        check.main()


def test_two_results_that_meet_in_a_rebase_are_run_together(mine: Path) -> None:
    commit(mine)
    (mine / "params.yaml").write_text("lr: 2\n")
    dvc_run(mine, "repro")
    commit(mine)
    git(mine, "switch", "--quiet", "--create", "other", "HEAD~")
    (mine / "code.py").write_text("better\n")
    dvc_run(mine, "repro")
    commit(mine)

    with pytest.raises(subprocess.CalledProcessError):
        git(mine, "rebase", "main")
    assert git(mine, "diff", "--name-only", "--diff-filter=U") == "dvc.lock\nmetrics/metrics.json"
    # Without markers in either file DVC can read them; what both changed is run, and settles the conflict.
    dvc_run(mine, "repro")
    git(mine, "add", "--all")
    git(mine, "-c", "core.editor=true", "rebase", "--continue")

    assert (mine / "metrics/metrics.json").read_text() == "lr: 2\nbetter\n"
    assert git(mine, "status", "--porcelain") == "" and git(mine, "log", "--format=%s").count("after") == 3


@pytest.mark.parametrize("place", ["cache", "folder", "both"])
def test_a_flipped_bit_is_found_and_the_run_is_as_before(mine: Path, place: str) -> None:
    cached = next(path for path in (mine / ".dvc/cache/files").rglob("*") if path.is_file() and path.suffix != ".dir")
    before = (mine / "model/weights").read_bytes()
    for path in {"cache": [cached], "folder": [mine / "model/weights"], "both": [cached, mine / "model/weights"]}[
        place
    ]:
        status = path.stat()
        path.chmod(0o644)
        path.write_bytes(b"X" + path.read_bytes()[1:])
        path.chmod(status.st_mode)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert len(mend.mend(mine, data=True)) == (2 if place == "both" else 1)
    dvc_run(mine, "repro")
    assert (mine / "model/weights").read_bytes() == before and not mend.mend(mine, data=True)
    assert runs(mine) == (2 if place == "both" else 1)  # else the cache has it, or the folder


def test_nothing_is_mended_while_dvc_works_there(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dvc.lock.DEFAULT_TIMEOUT", 0)
    with DvcRepo(str(mine)) as repo, repo.lock, pytest.raises(UserError, match="DVC: Unable to acquire lock"):
        mend.mend(mine, data=False)
