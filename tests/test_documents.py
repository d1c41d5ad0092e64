"""The documents say what the files say: made parts are current, links lead somewhere, commands exist and run."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from dvc.cli import DvcParserError, parse_args
from ruamel.yaml import YAML

from finetrail.__main__ import COMMANDS

ROOT = Path(__file__).parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "SECURITY.md", "tests/README.md")),
    *sorted(ROOT.glob("docs/*.md")),
]
# A block of commands, and why it is not run here, where a comment above it says so.
BLOCK = re.compile(r"(?ms)^(?:<!-- not run: ([^\n]+) -->\n)?```bash\n(.*?)^```")
# Commands that are no part of the project.
TOOLS = {
    "bash", "cd", "cp", "curl", "docker", "git", "mkdir", "pip", "pre-commit", "ray", "source", "tar", "tensorboard",
    "uv", "xdg-open", "$EDITOR",
}  # fmt: skip
# Placeholders for the reader's own names.
OWN = {"mine"}
# What a command of a page writes, or its example adds.
LATER = {"benchmarks/results/accelerator.json", "finetrail/corpus/fasttext.py", "finetrail/sources/git.py"}


@pytest.fixture(scope="module")
def tables() -> Any:
    spec = spec_from_file_location("tables", ROOT / "docs/tables.py")
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_made_parts_are_in_the_documents_that_make_docs_writes(tables: Any) -> None:
    made = {path.relative_to(ROOT).as_posix() for path in PAGES if "<!-- end " in path.read_text()}

    assert made == set(tables.DOCUMENTS)


@pytest.mark.parametrize(
    "name",
    ["README.md", *(f"docs/{name}.md" for name in ("results", "performance", "recipes", "scale", "using", "reruns"))],
)
def test_made_parts_are_current(tables: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Drawing the graph needs `dvc` on the PATH, as in an activated environment.
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    text = (ROOT / name).read_text()

    assert tables.filled(text) == text, f"{name} is stale: run `make docs`"


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a document."""
    headings = re.findall(r"(?m)^#{1,4} (.+)$", re.sub(r"(?ms)^```.*?^```", "", text))
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", heading.lower())) for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_to_files_and_headings(path: Path) -> None:
    wrong = []
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)]+))?\)", path.read_text()):
        file = path.parent / target if target else path
        if not file.exists() or (anchor and anchor not in anchors(file.read_text())):
            wrong.append(f"{target}#{anchor}")

    assert wrong == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_that_a_page_names_exist(path: Path) -> None:
    named = set(
        re.findall(r"[ `(]((?:finetrail|stages|tests|benchmarks|searches|docs)/[\w/.-]+\.\w+)", path.read_text())
    )

    assert {
        name
        for name in named
        if not {"NAME", "TASK"} & set(re.split("[/.]", name)) and name not in LATER and not (ROOT / name).exists()
    } == set()


def test_the_site_has_every_page_in_its_navigation() -> None:
    def pages(entry: Any) -> Iterator[str]:
        for one in entry if isinstance(entry, list) else entry.values() if isinstance(entry, dict) else []:
            yield from [one] if isinstance(one, str) else pages(one)

    nav = list(pages(tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]))
    written = {path.name for path in ROOT.glob("docs/*.md")} | {"architecture.md", "security.md"}
    assert len(nav) == len(set(nav)) and set(nav) == written


def blocks() -> list[tuple[str, str, str]]:
    """Return (name of the page, why it is not run or "", commands) of each block."""
    return [(path.name, *found) for path in PAGES for found in BLOCK.findall(path.read_text())]


def simple_commands(block: str) -> Iterator[list[str]]:
    """Yield the words of each command of a block, without variables that are set before it."""
    for line in block.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(re.sub(r"\$\([^)]*\)", "OUTPUT", line), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word.strip(";&|()<>"):
                words.append(word)
                continue
            while words and (words[0] in ("do", "done") or re.match(r"\w+=", words[0])):
                del words[0]
            if words and words[0] != "for":
                yield words
            words = []


def setting_is_wrong(setting: str) -> bool:
    """Return True if the target of `-S` does not exist: FILE:key.path=value, or key=value of params.yaml."""
    target, _, value = setting.partition("=")
    file, _, key = target.rpartition(":")
    if file.startswith("$"):
        return False
    if target in ("task", "recipe"):
        found = {path.parent.name if target == "task" else path.stem for path in ROOT.glob("recipes/*/*.yaml")}
        return not set(value.split(",")) <= found | OWN
    node: Any = YAML(typ="safe").load(ROOT / (file or "params.yaml"))
    *sections, last = key.lstrip("+").split(".")
    for section in sections:
        node = node[section]
    return last not in node and not key.startswith("+")


def wrong_in(words: list[str]) -> str:
    """Return what is wrong with a command, or nothing."""
    name, *arguments = words
    if name == "make":
        targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))
        return " ".join({word for word in arguments if "=" not in word} - targets)
    if name == "dvc":
        try:
            # A variable means further options, unless it is the value of an option.
            kept = [word for before, word in pairwise(words) if word[0] != "$" or before[0] == "-"]
            parsed = parse_args(kept)
        except DvcParserError:
            return "refused by DVC's parser"
        return " ".join(filter(setting_is_wrong, getattr(parsed, "set_param", None) or []))
    if name in ("python", "python3"):
        return wrong_in_python(arguments)
    return "" if name in TOOLS else "unknown"


def wrong_in_python(arguments: list[str]) -> str:
    if arguments[:1] == ["-c"] or arguments[:2] == ["-m", "pip"] or arguments == ["-m", "finetrail"]:
        return ""
    if arguments[0] == "-m":
        module = COMMANDS[arguments[2]][0] if arguments[1] == "finetrail" else arguments[1]
        path = ROOT / module.replace(".", "/")
        file = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    else:
        file = ROOT / arguments[0]
    if not file.is_file():
        return f"no file {file}"
    source = file.read_text()
    options = {word for word in arguments if word.startswith("--")}
    files = {word for word in arguments if word.startswith(("recipes/", "searches/"))}
    return " ".join(
        {one for one in options if f'"{one}"' not in source} | {one for one in files if not Path(ROOT, one).is_file()}
    )


def test_commands_in_the_documents_exist_with_their_options() -> None:
    found = [(page, words) for page, _, block in blocks() for words in simple_commands(block)]

    assert len(found) > 100
    assert [(page, words, wrong) for page, words in found if (wrong := wrong_in(words))] == []


@pytest.mark.parametrize(
    "command",
    [
        "make runn", "dvc exp runn", "dvc exp run --nme x", "dvc exp run -S sed=1", "dvc exp run -S recipe=wnut17",
        "dvc exp run -S 'recipes/token_classification/wnut16.yaml:train.lrr=1'",
        "python -m finetrail compare --sed 1 a b", "python docs/tabels.py",
        "python -m finetrail.search searches/none.yaml", "mak run",
    ],
)  # fmt: skip
def test_a_command_that_does_not_exist_is_found(command: str) -> None:
    assert [wrong for words in simple_commands(command) if (wrong := wrong_in(words))]


@pytest.mark.slow  # trains a toy model three times
def test_the_commands_that_are_not_marked_run(make_project: Callable[[Path], Path], tmp_path: Path) -> None:
    """In the order of the pages, in a project whose wnut16 is the toy recipe, with a Git server and a DVC remote."""
    folder = make_project(tmp_path)
    recipes = folder / "recipes/token_classification"
    shutil.move(recipes / "toy.yaml", recipes / "wnut16.yaml")
    for name in ("Makefile", "params.yaml"):
        shutil.copy(ROOT / name, folder)
    (folder / "setup.sh").write_text("")  # nothing is installed
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".venv/bin/activate").touch()
    (folder / "new.csv").write_text("text\nAda Lovelace was born in London.\n")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    git = {f"GIT_{who}_{what}": "toy@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}

    def bash(commands: str) -> None:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands], cwd=folder, env=os.environ | git | {"PATH": path},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert done.returncode == 0, f"{commands}\n{done.stdout}"

    bash("git init --quiet --initial-branch=main && git add --all && git commit --quiet --message=before")
    bash("git init --quiet --bare ../origin && git remote add origin ../origin")
    bash("git push --quiet --set-upstream origin main")
    bash('dvc remote add --quiet --default team "$(realpath ..)/remote" && git commit --quiet --all --message=remote')
    ran = [(page, block) for page, why, block in blocks() if not why]
    assert len(ran) >= 8
    for _, block in sorted(ran, key=lambda one: one[0] != "daily-loop.md"):  # which trains what the others use
        bash(block)


def test_make_lists_its_targets() -> None:
    printed = subprocess.run(["make"], cwd=ROOT, check=True, capture_output=True, text=True).stdout

    for target in ("run", "test", "test-fast", "lint", "check", "site"):
        assert f"make {target} " in printed


def test_the_corpus_page_lists_every_beginning_for_its_task() -> None:
    table = (ROOT / "docs/corpora.md").read_text().partition("| task | template |")[2].partition("\n\n")[0]
    listed, task = set(), ""
    for row in table.splitlines()[2:]:
        cells = row.split("|")
        task = cells[1].strip(" `") or task
        first, *endings = re.findall(r"`([\w-]+)`", cells[2])
        listed |= {(task, first)} | {(task, f"bring-your-own{ending}") for ending in endings}
    assert listed == {(path.parent.name, path.stem) for path in ROOT.glob("recipes/*/bring-your-own-*.yaml")}


def test_the_readme_of_tests_names_each_file_once() -> None:
    text = (ROOT / "tests/README.md").read_text()
    named = [link for row in re.findall(r"(?m)^\| .* \|$", text) for link in re.findall(r"\]\((\S*?test_\S+)\)", row)]
    assert sorted(named) == sorted(
        path.relative_to(ROOT / "tests").as_posix() for path in ROOT.glob("tests/**/test_*.py")
    )


def strings(path: Path) -> Iterator[str]:
    """Yield the strings of a module, with … for inserted values; adjacent strings are joined."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)


def test_messages_of_the_troubleshooting_page_are_in_the_code() -> None:
    rows = re.findall(r"(?m)^\| message \|.*\n\| ---.*\n((?:\|.*\n)+)", (ROOT / "docs/troubleshooting.md").read_text())
    quoted = [row.split("`")[1] for table in rows for row in table.splitlines()]
    said = [
        text for folder in ("finetrail", "stages") for path in (ROOT / folder).rglob("*.py") for text in strings(path)
    ]

    assert len(quoted) > 40
    patterns = {one: re.compile(".*".join(map(re.escape, one.split("…"))), re.DOTALL) for one in quoted}
    assert [one for one, pattern in patterns.items() if not any(map(pattern.search, said))] == []


def test_names_of_tests_have_at_most_60_characters() -> None:
    names = [
        name for path in ROOT.glob("tests/**/test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
    ]
    assert len(names) > 1000 and [name for name in names if len(name) > 60] == []
