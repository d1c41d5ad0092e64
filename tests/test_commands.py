"""`python -m finetrail`: its commands, its speed, and the message of a Python without the packages."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from finetrail.__main__ import COMMANDS, help_text

ROOT = Path(__file__).parent.parent


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_a_module_that_runs_alone(name: str) -> None:
    file = ROOT / f"{COMMANDS[name][0].replace('.', '/')}.py"
    assert 'if __name__ == "__main__":' in file.read_text()
    assert re.search(rf"(?m)^  {name} +\S", help_text())


def test_help_imports_nothing_but_the_standard_library() -> None:
    done = python("-S", "-m", "finetrail")  # -S: without the installed packages
    assert (done.returncode, done.stdout, done.stderr) == (0, help_text() + "\n", "")
    assert python("-S", "-m", "finetrail", "--help").stdout == done.stdout


def test_a_command_gets_its_own_options() -> None:
    done = python("-m", "finetrail", "compare", "--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: python -m finetrail.compare ")


def test_an_unknown_command_is_told() -> None:
    done = python("-S", "-m", "finetrail", "comparee")
    assert (done.returncode, done.stderr) == (
        1,
        f"error: no command 'comparee'; expected one of {', '.join(COMMANDS)}\n",
    )


@pytest.mark.parametrize(
    "module", [("finetrail", "check"), ("finetrail.compare",), ("finetrail.exporting",), ("stages.train",)]
)
def test_a_python_without_the_packages_is_told_in_one_line(module: tuple[str, ...]) -> None:
    done = python("-S", "-m", *module)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert re.match(r"error: \S+ has no package \w+; expected the Python of the environment", done.stderr)
