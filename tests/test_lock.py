"""requirements.lock is right for every Python that is supported, and setup.sh knows whether .venv is as it says."""

import os
import shutil
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
NOTHING = "six==1.17.0 ; python_version < '3'\n"
SOURCE_ONLY = ("antlr4-python3-runtime", "seqeval")  # pure Python: they build anywhere


# peft imports it wherever it is: only who trains with it installs it.
LEFT_OUT = ("bitsandbytes",)


def wanted() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    return [Requirement(need) for need in (*project["dependencies"], *(need for extra in extras for need in extra))]


def locked(python: str) -> list[Requirement]:
    """Return what the lock file installs on Linux with this Python."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    rows = [Requirement(line) for line in lines if not line.startswith("#")]
    linux = {
        **default_environment(),
        "sys_platform": "linux",
        "python_version": python,
        "python_full_version": f"{python}.0",
    }
    return [row for row in rows if row.marker is None or row.marker.evaluate(linux)]


def call(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300)


def uv(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return call(sys.executable, "-m", "uv", "--no-progress", *arguments, **environment)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip where no package index answers."""
    target = str(tmp_path_factory.mktemp("index"))
    asked = uv("pip", "install", "--dry-run", "--refresh", "--target", target, "packaging", UV_HTTP_RETRIES="0")
    if asked.returncode:
        pytest.skip(f"no package index can be reached: {asked.stderr.strip().splitlines()[-1]}")


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_file_satisfies_every_requirement(python: str) -> None:
    rows = locked(python)
    versions = {canonicalize_name(row.name): str(row.specifier).removeprefix("==") for row in rows}

    assert len(versions) == len(rows), "two versions of a package"
    for need in wanted():
        if need.name in LEFT_OUT:
            continue
        assert versions.get(canonicalize_name(need.name)) in need.specifier, f"requirements.lock lacks {need}"
    assert versions["torch"] == "2.13.0"


def test_the_lock_file_leaves_cuda_to_torch() -> None:
    names = {row.name for row in locked("3.12")} - {"nvidia-ml-py"}  # DVCLive's, without libraries

    assert [name for name in sorted(names) if name.startswith(("cuda-", "nvidia-", "triton"))] == [], (
        "add them to no-emit-package of pyproject.toml"
    )


@pytest.mark.usefixtures("index")
def test_the_lock_file_is_what_make_lock_writes(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "setup.sh").touch()  # nothing is installed there

    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(["make", "lock"], cwd=tmp_path, env={**os.environ, "PATH": path}, check=True, capture_output=True)

    assert (tmp_path / "requirements.lock").read_text() == (ROOT / "requirements.lock").read_text()


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_file_resolves_to_wheels(python: str, tmp_path: Path) -> None:
    """With all that the packages need, torch's own libraries too; uv reads no more than metadata for it."""
    sources = [f"--no-binary={name}" for name in SOURCE_ONLY]
    lock = str(ROOT / "requirements.lock")

    resolved = uv(
        *("pip", "install", "--dry-run", "--python-version", python, "--python-platform", "linux"),
        *("--only-binary=:all:", *sources, "--target", str(tmp_path), "--requirement", lock),
    )

    assert resolved.returncode == 0, resolved.stderr


@pytest.mark.slow  # pip downloads a GB of wheels
@pytest.mark.usefixtures("index")
def test_pip_finds_the_wheels(tmp_path: Path) -> None:
    def check(python: str) -> subprocess.CompletedProcess[str]:
        # pip reads markers as of the Python that runs it, and asks for --no-deps where a package is source only; what
        # the packages need is resolved above. Not torch: half a GB for each Python.
        lock = tmp_path / f"{python}.txt"
        lock.write_text("".join(f"{row.name}{row.specifier}\n" for row in locked(python) if row.name != "torch"))
        return call(
            *(sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--use-pep517"),
            # Of --python-version pip (26) holds Requires-Python against the Python that runs it.
            *("--python-version", python, "--ignore-requires-python"),
            *("--only-binary=:all:", f"--no-binary={','.join(SOURCE_ONLY)}"),
            *("--target", str(tmp_path / python), "--requirement", str(lock)),
        )

    with ThreadPoolExecutor(2) as pool:
        for python, found in zip(PYTHONS, pool.map(check, PYTHONS), strict=True):
            assert found.returncode == 0, f"Python {python}: {found.stderr}"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with setup.sh, a lock file of nothing to install, and `pythons`, which comes first on its PATH."""
    shutil.copy(ROOT / "setup.sh", tmp_path)
    (tmp_path / "requirements.lock").write_text(NOTHING)
    (tmp_path / "pythons").mkdir()
    return tmp_path


def setup(project: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return call("bash", f"{project}/setup.sh", PATH=f"{project}/pythons:/usr/bin:/bin", **environment)


def test_setup_installs_only_what_is_not_there(project: Path) -> None:
    stamp, python = project / ".venv/installed", project / ".venv/bin/python"
    (project / "pythons/python3.14").write_text("#!/bin/sh\nexit 127\n")  # pyenv's, of a version that is not there
    (project / "pythons/python3.14").chmod(0o755)
    (project / "pythons/python3.13").symlink_to("/bin/false")
    (project / "pythons/python3.12").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (project / "pythons/python3.12").chmod(0o755)

    first = setup(project)
    assert (first.returncode, first.stdout.count("Installing")) == (0, 1), first.stderr
    assert stamp.read_text().split()[1] == ".".join(map(str, sys.version_info[:2]))

    (project / "requirements.lock").touch()
    again = setup(project)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")

    (project / "requirements.lock").write_text(f"# as before\n{NOTHING}")
    (project / ".venv/kept").touch()
    assert "Installing" in setup(project).stdout
    assert (project / ".venv/kept").exists()

    python.unlink()
    python.symlink_to("/bin/false")
    assert "Installing" in setup(project).stdout
    assert not (project / ".venv/kept").exists()
    assert subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 0


@pytest.mark.usefixtures("index")
def test_setup_takes_uv_where_it_is(project: Path) -> None:
    from uv import find_uv_bin

    (project / "pythons/uv").symlink_to(find_uv_bin())

    done = setup(project, PYTHON=sys.executable)

    assert (done.returncode, f"{project}/pythons/uv" in done.stdout) == (0, True), done.stderr
    assert call(f"{project}/.venv/bin/python", "-m", "pip", "--version").returncode == 0


def test_setup_refuses_another_python(project: Path) -> None:
    refused = setup(project, PYTHON="/bin/false")

    assert refused.returncode == 1
    assert refused.stderr.startswith("error: no Python 3.11 to 3.14 among: /bin/false; expected one")
    assert refused.stderr.count("\n") == 1


def test_setup_tells_what_pip_could_not_do(project: Path) -> None:
    (project / "requirements.lock").write_text("finetrail-is-no-such-package==0\n")

    failed = setup(project, PYTHON=sys.executable, PIP_NO_INDEX="1", PIP_FIND_LINKS="")

    assert failed.returncode == 1
    assert "No matching distribution found for finetrail-is-no-such-package==0" in failed.stderr
    assert failed.stderr.splitlines()[-1].startswith("error: pip could not install requirements.lock")
    assert not (project / ".venv/installed").exists()
