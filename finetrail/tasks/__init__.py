"""The tasks: one folder each, with the same modules; looked up by name."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from finetrail.errors import UserError

if TYPE_CHECKING:
    from finetrail.tasks import contract


def names() -> list[str]:
    """Return the tasks that this project has, sorted."""
    return sorted(folder.name for folder in Path(__file__).parent.iterdir() if (folder / "settings.py").is_file())


@overload
def module(task: str, part: Literal["settings"]) -> "contract.Settings": ...
@overload
def module(task: str, part: Literal["corpus"]) -> "contract.Corpus": ...
@overload
def module(task: str, part: Literal["concerns"]) -> "contract.Concerns": ...
@overload
def module(task: str, part: Literal["encoding"]) -> "contract.Encoding": ...
@overload
def module(task: str, part: Literal["modeling"]) -> "contract.Modeling": ...
@overload
def module(task: str, part: Literal["validation"]) -> "contract.Validation": ...
@overload
def module(task: str, part: Literal["loading"]) -> "contract.Loading": ...
@overload
def module(task: str, part: Literal["metrics"]) -> "contract.Metrics": ...
@overload
def module(task: str, part: Literal["scoring"]) -> "contract.Scoring": ...
@overload
def module(task: str, part: Literal["serving"]) -> "contract.Serving": ...
@overload
def module(task: str, part: Literal["card"]) -> "contract.Card": ...
@overload
def module(task: str, part: Literal["demo"]) -> "contract.Demo": ...
def module(task: str, part: str) -> Any:
    """Import one module of a task, such as "scoring"; contract.py describes it. UserError for an unknown task."""
    if task not in names():
        raise UserError(f"params.yaml: task: there is no {task!r}; expected one of {', '.join(names())}")
    return import_module(f"finetrail.tasks.{task}.{part}")
