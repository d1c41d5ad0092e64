"""The documents say what the files say: made parts are current, links lead somewhere."""

import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted(ROOT.glob("docs/*.md"))]


@pytest.fixture(scope="module")
def tables() -> Any:
    spec = spec_from_file_location("tables", ROOT / "docs/tables.py")
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name", ["README.md", *(f"docs/{name}.md" for name in ("results", "performance", "recipes", "scale", "reruns"))]
)
def test_made_parts_are_current(tables: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Drawing the graph needs `dvc` on the PATH, as in an activated environment.
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    text = (ROOT / name).read_text()

    assert tables.filled(text) == text, f"{name} is stale: run `make docs`"
    assert "<!-- end " in text


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_to_files(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text())

    assert [link for link in links if not (path.parent / link).exists()] == []


def test_make_lists_its_targets() -> None:
    printed = subprocess.run(["make"], cwd=ROOT, check=True, capture_output=True, text=True).stdout

    for target in ("run", "test", "lint", "check"):
        assert f"make {target} " in printed


def test_the_readme_lists_every_beginning_for_its_task() -> None:
    table = (ROOT / "README.md").read_text().partition("| task | begin with |")[2].partition("\n\n")[0]
    listed, task = set(), ""
    for row in table.splitlines()[2:]:
        cells = row.split("|")
        task = cells[1].strip(" `") or task
        first, *endings = re.findall(r"`([\w-]+)`", cells[2])
        listed |= {(task, first)} | {(task, f"bring-your-own{ending}") for ending in endings}
    assert listed == {(path.parent.name, path.stem) for path in ROOT.glob("recipes/*/bring-your-own-*.yaml")}
