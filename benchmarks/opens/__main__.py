"""Which tool opens which exported folder, and does it answer as transformers with torch does?

python -m benchmarks.opens FOLDER [--only TOOL ...]    (FOLDER keeps the small models, and the tools' own releases)

The tools come from the package indexes of Python (with pip) and of Node.js (npm); Node.js and Chromium must exist. The
column of a tool that cannot be installed says so. torch and other requirements come from this environment.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import RESULTS, keep
from benchmarks.opens import cases

HERE = Path(__file__).parent
OLD = ["transformers==4.57.6", "huggingface-hub==0.36.2", "tokenizers==0.22.2", "optimum==2.3.0", "optimum-onnx==0.1.0"]
NODE = "@huggingface/transformers@4.3.2"
REFERENCE = "transformers 5"
CLOSE, CLOSE_INT8 = 1e-4, 0.1  # of probabilities, and of the numbers of vectors of length 1

Answers = dict[str, dict[str, Any]]


class Tool(NamedTuple):
    """A column: what runs the scripts beside this file, and how near its numbers must be."""

    label: str
    command: Callable[[Path, Path], list[str]]  # folder of the tools, file to write -> command
    old: bool = False
    close: float = CLOSE
    cases: tuple[str, ...] = tuple(cases.CASES)


def python(tool: str, file: str = "") -> Callable[[Path, Path], list[str]]:
    return lambda folder, output: [sys.executable, str(HERE / "in_python.py"), tool, file, str(output)]


def node(dtype: str) -> Callable[[Path, Path], list[str]]:
    module = "node_modules/@huggingface/transformers/dist/transformers.node.mjs"
    return lambda folder, output: ["node", str(HERE / "in_node.mjs"), str(folder / module), dtype, str(output)]


def browser(folder: Path, output: Path) -> list[str]:
    return [sys.executable, str(HERE / "in_browser.py"), str(folder.parent), str(output)]


INT8 = Path(cases.ONNX_FILES["onnx_int8"]).name
TOOLS = {
    REFERENCE: Tool(f"transformers {version('transformers')}", python("transformers")),
    "transformers 4": Tool("transformers 4.57.6", python("transformers"), old=True),
    "optimum": Tool("optimum-onnx 0.1.0", python("optimum"), old=True),
    "optimum int8": Tool("optimum-onnx 0.1.0, int8", python("optimum", INT8), old=True, close=CLOSE_INT8),
    "transformers.js": Tool("transformers.js 4.3.2", node("fp32")),
    "transformers.js int8": Tool("transformers.js 4.3.2, q8", node("q8"), close=CLOSE_INT8),
    # It loads int8 there by default.
    "browser": Tool("transformers.js 4.3.2, in Chromium", browser, close=CLOSE_INT8),
    "sentence-transformers": Tool(
        f"sentence-transformers {version('sentence-transformers')}", python("sentence_transformers"),
        cases=("retrieval",),
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", metavar="TOOL", help=f"of {', '.join(TOOLS)}; the others' columns stay")
    options = parser.parse_args()
    folder = options.folder.absolute()
    made = cases.make(folder / "cases")
    tools = fetched(folder / "tools")
    asked = [{"name": name, "task": case.task, "folder": str(made[name]), "inputs": case.inputs}
             for name, case in cases.CASES.items()]  # fmt: skip
    expected = answers(TOOLS[REFERENCE], asked, tools)
    kept = RESULTS / "opens.json"
    found = json.loads(kept.read_text())["cells"] if options.only and kept.exists() else {}
    for name, tool in TOOLS.items():
        if not options.only or name in options.only:
            given = expected if name == REFERENCE else answers(tool, asked, tools)
            found[name] = {case: judged(given[case], expected[case], tool) for case in tool.cases}
    cells = {name: found[name] for name in TOOLS if name in found}
    keep("opens", {"tools": {name: tool.label for name, tool in TOOLS.items()}, "cells": cells})


def fetched(folder: Path) -> Path:
    """Install the tools that this environment has not, each once."""
    site = folder / "python"
    if not site.exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), *OLD]
        subprocess.run(command, check=True)
    if not (folder / "node_modules").exists() and shutil.which("npm"):
        # Without scripts: they fetch libraries for GPUs.
        command = ["npm", "install", "--silent", "--ignore-scripts", "--prefix", str(folder), NODE]
        subprocess.run(command, check=True)
    return folder


def answers(tool: Tool, asked: list[dict[str, Any]], folder: Path) -> Answers:
    """Return what a tool answers in each of its cases, or the error in words."""
    output, mine = folder / "answers.json", [case for case in asked if case["name"] in tool.cases]
    output.unlink(missing_ok=True)
    paths = {"PYTHONPATH": str(folder / "python")} if tool.old else {}
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"} | paths
    command = tool.command(folder, output)
    if shutil.which(command[0]) is None:
        return {name: {"error": f"{command[0]} is not here"} for name in tool.cases}
    subprocess.run(command, input=json.dumps(mine), text=True, env=environment, check=True)
    return dict(json.loads(output.read_text()))


def judged(found: dict[str, Any], expected: dict[str, Any], tool: Tool) -> str:
    """Return yes, or what is wrong in words."""
    if "error" in found:
        return f"no: {found['error']}"
    apart = max(
        (abs(one - other) for one, other in zip(found["numbers"], expected["numbers"], strict=False)), default=0
    )
    if len(found["numbers"]) != len(expected["numbers"]) or apart > tool.close:
        return f"no: other numbers (by {apart:.2g})"
    if list(map(plain, found["words"])) != list(map(plain, expected["words"])):
        return f"no: other words ({found['words']})"
    return "yes"


def plain(text: str) -> str:
    """Leave out what the tools write in ways of their own: letters' case and blanks, where they cut a text."""
    return "".join(text.lower().split())


if __name__ == "__main__":
    main()
