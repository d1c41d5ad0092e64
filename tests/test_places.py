"""Where people begin, held against the project: the image, devcontainer, workflows, and hooks of pre-commit."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from dvc.config import Config
from dvc_render.vega import VegaRenderer
from packaging.specifiers import SpecifierSet
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
WORKFLOWS = [*ROOT.glob(".github/workflows/*.yml"), *ROOT.glob("docs/workflows/*.yml")]
CONFIGURATIONS = ("Dockerfile", ".devcontainer/devcontainer.json", "docs/installing.md", "README.md")


def read(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path)


def supported() -> SpecifierSet:
    return SpecifierSet(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"])


def test_the_tests_run_on_every_python_that_the_project_supports() -> None:
    job = read(ROOT / ".github/workflows/tests.yml")["jobs"]["check"]

    assert job["strategy"]["matrix"]["python"] == [v for v in (f"3.{n}" for n in range(30)) if v in supported()]


def test_images_and_workflows_use_a_supported_python() -> None:
    named = re.findall(
        r"(?:ARG PYTHON=|python-version: \")(3[.]\d+)", DOCKERFILE + "".join(map(Path.read_text, WORKFLOWS))
    )

    assert len(named) >= 2 and all(version in supported() for version in named)


@pytest.mark.parametrize("path", [*WORKFLOWS, *map(ROOT.joinpath, CONFIGURATIONS)], ids=lambda path: path.name)
def test_every_make_target_that_is_named_exists(path: Path) -> None:
    targets = set(re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text()))

    assert set(re.findall(r"(?:`|run: |finetrail |(?m:^ *))make ([a-z]+)", path.read_text())) <= targets


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_has_few_rights_and_an_end(path: Path) -> None:
    workflow = read(path)

    assert set(workflow["permissions"].items()) <= {("contents", "read")}
    assert workflow["concurrency"]["cancel-in-progress"] is True
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 120
        assert set(job.get("permissions", {}).items()) <= {("contents", "read"), ("pull-requests", "write")}
        for step in job["steps"]:
            # An expression in a script would make a title or a branch's name a part of the script.
            assert "${{" not in step.get("run", "")
            assert re.fullmatch(r"actions/[a-z-]+@v\d+", step.get("uses", "actions/none@v0"))
            assert "checkout" not in step.get("uses", "") or step["with"]["persist-credentials"] is False


def test_pull_requests_run_where_an_existing_path_changes() -> None:
    # YAML 1.2, which GitHub reads, has `on` as a word.
    paths = read(ROOT / "docs/workflows/try-recipe.yml")["on"]["pull_request"]["paths"]

    assert all((ROOT / path.removesuffix("/**")).exists() for path in paths)
    stages = read(ROOT / "dvc.yaml")["stages"].values()
    deps = {dep.split("/")[0] for stage in stages for dep in stage.get("do", stage)["deps"]} - {"data", "metrics"}
    assert {dep for dep in deps if "$" not in dep} <= {path.removesuffix("/**") for path in paths}


def test_the_image_takes_only_what_exists_in_its_context() -> None:
    copied = {file for names in re.findall(r"(?m)^COPY (.+) \S+$", DOCKERFILE) for file in names.split()}
    context = (ROOT / ".dockerignore").read_text().split()

    assert copied and all((ROOT / name).is_file() for name in copied)
    assert {line[1:] for line in context if line.startswith("!")} == copied and "*" in context


def test_the_devcontainer_is_the_image() -> None:
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())

    build = container["build"]
    assert (ROOT / ".devcontainer" / build["dockerfile"]).resolve() == ROOT / "Dockerfile"
    assert (ROOT / ".devcontainer" / build["context"]).resolve() == ROOT
    assert set(build["args"]) <= set(re.findall(r"(?m)^ARG (\w+)", DOCKERFILE))
    assert f"useradd --create-home --uid 1000 {container['remoteUser']} " in DOCKERFILE
    assert container["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"] == "/opt/venv/bin/python"


def test_make_in_a_container_leaves_the_hosts_environment_alone(tmp_path: Path) -> None:
    # As in the image, but in a folder of ours; and with nothing to install.
    assert "VENV=/opt/venv" in DOCKERFILE
    clone, venv = tmp_path / "clone", tmp_path / "venv"
    (clone / ".venv").mkdir(parents=True)
    for name in ("Makefile", "setup.sh"):
        shutil.copy(ROOT / name, clone)
    for name in ("requirements.lock", "requirements-cuda.lock"):
        (clone / name).write_text("six==1.17.0 ; python_version < '3'\n")
    (clone / "ruff").write_text('#!/bin/sh\necho "python is $(command -v python)"\n')
    path = f"{clone}:/usr/bin:/bin"
    (clone / "ruff").chmod(0o755)

    def make() -> str:
        env = os.environ | {"VENV": str(venv), "PYTHON": sys.executable, "PATH": path}
        return subprocess.run(["make", "lint"], cwd=clone, env=env, capture_output=True, text=True).stdout

    assert "Installing" in make()
    second = make()
    assert "Installing" not in second and f"python is {venv}/bin/python" in second
    assert not list((clone / ".venv").iterdir())


def test_hooks_need_no_network_and_run_what_the_environment_has() -> None:
    repositories = read(ROOT / ".pre-commit-config.yaml")["repos"]
    hooks = [hook for repository in repositories for hook in repository["hooks"]]

    assert [repository["repo"] for repository in repositories] == ["local"]
    for hook in hooks:
        assert hook["language"] == "system"
        assert shutil.which(hook["entry"].split()[0], path=str(Path(sys.executable).parent))
    files = next(hook["files"] for hook in hooks if hook["id"] == "recipes")
    for name in ("params.yaml", "recipes/token_classification/wnut16.yaml", "finetrail/tasks/retrieval/settings.py"):
        assert re.search(files, name) and (ROOT / name).is_file()


def test_the_page_of_dvc_plots_has_the_scripts_that_dvc_names() -> None:
    page = (ROOT / ".dvc/plots/page.html").read_text(encoding="utf-8")
    held = re.findall(r"<script>/\* ([\w-]+@[\d.]+),", page)
    assert held == re.findall(r"npm/([\w-]+@[\d.]+)", VegaRenderer.SCRIPTS), "run python docs/plots_page.py"
    assert Config(str(ROOT / ".dvc")).load_one("repo")["plots"]["html_template"] == "plots/page.html"
