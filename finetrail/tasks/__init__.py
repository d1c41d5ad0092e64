"""The tasks: one folder each, with the same modules; looked up by name."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

from finetrail.errors import UserError


def names() -> list[str]:
    """Return the tasks that this project has, sorted."""
    return sorted(folder.name for folder in Path(__file__).parent.iterdir() if (folder / "settings.py").is_file())


def module(task: str, part: str) -> ModuleType:
    """Import one part of a task, such as settings, encoding or scoring."""
    if task not in names():
        raise UserError(f"params.yaml: task: there is no {task!r}; expected one of {', '.join(names())}")
    return import_module(f"finetrail.tasks.{task}.{part}")
