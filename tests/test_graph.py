"""dvc.yaml against the code: a dependency that it leaves out would silently keep old results."""

import ast
import re
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from finetrail import params, tasks

ROOT = Path(__file__).parent.parent
PARTS = {path.stem for path in ROOT.glob("finetrail/tasks/*/*.py")}

_spec = spec_from_file_location("reruns", ROOT / "docs/reruns.py")
assert _spec and _spec.loader
reruns = module_from_spec(_spec)
_spec.loader.exec_module(reruns)
stages, fill, is_code = reruns.stages, reruns.fill, reruns.is_code


def module_of(stage: dict[str, Any]) -> Path:
    return ROOT / (stage["cmd"].split(" -m ")[1].replace(".", "/") + ".py")


def parts_of_the_task(tree: ast.Module) -> set[str]:
    """Return the parts that a stage looks up: tasks.module(task, "x"), or the same in a generator over ("x", "y")."""
    generators = [node for node in ast.walk(tree) if isinstance(node, ast.GeneratorExp)]
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "tasks.module"]
    lookups = [node for node in generators if "tasks.module(" in ast.unparse(node)]
    constants = (leaf for node in [*calls, *lookups] for leaf in ast.walk(node) if isinstance(leaf, ast.Constant))
    return {constant.value for constant in constants} & PARTS


@cache
def imports(path: Path, task: str) -> set[Path]:
    """Return the project files that a file imports, directly, anywhere in it, for one task."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    # Importing a.b.c imports the packages a and a.b first; `python -m stages.NAME` imports stages.
    split = [name.split(".") for name in names]
    names |= {".".join(parts[:depth]) for parts in split for depth in range(1, len(parts))}
    if path.parent.name == "stages":
        names.add("stages")
    names |= {f"finetrail.tasks.{task}.{part}" for part in parts_of_the_task(tree)}
    if path == ROOT / "finetrail/params.py":
        names.add(f"finetrail.tasks.{task}.settings")
    files = {ROOT / (name.replace(".", "/") + ending) for name in names for ending in (".py", "/__init__.py")}
    return {file for file in files if file.is_file() and file.is_relative_to(ROOT)}


@cache
def closure(path: Path, task: str) -> set[Path]:
    found, waiting = {path}, [path]
    while waiting:
        new = imports(waiting.pop(), task) - found
        found |= new
        waiting += new
    return found


def declared(name: str) -> list[str]:
    return [dep for dep in stages()[name]["deps"] if dep.startswith(("finetrail", "stages"))]


def covers(dep: str, task: str, file: Path) -> bool:
    path = ROOT / fill(dep, {"task": task})
    return path == file or path in file.parents


@pytest.mark.parametrize("task", tasks.names())
@pytest.mark.parametrize("name", stages())
def test_every_imported_file_is_a_dependency(name: str, task: str) -> None:
    missing = [dep for dep in declared(name) if not (ROOT / fill(dep, {"task": task})).exists()]
    assert not missing, f"dvc.yaml declares for {name} what {task} does not have"
    imported = filter(is_code, closure(module_of(stages()[name]), task))
    undeclared = [
        str(file.relative_to(ROOT)) for file in imported if not any(covers(dep, task, file) for dep in declared(name))
    ]
    assert sorted(undeclared) == [], f"{name} of {task} imports files that dvc.yaml does not declare"


@pytest.mark.parametrize("name", stages())
def test_every_dependency_on_code_is_imported(name: str) -> None:
    """By every task where it is a file of each, else by one of them at least."""
    imported = {task: closure(module_of(stages()[name]), task) for task in tasks.names()}
    for dep in declared(name):
        users = [task for task, files in imported.items() if any(covers(dep, task, file) for file in files)]
        assert users, f"dvc.yaml declares {dep} for {name}, which does not import it"
        if "${task}" in dep:
            assert users == tasks.names(), f"dvc.yaml declares {dep} for {name}, and not every task imports it"


# The laws of the table in docs/reruns.md. ${task} is the folder of the task that runs.
RERUN = {
    "finetrail/tasks/${task}/corpus.py": {"download@corpus"},
    "finetrail/tasks/${task}/encoding.py": {"tokenize"},
    "finetrail/tasks/${task}/modeling.py": {"teach", "train"},
    "finetrail/tasks/${task}/validation.py": {"train"},
    "finetrail/tasks/${task}/loading.py": {"evaluate", "export"},
    "finetrail/tasks/${task}/metrics.py": {"evaluate", "export"},
    "finetrail/tasks/${task}/scoring.py": {"evaluate", "export"},
    "finetrail/tasks/${task}/card.py": {"export"},
    "finetrail/tasks/${task}/serving.py": set(),
    "finetrail/tasks/${task}/demo.py": set(),
    "finetrail/corpus/readers.py": {"download@corpus"},
    "finetrail/model/base/probe.py": {"download@model"},
    "finetrail/model/losses.py": {"teach", "train"},
    "finetrail/model/distillation.py": {"teach", "train"},
    "finetrail/training/loop.py": {"train"},
    "finetrail/evaluation/slices.py": {"evaluate"},
    "finetrail/exporting/card.py": {"export"},
    "finetrail/reporting/page.py": {"report"},
    "finetrail/comparison/pairs.py": set(),
    "finetrail/inference.py": set(),
    "finetrail/schema/training.py": set(stages()),
}


@pytest.mark.parametrize("file", RERUN)
def test_a_change_reruns_these_stages_and_no_others(file: str) -> None:
    assert (ROOT / fill(file, {"task": "token_classification"})).is_file()
    assert reruns.dependents(file) == RERUN[file]


def test_no_stage_depends_on_a_task_that_does_not_run() -> None:
    of_tasks = {dep for name in stages() for dep in declared(name) if dep.startswith("finetrail/tasks")}
    assert all(dep.startswith("finetrail/tasks/${task}/") for dep in of_tasks - {"finetrail/tasks/__init__.py"})
    for task in tasks.names():
        others = [ROOT / "finetrail/tasks" / other for other in tasks.names() if other != task]
        for name in stages():
            assert not [file for file in closure(module_of(stages()[name]), task) if file.parent in others]


def test_what_writes_an_output_is_followed_by_all_that_read_it() -> None:
    assert reruns.followers({"evaluate"}) == {"export", "report"}
    assert reruns.followers({"teach"}) == {"train", "evaluate", "export", "report"}
    assert reruns.followers({"report"}) == set()
    assert reruns.followers({"download@model"}) == set(stages()) - {"download@model", "download@corpus"}


@pytest.mark.parametrize("name", stages())
def test_params_declared_are_those_read(name: str) -> None:
    tree = ast.parse(module_of(stages()[name]).read_text())
    call = re.compile(r"(?:params\.)?load\('([a-z@]+)'\)")
    variables, loaded = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.expr) and (match := call.fullmatch(ast.unparse(node))):
            loaded.add(match[1])
            variables.add(match[0])
        if isinstance(node, ast.Assign) and call.fullmatch(ast.unparse(node.value)):
            variables |= {ast.unparse(target) for target in node.targets}
    read = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in variables and node.attr != "load"
    } - {"task", "recipe"}
    overrides = {key for key, (section, _) in params.OVERRIDES.items() if section in read}

    assert loaded == {name}
    # task and recipe are in the file names that every stage depends on; only the report also writes them down.
    assert set(params.declared_keys(name)) - {"task", "recipe"} == read | overrides
    of_files = {str(file): set(keys) for entry in stages()[name].get("params", ()) if isinstance(entry, dict)
                for file, keys in entry.items()}  # fmt: skip
    of_recipe = of_files.get("recipes/${task}/${recipe}.yaml", set())
    assert of_files.get("recipes/${task}/defaults.yaml", set()) == of_recipe & set(params.DEFAULTED)


def test_data_dependencies_are_outputs_of_other_stages() -> None:
    outs = [Path(out) for stage in stages().values() for out in (*stage.get("outs", []), *stage.get("metrics", []))
            if isinstance(out, str)]  # fmt: skip
    for name, stage in stages().items():
        for dep in map(Path, stage["deps"]):
            if dep.parts[0] in ("data", "metrics"):
                assert any(dep == out or out in dep.parents for out in outs), f"{name} depends on {dep}"


def test_stages_import_no_stage() -> None:
    for path in (*ROOT.glob("stages/*.py"), *ROOT.glob("finetrail/**/*.py")):
        files = imports(path, "token_classification")
        modules = [file for file in files if file.parent.name == "stages" and file.name != "__init__.py"]
        assert not modules, f"{path} imports a stage"


TASKS = ROOT / "finetrail/tasks"


@cache
def contract() -> set[str]:
    """Return the modules that tasks/contract.py has a protocol for: the fields of conformance.Task."""
    tree = ast.parse((TASKS / "conformance.py").read_text())
    return {ast.unparse(node.target) for node in ast.walk(tree) if isinstance(node, ast.AnnAssign)}


def test_mypy_holds_every_task_to_the_contract() -> None:
    """conformance.py has a function per task; ruff tells if it imports a module and does not pass it on to Task."""
    tree = ast.parse((TASKS / "conformance.py").read_text())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    held = {one.name: {alias.name for node in one.body if isinstance(node, ast.ImportFrom) for alias in node.names}
            for one in functions}  # fmt: skip
    assert held == dict.fromkeys(tasks.names(), contract())


@pytest.mark.parametrize("task", tasks.names())
def test_training_and_evaluation_agree_on_the_directions(task: str) -> None:
    training, evaluation = (set(tasks.module(task, part).LOWER_IS_BETTER) for part in ("validation", "metrics"))
    assert "loss" in training  # which the engines report beside validate()'s scores
    assert training - {"loss"} <= evaluation


@pytest.mark.parametrize("task", tasks.names())
def test_a_module_that_the_contract_lacks_is_imported_by_another(task: str) -> None:
    starts = [*map(module_of, stages().values()), ROOT / "finetrail/inference.py"]
    used = {path for start in starts for path in closure(start, task)}
    others = {path for path in TASKS.glob(f"{task}/*.py") if path.stem not in contract() | {"__init__"}}
    assert others <= used


@pytest.mark.parametrize("task", tasks.names())
@pytest.mark.parametrize("name", stages())
def test_no_stage_imports_what_serves_people(name: str, task: str) -> None:
    served = [ROOT / "finetrail/inference.py", ROOT / "finetrail/tasks" / task / "serving.py"]
    assert not closure(module_of(stages()[name]), task) & set(served)


@pytest.mark.parametrize("task", tasks.names())
def test_light_stages_import_no_torch_and_train_no_scoring(task: str) -> None:
    """A task's module may hold no more than the stages that depend on it need."""
    folder = ROOT / "finetrail/tasks" / task
    for name, heavy in (
        ("download@corpus", {"torch", "transformers", "datasets"}),
        ("tokenize", {"torch", "datasets"}),
    ):
        for file in closure(module_of(stages()[name]), task):
            found = {module.split(".")[0] for module in imported_at_the_top(file)} & heavy
            assert not found, f"{name} of {task}: {file.relative_to(ROOT)} imports {found}"
    assert folder / "scoring.py" not in closure(module_of(stages()["train"]), task)


def imported_at_the_top(path: Path) -> set[str]:
    """Return the modules that importing a file imports: not those of its functions, nor for types only."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names
