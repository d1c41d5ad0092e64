"""Prints every setting of a recipe that is in force, and the file that has it, as a recipe of its own.

python -m finetrail.recipe                       # the recipe of params.yaml, with the overrides of params.yaml
python -m finetrail.recipe masked_lm/imdb        # another one, TASK/NAME, without them
"""

import argparse
from copy import deepcopy
from io import StringIO
from typing import Any

from ruamel.yaml import YAML

from finetrail import layout, params, stage, upgrades
from finetrail.errors import UserError

COLUMN = 40  # of the comments


def main() -> None:
    """Validate the recipe and print it."""
    chosen = arguments().recipe
    if chosen is None:
        declared = params.load_params()
        task, name = declared.task, declared.recipe
    else:
        task, _, name = chosen.partition("/")
        if not name:
            raise UserError(f"{chosen}: expected TASK/NAME, such as masked_lm/imdb")
    recipe = params.load_recipe(task, name)
    content = in_order(params.read_recipe(layout.recipe_file(task, name)), recipe)
    if chosen is None:
        params.validate()
        content = with_overrides(content, declared)
    with stage.printing():
        print(text(content), end="")


def in_order(content: params.Content, recipe: Any) -> params.Content:
    """Return the settings of a valid recipe with the keys of each section in the order of the schema."""
    values = content.values.copy()
    for section in params.DEFAULTED:
        if isinstance(values[section], dict):
            fields = type(getattr(recipe, section)).model_fields
            values[section] = {key: values[section][key] for key in fields}
    return content._replace(values=values)


def with_overrides(content: params.Content, declared: Any) -> params.Content:
    """Return the settings with the overrides that params.yaml sets."""
    values, elsewhere = deepcopy(content.values), dict(content.elsewhere)
    for name, (section, key) in params.OVERRIDES.items():
        if (value := getattr(declared, name)) is not None:
            values[section][key], elsewhere[section, key] = value, layout.PARAMS
    return content._replace(values=values, elsewhere=elsewhere)


def text(content: params.Content) -> str:
    """Return the settings as YAML, each key of a section with the file that has its value as a comment."""
    lines: list[str] = []
    for section, value in content.values.items():
        if not isinstance(value, dict):
            lines += _lines(section, value, (section,), content)
            continue
        lines.append(f"{section}:")
        for key, inner in value.items():
            lines += [f"  {line}" for line in _lines(key, inner, (section, key), content)]
    return "\n".join(lines) + "\n"


def _lines(key: str, value: Any, place: upgrades.Path, content: params.Content) -> list[str]:
    """Return the lines of a key. The first has the comment: a value below it is of the same file."""
    buffer = StringIO()
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.default_flow_style, yaml.width = False, 1 << 20
    yaml.sort_base_mapping_type_on_output = False
    yaml.dump({key: value}, buffer)
    first, *others = buffer.getvalue().splitlines()
    comment = f"# {content.file(place).name}"
    return [f"{first:<{COLUMN - 2 * len(place)}}  {comment}", *others]


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m finetrail recipe",
        description="Print every setting of a recipe that is in force, and the file that has it.",
    )
    parser.add_argument("recipe", nargs="?", metavar="TASK/NAME", help="none: the recipe of params.yaml")
    return parser.parse_args()


if __name__ == "__main__":
    stage.run(main)
