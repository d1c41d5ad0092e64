"""The lock files are right for every Python that is supported, and setup.sh makes .venv what they say."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from threading import Thread

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
LOCKS = ("requirements.lock", "requirements-cuda.lock", "requirements-audit.lock", "requirements-docs.lock")
NOTHING = "six==1.17.0 ; python_version < '3'\n"
SOURCE_ONLY = ("antlr4-python3-runtime", "seqeval")  # pure Python: they build anywhere


# peft imports it wherever it is: only who trains with it installs it.
LEFT_OUT = ("bitsandbytes",)


def wanted() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    return [Requirement(need) for need in (*project["dependencies"], *(need for extra in extras for need in extra))]


def entries(lock: str) -> dict[str, list[str]]:
    """Return the hashes of each requirement of a lock file."""
    lines = (ROOT / lock).read_text().replace(" \\\n    ", " ").splitlines()
    found = (line.split(" --hash=") for line in lines if not line.startswith("#"))
    return {need: [f"--hash={value}" for value in hashes] for need, *hashes in found}


def locked(python: str) -> list[Requirement]:
    """Return what the lock file installs on Linux with this Python."""
    rows = [Requirement(need) for need in entries("requirements.lock")]
    linux = {
        **default_environment(),
        "sys_platform": "linux",
        "python_version": python,
        "python_full_version": f"{python}.0",
    }
    return [row for row in rows if row.marker is None or row.marker.evaluate(linux)]


def call(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # A backend that the machine chooses gives other versions of torch.
    own = {name: value for name, value in os.environ.items() if name != "UV_TORCH_BACKEND"}
    return subprocess.run(command, env=own | environment, capture_output=True, text=True, timeout=300)


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


def test_torchs_cuda_libraries_have_a_lock_file_of_their_own() -> None:
    names = {row.name for row in locked("3.12")} - {"nvidia-ml-py"}  # DVCLive's, without libraries
    left_out = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["pip"]["no-emit-package"])

    assert [name for name in sorted(names) if name.startswith(("cuda-", "nvidia-", "triton"))] == [], (
        "add them to no-emit-package of pyproject.toml"
    )
    assert {Requirement(need).name for need in entries("requirements-cuda.lock")} == left_out - set(LEFT_OUT)


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_has_hashes_and_no_file_an_index(lock: str) -> None:
    for need, hashes in entries(lock).items():
        assert re.fullmatch(r"[a-z0-9-]+==[^\s;]+( ; .+)?", need)
        assert hashes and all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", value) for value in hashes), need


def test_the_licenses_are_those_that_the_locked_packages_state() -> None:
    spec = spec_from_file_location("licenses", ROOT / "docs/licenses.py")
    assert spec is not None and spec.loader is not None
    licenses = module_from_spec(spec)
    spec.loader.exec_module(licenses)
    rows = re.findall(r"(?m)^\| ([a-z0-9-]+) \| (\S+) \| (.+) \|$", licenses.FILE.read_text())[2:]

    assert [f"{name}=={version}" for name, version, _ in rows] == [
        need.split(" ")[0] for need in entries("requirements.lock")
    ], "run make docs"
    # Another system or Python has other packages.
    told = [(name, license) for name, _, license in rows if "not installed" not in (license, licenses.stated(name))]
    assert len(told) > 150 and told == [(name, licenses.stated(name)) for name, _ in told], "run make docs"


@pytest.mark.usefixtures("index")
def test_the_lock_files_are_what_make_lock_writes(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", *LOCKS):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "setup.sh").touch()  # nothing is installed there

    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(["make", "lock"], cwd=tmp_path, env={**os.environ, "PATH": path}, check=True, capture_output=True)

    for name in LOCKS:
        assert (tmp_path / name).read_text() == (ROOT / name).read_text()


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize(
    "python", [PYTHONS[0], *(pytest.param(one, marks=pytest.mark.slow) for one in PYTHONS[1:-1]), PYTHONS[-1]]
)
def test_the_lock_file_resolves_to_wheels(python: str, tmp_path: Path) -> None:
    """With all that they need, which uv refuses where it has no hash; it reads no more than metadata for that."""
    sources = [f"--no-binary={name}" for name in SOURCE_ONLY]
    files = [f"--requirement={ROOT / name}" for name in ("requirements.lock", "requirements-cuda.lock")]

    resolved = uv(
        *("pip", "install", "--dry-run", "--python-version", python, "--python-platform", "linux"),
        *("--only-binary=:all:", *sources, "--target", str(tmp_path), "--require-hashes", *files),
    )

    assert resolved.returncode == 0, resolved.stderr


@pytest.mark.slow  # pip downloads a GB of wheels
@pytest.mark.usefixtures("index")
def test_pip_finds_the_wheels(tmp_path: Path) -> None:
    def check(python: str) -> subprocess.CompletedProcess[str]:
        # pip reads markers as of the Python that runs it, and asks for --no-deps where a package is source only; what
        # the packages need is resolved above. Not torch: half a GB for each Python.
        lock = tmp_path / f"{python}.txt"
        hashes = {str(Requirement(need)): found for need, found in entries("requirements.lock").items()}
        rows = [row for row in locked(python) if row.name != "torch"]
        assert len(rows) > 200
        lock.write_text("".join(f"{row.name}{row.specifier} {' '.join(hashes[str(row)])}\n" for row in rows))
        return call(
            *(sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--use-pep517"),
            # With --python-version, pip (26) still compares Requires-Python with the Python that runs it.
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
    (tmp_path / "requirements-cuda.lock").write_text(NOTHING)
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
    (project / "requirements.lock").write_text(f"finetrail-is-no-such-package==0 --hash=sha256:{'0' * 64}\n")

    failed = setup(project, PYTHON=sys.executable, PIP_NO_INDEX="1", PIP_FIND_LINKS="")

    assert failed.returncode == 1
    assert "No matching distribution found for finetrail-is-no-such-package==0" in failed.stderr
    assert failed.stderr.splitlines()[-1].startswith("error: pip could not install requirements.lock")
    assert not (project / ".venv/installed").exists()


def wheel(folder: Path, name: str, version: str, needs: str = "") -> str:
    """Write a wheel that holds nothing, and return its line of a lock file."""
    path, info = folder / f"{name}-{version}-py3-none-any.whl", f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", f"{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return f"{name}=={version} \\\n    --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_setup_checks_hashes_and_takes_a_named_build_of_torch(project: Path, installer: str) -> None:
    shelf = project / "shelf"
    shelf.mkdir()
    torch, tool, cuda = wheel(shelf, "torch", "2.13.0"), wheel(shelf, "tool", "1.0"), wheel(shelf, "cublas", "3.0")
    (project / "requirements.lock").write_text(tool + torch)
    # A venv with the pip that is there: one of its own takes seconds, and uv asks an index for it.
    call(sys.executable, "-m", "venv", "--without-pip", f"{project}/.venv")
    site = next(project.glob(".venv/lib/python*/site-packages"))
    (site / "pip").symlink_to(Path(sysconfig.get_path("purelib"), "pip"))
    if installer == "uv":
        from uv import find_uv_bin

        (project / "pythons/uv").symlink_to(find_uv_bin())

    def install() -> subprocess.CompletedProcess[str]:
        env = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(shelf), "UV_NO_INDEX": "1", "UV_FIND_LINKS": str(shelf)}
        return setup(project, **env, PIP_CONFIG_FILE="/dev/null", UV_NO_CONFIG="1")

    def installed() -> list[str]:
        return sorted(path.name.removesuffix(".dist-info") for path in site.glob("*.dist-info"))

    (project / "requirements-cuda.lock").write_text(cuda.replace("sha256:", f"sha256:{'0' * 8}")[:-9] + "\n")
    refused = install()
    assert (refused.returncode, installed()) == (1, []), refused.stdout
    assert "cublas==3.0" in refused.stderr and f"error: {installer} could not install" in refused.stderr
    assert "is not the one that was locked" in refused.stderr and not (project / ".venv/installed").exists()

    (project / "requirements-cuda.lock").write_text(cuda)
    assert install().returncode == 0
    assert installed() == ["cublas-3.0", "tool-1.0", "torch-2.13.0"]

    for path in site.glob("*.dist-info"):
        shutil.rmtree(path)
    (project / ".venv/installed").unlink()
    wheel(shelf, "torch", "2.13.0+rocm", "Requires-Dist: rocm==1.0\n")
    wheel(shelf, "rocm", "1.0")
    done = install()
    assert (done.returncode, installed()) == (0, ["rocm-1.0", "tool-1.0", "torch-2.13.0+rocm"]), done.stderr
    assert "torch 2.13.0+rocm: not from the public index, so without a hash" in done.stdout


class Osv(BaseHTTPRequestHandler):
    """Answers as https://google.github.io/osv.dev/post-v1-query/ says; one package is vulnerable."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        package = asked["package"]
        assert self.path == "/v1/query" and package["ecosystem"] == "PyPI" and asked["version"]
        affected = {
            "package": package,
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99"}]}],
        }
        found = {"id": "GHSA-test", "published": "2026-01-01T00:00:00Z", "modified": "2026-01-01T00:00:00Z"}
        found |= {"summary": "", "details": "", "affected": [affected | {"versions": [asked["version"]]}]}
        body = json.dumps({"vulns": [found]} if package["name"] == "jinja2" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""


@pytest.fixture
def osv() -> Iterator[str]:
    """Give the URL of a service of vulnerabilities."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Osv) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()
        thread.join()


@pytest.mark.slow  # their tools are installed for it
@pytest.mark.usefixtures("index")
def test_audit_and_sbom_see_every_locked_package(tmp_path: Path, osv: str) -> None:
    for name in ("Makefile", "pyproject.toml", *LOCKS):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "setup.sh").touch()  # nothing else is installed there

    def make(*arguments: str) -> subprocess.CompletedProcess[str]:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return call("make", "--directory", str(tmp_path), *arguments, PATH=path)

    vulnerable = make("audit", f"FLAGS=--osv-url {osv}")
    assert vulnerable.returncode != 0 and re.search(r"(?m)^jinja2 +\S+ +GHSA-test +99 *$", vulnerable.stdout)
    assert "Found 1 known vulnerability in 1 package" in vulnerable.stderr
    assert make("audit", f"FLAGS=--osv-url {osv} --ignore-vuln GHSA-test").returncode == 0
    cut_off = make("audit", "FLAGS=--osv-url http://127.0.0.1:9/v1/query")
    assert cut_off.returncode != 0 and cut_off.stderr.startswith(
        "error: nothing was audited: the service did not answer"
    )

    written = []
    for _ in range(2):
        assert make("sbom").returncode == 0
        written.append((tmp_path / "sbom.json").read_bytes())
    bom = json.loads(written[0])
    found = {f"{component['name']}=={component['version']}" for component in bom["components"]}
    assert written[0] == written[1] and bom["bomFormat"] == "CycloneDX"
    assert found == {need.split(" ")[0] for lock in LOCKS[:2] for need in entries(lock)}
