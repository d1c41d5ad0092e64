"""The whole graph, run by DVC in copies of the project on a toy corpus: what reruns, what is equal, what is shared."""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
ALL = ["download@corpus", "download@model", "tokenize", "teach", "train", "evaluate", "export", "report"]
RECIPE = "recipes/token_classification/toy.yaml"
# What a user's environment holds, and no output may.
MARKER = "c0ffee5ec2e7"
SECRETS = {
    name: f"hf_{MARKER}_{name}"
    for name in (
        "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "GOOGLE_API_KEY", "WANDB_API_KEY",
        "MLFLOW_TRACKING_TOKEN", "GH_TOKEN", "DVC_STUDIO_TOKEN",
    )
}  # fmt: skip


def run(folder: Path, *command: str, fails: bool = False, **env: str) -> str:
    """Run a command as a user with the environment activated; return what it prints, stderr included."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    git = {f"GIT_{who}_{what}": "toy@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    done = subprocess.run(
        command, cwd=folder, env=os.environ | git | {"PATH": path} | env,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert (done.returncode != 0) == fails, done.stdout
    return done.stdout


def cut_off(hosts: Path) -> dict[str, str]:
    """Return the variables that cut every Python off from the network; a file gets the hosts that it tried."""
    return {"PYTHONPATH": str(ROOT / "tests/no_network"), "HOSTS_TRIED": str(hosts), "HF_HUB_OFFLINE": "0"}


def ran(output: str) -> list[str]:
    return re.findall(r"Running stage '(.+)'", output)


def digests(folder: Path, *parts: str) -> dict[str, str]:
    files = (file for part in parts for file in sorted((folder / part).rglob("*")) if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def slow(name: str) -> Any:
    """Return a stage's name as a parameter that only CI tries: the guard is the same in each of them."""
    return pytest.param(name, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, make_project: Callable[[Path], Path]) -> tuple[Path, str]:
    """A project in Git that ran once without a network, and what that printed; tests work on copies of it."""
    folder = make_project(tmp_path_factory.mktemp("finished"))
    (folder.parent / "hosts").touch()
    run(folder, "git", "init", "--quiet", "--initial-branch=main")
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message=before")
    printed = run(folder, "dvc", "repro", **cut_off(folder.parent / "hosts"), **SECRETS)
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message=after")
    return folder, printed


@pytest.fixture
def copy(finished: tuple[Path, str], tmp_path: Path) -> Path:
    return shutil.copytree(finished[0], tmp_path / "copy", symlinks=True)


def test_a_run_goes_through_every_stage_and_leaves_its_outputs(finished: tuple[Path, str]) -> None:
    folder, printed = finished

    assert sorted(ran(printed)) == sorted(ALL)
    metrics = json.loads((folder / "metrics/record.json").read_text())
    assert metrics["recipe"] == "toy" and 0 <= metrics["test"]["f1_low"] <= metrics["test"]["f1"]
    for name in ("model.safetensors", "onnx/model.onnx", "README.md", "tokenizer.json", "finetrail.json"):
        assert (folder / "data/exported" / name).is_file()
    assert (folder / "metrics/report.html").is_file()
    figures = sorted(path.name for path in (folder / "metrics/plots").iterdir())
    assert figures == ["confusion.svg", "headline.svg", "per_label.svg"]
    assert run(folder, "git", "status", "--porcelain") == ""


def test_a_run_tries_to_reach_no_host(finished: tuple[Path, str], tmp_path: Path) -> None:
    assert (finished[0].parent / "hosts").read_text() == ""

    # As a stage would have been found out that tries.
    ask = "import urllib.request; urllib.request.urlopen('http://hub.example.org')"
    told = run(tmp_path, sys.executable, "-c", ask, fails=True, **cut_off(tmp_path / "hosts"))
    assert "the network is cut off: hub.example.org" in told
    assert (tmp_path / "hosts").read_text().startswith("hub.example.org (socket.getaddrinfo) by ")


def test_a_stage_does_not_run_beside_another_in_the_same_folder(copy: Path) -> None:
    (copy / ".scratch/running.pid").write_text("12345")
    with FileLock(copy / ".scratch/running"):
        printed = run(copy, sys.executable, "-m", "stages.report", fails=True)
        assert printed.startswith("error: process 12345 still runs a stage in this folder") and printed.count("\n") == 1
        (copy / ".scratch/running.pid").unlink()  # as where that stage was killed before it wrote it
        printed = run(copy, sys.executable, "-m", "stages.report", fails=True)
    assert printed.startswith("error: process (its number is unknown) still runs a stage in this folder")
    run(copy, sys.executable, "-m", "stages.report")


def test_nothing_else_is_printed_than_dvc_and_our_lines(finished: tuple[Path, str]) -> None:
    stages = "|".join(ALL)
    known = (
        rf"$|Running stage '|> python -m stages\.|Generating lock file|Updating lock file|({stages}): |Use `dvc push`"
    )

    known += "|WARNING:dvc_studio_client"  # of the token in SECRETS
    strange = [line for line in finished[1].splitlines() if not re.match(known, line)]
    assert strange == []


def test_no_output_holds_a_path_of_this_machine(finished: tuple[Path, str]) -> None:
    folder = finished[0]
    places = [str(folder).encode(), str(Path(sys.prefix)).encode(), str(ROOT).encode()]

    for file in [*(folder / "data").rglob("*"), *(folder / "metrics").rglob("*"), folder / "dvc.lock"]:
        if file.is_file() and file.name != "dvc.lock":
            found = [place for place in places if place in file.read_bytes()]
            assert not found, f"{file} holds {found}"


def test_no_output_and_no_line_holds_a_secret_of_the_environment(finished: tuple[Path, str]) -> None:
    folder, printed = finished
    held = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    assert any(b"Toy people and places" in content for content in held.values())
    assert [path for path, content in held.items() if MARKER.encode() in content] == [] and MARKER not in printed


def test_a_second_repro_does_nothing(copy: Path) -> None:
    assert "Data and pipelines are up to date." in run(copy, "dvc", "repro")


def test_dvc_shows_the_curves_and_the_figures(copy: Path) -> None:
    run(copy, "dvc", "plots", "show", "--out", "shown")

    html = (copy / "shown/index.html").read_text()
    assert html.count("<script") >= 3 and not re.findall(r"<script[^>]+src", html)  # it needs no network
    for curve in ("loss", "learning_rate", "metrics_train_plots_metrics_validation_f1_tsv"):
        assert f'id = "{curve}"' in html
    figures = re.findall(r'<img src="(static/[^"]*)"', html)
    assert len(figures) == 3
    for figure in figures:
        assert (copy / "shown" / figure).read_text().startswith("<svg")


@pytest.mark.slow  # every stage again; tests/tasks/test_contract.py repeats training in one process
def test_a_forced_run_elsewhere_gives_the_same_bytes(copy: Path) -> None:
    before = digests(copy, "data", "metrics")
    lock = (copy / "dvc.lock").read_text()

    printed = run(copy, "dvc", "repro", "--force", PYTHONHASHSEED="7")

    assert sorted(ran(printed)) == sorted(ALL)
    after = digests(copy, "data", "metrics")
    timings = "metrics/train_timings.json"
    assert {name for name in before if before[name] != after[name]} <= {timings}
    assert (copy / "dvc.lock").read_text() == lock


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new", "first"),
    [
        ("params.yaml", "\nlr:", "\nlr: 2e-3  #", "train"),
        ("params.yaml", "\nlimit:", "\nlimit: 8  #", "tokenize"),
        ("finetrail/tasks/token_classification/scoring.py", "CONTEXT_WORDS = 6", "CONTEXT_WORDS = 2", "evaluate"),
    ],
)
def test_a_change_reruns_its_stage_and_what_follows(copy: Path, file: str, old: str, new: str, first: str) -> None:
    """By DVC's own plan: the tests that really run it are slow."""
    edit(copy / file, old, new)
    planned = ran(run(copy, "dvc", "repro", "--dry", "--force-downstream"))
    order = ["tokenize", "teach", "train", "evaluate", "export", "report"]
    assert planned == order[order.index(first) :]


@pytest.mark.slow  # two experiments
def test_another_learning_rate_reruns_train_and_what_follows(copy: Path) -> None:
    printed = run(copy, "dvc", "exp", "run", "-S", "lr=2e-3")

    assert ran(printed) == ["train", "evaluate", "export", "report"]
    diff = json.loads(run(copy, "dvc", "metrics", "diff", "--all", "--json"))["metrics/metrics.json"]
    assert sorted(diff) == ["best_baseline", "test.f1", "test.f1_high", "test.f1_low", "validation.f1"]
    shown = [*shlex.split(re.findall(r"(dvc exp show .*) \$\(FLAGS\)", (ROOT / "Makefile").read_text())[0]), "--md"]
    columns = [name.strip() for name in run(copy, *shown).splitlines()[0].strip("|").split("|")]
    assert columns[:5] == ["Experiment", "Created", "test.f1", "test.f1_low", "test.f1_high"]
    assert "lr" in columns and len(columns) <= 12 and not any("/" in name for name in columns)
    assert run(copy, "git", "diff", "--stat", "--", "dvc.yaml") == ""
    # Going back needs no run but the report, which takes a second: DVC remembers no stage with an uncached record.json.
    assert ran(run(copy, "dvc", "exp", "run", "-S", "lr=null")) == ["report"]


@pytest.mark.slow
def test_a_quick_look_reruns_from_tokenize(copy: Path) -> None:
    printed = run(copy, "dvc", "exp", "run", "-S", "limit=8", "-S", "epochs=1")

    assert ran(printed) == ["tokenize", "teach", "train", "evaluate", "export", "report"]
    metrics = json.loads((copy / "metrics/record.json").read_text())
    assert metrics["corpus"]["examples"] == {"train": 8, "validation": 8, "test": 8}


def test_the_exported_model_is_an_artifact_of_a_registry(copy: Path) -> None:
    for tag in ("model@v1.0.0", "model#prod#1"):  # as GTO writes versions and stages
        run(copy, "git", "tag", "--annotate", tag, "--message=release")

    for name, options in {"newest": [], "version": ["--rev", "v1.0.0"], "stage": ["--stage", "prod"]}.items():
        run(copy, "dvc", "artifacts", "get", str(copy), "model", *options, "--out", str(copy.parent / name))
        assert digests(copy.parent / name, ".") == digests(copy / "data/exported", ".")


@pytest.mark.slow
def test_mending_the_score_never_retrains(copy: Path) -> None:
    scoring = copy / "finetrail/tasks/token_classification/scoring.py"
    text = scoring.read_text()
    scoring.write_text(text.replace("CONTEXT_WORDS = 6", "CONTEXT_WORDS = 2"))
    assert scoring.read_text() != text

    assert ran(run(copy, "dvc", "repro")) == ["evaluate", "export", "report"]


def test_a_teammate_gets_the_result_without_running_a_stage(copy: Path, tmp_path: Path) -> None:
    remote, clone = tmp_path / "remote", tmp_path / "clone"
    run(copy, "dvc", "remote", "add", "--default", "team", str(remote))
    run(copy, "git", "commit", "--all", "--quiet", "--message=remote")
    run(copy, "dvc", "push", "--run-cache")
    run(tmp_path, "git", "clone", "--quiet", str(copy), str(clone))
    expected = digests(copy, "data", "metrics")

    run(clone, "dvc", "pull", "--run-cache")
    assert ran(run(clone, "dvc", "repro", "--pull")) == []
    assert (
        digests(clone, "data", "metrics").items()
        >= {name: digest for name, digest in expected.items() if "timings" not in name}.items()
    )

    # Even without dvc.lock, what somebody ran with the same code, params and data comes from the run-cache; all but
    # the report, whose metrics.json is in Git and not in the cache: it takes seconds.
    (clone / "dvc.lock").unlink()
    assert ran(run(clone, "dvc", "repro", "--pull")) == ["report"]


@pytest.mark.parametrize("autocrlf", ["true", "false"])
def test_a_clone_is_up_to_date_under_any_line_ending_setting(copy: Path, tmp_path: Path, autocrlf: str) -> None:
    # core.eol=crlf is how Git on Windows writes text; autocrlf=true is the default of its installer.
    settings = (f"--config=core.autocrlf={autocrlf}", "--config=core.eol=crlf")
    run(tmp_path, "git", "clone", "--quiet", *settings, str(copy), "clone")
    clone = tmp_path / "clone"
    run(clone, "dvc", "cache", "dir", "--local", str(copy / ".dvc/cache"))
    run(clone, "dvc", "checkout", "--quiet")

    assert "Data and pipelines are up to date." in run(clone, "dvc", "status")
    assert re.findall("./(?:crlf|mixed) .*", run(clone, "git", "ls-files", "--eol")) == []
    assert run(clone, "git", "status", "--porcelain") == ""


@pytest.mark.slow  # two experiments
def test_a_pull_request_is_told_what_its_recipe_changes(copy: Path, tmp_path: Path) -> None:
    recipe, odd = copy / RECIPE, copy / "recipes/token_classification/$(touch odd) `touch odd`;touch odd.yaml"
    odd.write_text(recipe.read_text())
    recipe.write_text(recipe.read_text().replace("lr: 0.01", "lr: 0.03"))
    run(copy, "git", "add", "--all")
    run(copy, "git", "commit", "--quiet", "--message=the pull request, merged")
    run(tmp_path, "git", "clone", "--quiet", "--depth=2", copy.as_uri(), "clone")  # as actions/checkout does
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("make", "gh"):
        (tools / name).write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/{name}.txt\n')
        (tools / name).chmod(0o755)
    env = {"PATH": f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}", "RUNNER_TEMP": str(tmp_path)}
    env |= {name: str(tmp_path / name) for name in ("GITHUB_PATH", "GITHUB_STEP_SUMMARY")}

    workflow = YAML(typ="safe", pure=True).load(ROOT / "docs/workflows/try-recipe.yml")
    printed = ""
    for step in workflow["jobs"]["try"]["steps"]:
        if "run" in step:
            env |= step.get("env", {}) | ({"LIMIT": "8"} if "LIMIT" in step.get("env", {}) else {})
            printed += run(tmp_path / "clone", "bash", "-eo", "pipefail", "-c", step["run"], **env)

    comment = (tmp_path / "comment.md").read_text()
    assert re.findall("(?m)^### .*", comment) == ["### token_classification/toy"]
    assert re.search(r"(?m)^f1 [\d.]+ on test \(95% interval", comment)
    assert re.search(r"\| train.lr +\| 0.01 +\| 0.03 +\| 0.02 +\|", comment)
    assert (tmp_path / "gh.txt").read_text().startswith("pr comment ${{ github.event.number }} ")
    assert (tmp_path / "GITHUB_STEP_SUMMARY").read_text() == comment
    assert printed.count("::warning::The name of a recipe") == 1 and not list(tmp_path.rglob("odd"))


def test_an_exported_model_is_the_next_runs_base_model(copy: Path, finished: tuple[Path, str]) -> None:
    yaml = YAML()
    recipe = yaml.load(copy / RECIPE)
    recipe["model"]["source"] = {
        "kind": "dvc", "repo": str(finished[0]), "rev": "main", "path": "data/exported", "sha256": None,
        "max_mib": None,
    }  # fmt: skip
    yaml.dump(recipe, copy / RECIPE)

    assert ran(run(copy, "dvc", "repro", "download@model")) == ["download@model"]
    assert (
        digests(copy / "data/model", ".")["weights/model.safetensors"]
        == digests(copy / "data/exported", ".")["model.safetensors"]
    )
    record = json.loads((copy / "data/model/provenance.json").read_text())
    assert record["resolved"]["commit"] == run(finished[0], "git", "rev-parse", "HEAD").strip()


@pytest.mark.parametrize("name", [name if name in ("download@corpus", "report") else slow(name) for name in ALL])
def test_a_stage_whose_code_changes_meanwhile_writes_nothing(copy: Path, name: str) -> None:
    before = digests(copy, "data", "metrics")
    module = f"stages.{name.replace('@', '_')}"
    script = copy / f"{module.replace('.', '/')}.py"
    # Between what it begins with and its work, it edits a file that it depends on.
    edit = "from pathlib import Path; Path('finetrail/errors.py').open('a').write('# edited'); "
    begin, guard, end = script.read_text().partition('if __name__ == "__main__":\n    ')
    script.write_text(begin + guard + edit + end)

    printed = run(copy, sys.executable, "-m", module, fails=True)

    assert printed.splitlines()[-1] == (
        f"error: finetrail/errors.py changed while {name} ran, and DVC would record that as what made the output; "
        "nothing was written: run it again, or undo the change before"
    )
    assert digests(copy, "data", "metrics") == before
    assert not list(copy.rglob("*.partial"))


def test_a_failing_stage_tells_one_line_and_loses_nothing(copy: Path) -> None:
    before = digests(copy, "data")
    recipe = copy / RECIPE
    original = recipe.read_text()
    recipe.write_text(re.sub(r"(?m)^(    path: ).*toy\.txt$", r"\1nowhere.txt", original))

    printed = run(copy, "dvc", "repro", fails=True)

    assert "error: file source nowhere.txt: no such file; expected a file, a folder or a glob" in printed
    assert "Traceback" not in printed
    recipe.write_text(original)
    run(copy, "dvc", "checkout")
    assert digests(copy, "data") == before
    assert "up to date" in run(copy, "dvc", "repro")


def test_a_typing_error_fails_before_anything_is_imported(copy: Path) -> None:
    recipe = copy / RECIPE
    recipe.write_text(recipe.read_text().replace("max_metric_drop: 0.5", "max_metric_drop: much"))
    for stage in ("train", "export"):
        printed = run(copy, sys.executable, "-X", "importtime", "-m", f"stages.{stage}", fails=True)
        assert (
            "error: recipes/token_classification/toy.yaml: export.max_metric_drop: should be a valid number" in printed
        )
        assert "Traceback" not in printed
        assert "pydantic" in printed and not re.search(
            r"\| +(torch|transformers|datasets|numpy)$", printed, re.MULTILINE
        )
