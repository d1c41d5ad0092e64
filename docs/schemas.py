"""Writes the JSON schemas by which editors check and explain params.yaml and the recipes of each task: docs/schemas.

python docs/schemas.py         # `make docs` calls it
"""

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from finetrail import params, schema, tasks  # noqa: E402

FOLDER = ROOT / "docs/schemas"
HEAD = {"$schema": "https://json-schema.org/draft/2020-12/schema"}


def schemas() -> dict[str, dict[str, Any]]:
    """Return the schema of params.yaml, and one for the recipes of each task."""
    models = {"params": schema.Params} | {task: of_recipes(task) for task in tasks.names()}
    return {name: HEAD | model.model_json_schema() for name, model in models.items()}


def of_recipes(task: str) -> Any:
    """Return the model of a task's recipes, of one corpus or of several."""
    settings = tasks.module(task, "settings")
    return params.recipe_model(settings, schema.sliced(settings.Corpus) | params.mixture(settings))


def text(one: dict[str, Any]) -> str:
    """Return a schema as its file has it."""
    return json.dumps(one, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, one in schemas().items():
        (FOLDER / f"{name}.json").write_text(text(one), encoding="utf-8")
