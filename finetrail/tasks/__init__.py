"""The tasks: one folder each, with the same modules; looked up by name."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

from finetrail.errors import UserError

# Positions with this label do not count in the loss (the default ignore_index of torch's cross-entropy).
IGNORE_INDEX = -100

# Of all metrics; every other one is a score.
LOWER_IS_BETTER = ("bits_per_byte", "loss", "perplexity", "ece", "repetition_4", "mae", "rmse")


def names() -> list[str]:
    """Return the tasks that this project has, sorted."""
    return sorted(folder.name for folder in Path(__file__).parent.iterdir() if (folder / "settings.py").is_file())


def module(task: str, part: str) -> ModuleType:
    """Import one part of a task: settings, corpus, concerns, encoding, modeling, metrics, scoring, serving or card."""
    if task not in names():
        raise UserError(f"params.yaml: task: there is no {task!r}; expected one of {', '.join(names())}")
    return import_module(f"finetrail.tasks.{task}.{part}")
