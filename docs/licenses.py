"""Writes docs/licenses.md: the licence that each package of requirements.lock states of itself.

python docs/licenses.py        # `make docs` calls it
"""

import re
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from finetrail.sources.package import license_of  # noqa: E402

FILE = ROOT / "docs/licenses.md"
INTRODUCTION = """# Licences of the packages

What the packages of requirements.lock state in their metadata; the texts are in the packages. `make docs` writes this
table from the installed ones. The report and the model card name those of the corpus and the base model.

- Packages marked "not installed" are for other systems or Pythons than the one that wrote the table.
- The packages of requirements-cuda.lock are not in it. They are under NVIDIA's own terms, except triton (MIT),
  cuda-bindings, cuda-pathfinder and nvidia-nvtx (Apache 2.0), and cuda-toolkit, which states none.
- Files in this repository that others wrote: uPlot (MIT, [its text](../finetrail/reporting/uplot/LICENSE)), and the
  scripts in `.dvc/plots/page.html` (BSD-3-Clause; the text is in the file).

| package | version | licence |
| --- | --- | --- |
"""


def locked() -> list[tuple[str, str]]:
    """Return the name and version of each package of the lock file."""
    return re.findall(r"(?m)^([a-z0-9-]+)==([^ ]+)", (ROOT / "requirements.lock").read_text())


def stated(name: str) -> str:
    """Return the licence of an installed package, in a line."""
    try:
        return (license_of(distribution(name)) or "only its text").replace("|", "\\|")
    except PackageNotFoundError:
        return "not installed"


def document() -> str:
    """Return the whole of licenses.md."""
    return INTRODUCTION + "".join(f"| {name} | {version} | {stated(name)} |\n" for name, version in locked())


if __name__ == "__main__":
    FILE.write_text(document(), encoding="utf-8")
