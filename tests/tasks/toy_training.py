"""The stage train in the project of a toy, which toys.projects() enters: what it writes, and its curves."""

from typing import Any

from accelerate.state import AcceleratorState
from ruamel.yaml import YAML

from finetrail import layout
from stages import train

ENGINES = list(train.ENGINES)


def configure(task: str, **changes: Any) -> None:
    """Change the recipe's section train."""
    path, yaml = layout.recipe_file(task, "toy"), YAML()
    recipe = yaml.load(path)
    recipe["train"].update(changes)
    yaml.dump(recipe, path)


def trained(task: str, **changes: Any) -> dict[str, bytes]:
    """Run the stage with changes to the recipe's section train; return its files."""
    configure(task, **changes)
    AcceleratorState._reset_state(reset_partial_state=True)
    train.main()
    files = (file for folder in (layout.TRAINED, layout.TRAIN_HISTORY) for file in folder.rglob("*") if file.is_file())
    return {file.as_posix(): file.read_bytes() for file in files}


def curve(files: dict[str, bytes], name: str) -> list[float]:
    lines = files[f"metrics/train/plots/metrics/{name}.tsv"].decode().splitlines()[1:]
    return [float(line.split("\t")[1]) for line in lines]
