"""Fine-tune transformers as a DVC pipeline, from a corpus to an exported model."""

from __future__ import annotations  # an old Python must reach the message below

import sys
from types import TracebackType


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Tell in one line that this Python lacks a package; show any other error, and modules of ours, as Python does."""
    package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if package in ("", "finetrail", "stages"):
        sys.__excepthook__(kind, error, trace)
        return
    print(
        f"error: {sys.executable} has no package {package}; expected the Python of the environment, first on the PATH: "
        "`make run` sets it up, `source .venv/bin/activate` activates it",
        file=sys.stderr,
    )


# The words of the command `python -m MODULE`. The hook is set before MODULE is imported, whose imports may fail.
_words = getattr(sys, "orig_argv", ["-m", "finetrail"])  # Python 3.10 and later
_module = _words[_words.index("-m") + 1] if "-m" in _words[:-1] else ""
if sys.argv[0] == "-m" and _module.partition(".")[0] in ("finetrail", "stages", "benchmarks"):
    sys.excepthook = _tell
