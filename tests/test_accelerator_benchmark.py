"""The benchmark for GPUs, tiny and on the CPU: all parts run, with the packages that such a machine has or gets."""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

from benchmarks.accelerator import BUDGETS, __main__
from benchmarks.accelerator.cases import CASES, CASES_TINY, SIDES, Case, work
from benchmarks.accelerator.watch import union

ROOT = Path(__file__).parent.parent
# What images for training on GPUs have, as far as it is in requirements.lock; not datasets, pydantic and ruamel-yaml.
THERE = """
accelerate aiohappyeyeballs aiohttp aiosignal annotated-doc anyio attrs certifi charset-normalizer click
cloudpickle colorama contourpy cycler filelock flatbuffers fonttools frozenlist fsspec h11 hf-xet httpcore
httpcore2 httpx httpx2 huggingface-hub idna iniconfig jinja2 joblib kiwisolver markdown-it-py markupsafe
matplotlib mdurl ml-dtypes mpmath msgpack multidict narwhals networkx numpy nvidia-ml-py onnx onnx-ir
onnxruntime onnxscript packaging pandas pathspec peft pillow pip propcache protobuf psutil pyarrow pygments
pyparsing python-dateutil pytz pyyaml regex requests rich safetensors scikit-learn scipy sentence-transformers
setuptools shellingham six sortedcontainers sympy tabulate threadpoolctl tokenizers torch tqdm transformers
truststore typer tzdata urllib3 yarl
"""
# In every process: no module of another distribution is to be found.
HIDING = """
import importlib.machinery
hidden = {hidden!r}
found = importlib.machinery.PathFinder.find_spec

def find_spec(name, path=None, target=None):
    spec = found(name, path, target)
    inside = spec and "site-packages" in str(spec.origin or list(spec.submodule_search_locations or []))
    return None if inside and name.partition(".")[0] in hidden else spec

importlib.machinery.PathFinder.find_spec = find_spec
"""


def carried() -> set[str]:
    """Return the packages that wheels.sh fetches."""
    script = (ROOT / "benchmarks/wheels.sh").read_text()
    [names] = re.findall(r'(?s)^packages="(.*?)"', script, re.MULTILINE)
    return {*names.split(), *re.findall(r"\(locked ([a-z-]+)\)", script)}


def run(folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.accelerator", str(folder), *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | (environment or {}), capture_output=True, text=True, timeout=580
    )


# All parts in processes of their own take 150 s on two cores.


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The folder and the process of a whole run in which only those packages are to be found."""
    folder = tmp_path_factory.mktemp("accelerator")
    names = {name: {re.sub(r"[._]", "-", dist).lower() for dist in of} for name, of in packages_distributions().items()}
    hidden = sorted(module for module, of in names.items() if not of & ({*THERE.split()} | carried()))
    assert {"dvc", "dvclive", "ray"} & set(hidden)
    (folder / "hiding").mkdir()
    (folder / "hiding/sitecustomize.py").write_text(HIDING.format(hidden=hidden))
    done = run(folder, "--device", "cpu", "--tiny", environment={"PYTHONPATH": str(folder / "hiding")})
    return folder, done


def logs(folder: Path) -> str:
    return "\n".join(path.read_text()[-3000:] for path in folder.glob("*.log"))


@pytest.mark.slow
def test_all_parts_succeed_without_dvc(whole: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = whole
    assert done.returncode == 0, done.stdout + done.stderr + logs(folder)
    [record] = json.loads((folder / "results.json").read_text()).values()
    assert list(record["parts"]) == list(BUDGETS)
    for name, part in record["parts"].items():
        assert part["failures"] == []
        assert json.loads((folder / f"{name}.json").read_text()).items() >= part["result"].items()


@pytest.mark.slow
def test_the_table_stands_last(whole: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    table = whole[1].stdout.splitlines()
    rows = [line.split(maxsplit=2) for line in table[len(BUDGETS) :]]
    assert {row[0] for row in rows} == {*BUDGETS, "all"}
    assert {tuple(row[:2]) for row in rows} >= {(name, "ok") for name in BUDGETS}


@pytest.mark.slow
def test_each_side_of_each_case_is_there(whole: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    found = json.loads((whole[0] / "speed.json").read_text())
    assert found["not_measured"] == []
    assert set(found["cases"]) == {case.name for case in CASES_TINY}
    for case in CASES_TINY:
        for side in case.sides:
            figures = found["cases"][case.name][side]
            assert "not_available" in figures or figures["useful_tokens_per_second"] > 0
    assert found["seconds_from_start_to_first_update"].keys() == {"plain", "ours"}


@pytest.mark.slow
def test_a_part_that_is_stopped_costs_the_others_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(BUDGETS, "machine", 0.01)
    arguments = ["accelerator", str(tmp_path), "--device", "cpu", "--tiny", "--only", "machine", "inference"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as ended:
        __main__.main()
    table = capsys.readouterr().out
    assert ended.value.code == 1
    assert "stopped after its budget of 0 s" in table and re.search(r"(?m)^inference +ok", table), table


def test_a_failure_is_a_line_in_the_table_and_a_traceback_in_log(tmp_path: Path) -> None:
    done = run(tmp_path, "--device", "cuda", "--tiny", "--only", "machine", environment={"CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 1
    assert re.search(r"(?m)^machine +failure ", done.stdout)
    assert "Traceback" in (tmp_path / "machine.log").read_text()


@pytest.mark.parametrize("case", [*CASES, *CASES_TINY], ids=lambda case: case.name)
def test_cases_name_sides_that_exist(case: Case) -> None:
    assert set(case.sides) <= SIDES.keys()


def test_operations_of_a_small_encoder() -> None:
    case = CASES_TINY[0]
    needs = work(case, tiny=True)
    layer = 4 * (32 * 32 + 32) + (32 * 64 + 64) + (64 * 32 + 32) + 2 * 2 * 32
    head = (32 * 32 + 32) + (2 * 32 + 2)  # pooler, classifier of two labels
    norm = 2 * 32  # of the embeddings
    assert needs.weights == 2 * layer + head + norm
    assert needs.operations(10, 100) == 6 * needs.weights * 10 + 12 * 2 * 32 * 100


def test_union_of_spans() -> None:
    assert union([(5, 7), (0, 2), (1, 3), (6, 6.5)]) == 5


@pytest.mark.slow
def test_rows_of_results_that_are_kept(whole: tuple[Path, subprocess.CompletedProcess[str]], monkeypatch: Any) -> None:
    """docs/tables.py makes a table of any results.json."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import tables

    (whole[0] / "benchmarks/results").mkdir(parents=True)
    (whole[0] / "benchmarks/results/accelerator.json").write_text((whole[0] / "results.json").read_text())
    monkeypatch.setattr(tables, "ROOT", whole[0])
    made = tables.accelerator()
    assert "tiny models" in made
    assert all(f"| {case.name} | {side} |" in made for case in CASES_TINY for side in case.sides)
    cells = {line.count("|") for line in made.splitlines() if line.startswith("| text_classification bert-base")}
    assert cells == {9}
