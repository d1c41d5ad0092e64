"""Runs recipes and keeps their records in docs/results, from which docs/tables.py makes the tables.

python docs/results.py [TASK/RECIPE ...]    (or `make results`: every recipe whose corpus and model need no network)

Each runs in a clone that shares the project's DVC cache: the workspace stays as it is, and what ran before is not run
again.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs/results"


def main() -> None:
    """Run the recipes one after the other; the first that fails ends it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipes", nargs="*", metavar="TASK/RECIPE")
    names = parser.parse_args().recipes or runnable()
    for name in names:
        print(f"results: {name}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            kept = RESULTS / f"{name}.json"
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(run(name, Path(folder) / "clone"), kept)


def runnable() -> list[str]:
    """Return the recipes whose files are installed packages, made anew, or lie under corpora/."""
    found = []
    for path in sorted((ROOT / "recipes").glob("*/*.yaml")):
        if path.stem == "defaults":  # no recipe, but what the task's recipes share
            continue
        recipe = YAML(typ="safe").load(path)
        corpus = recipe["corpus"]
        sources = [one["source"] for one in (*corpus.get("parts", {"": corpus}).values(), recipe["model"])]
        sources += [corpus["rankings"]["source"]] if corpus.get("rankings") else []
        if all(is_here(source) for source in sources) and not path.stem.startswith("bring-your-own"):
            found.append(f"{path.parent.name}/{path.stem}")
    return found


def is_here(source: dict[str, str]) -> bool:
    """Return True if a source needs neither network nor an earlier run."""
    if source["kind"] == "file":
        return any(ROOT.glob(source["path"]))
    return source["kind"] in ("package", "new")


def run(name: str, clone: Path) -> Path:
    """Run one recipe in a clone of the last commit, and return its record."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    shown = subprocess.run(["dvc", "cache", "dir"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    cache = (ROOT / shown.strip()).resolve()
    subprocess.run(["dvc", "cache", "dir", "--local", str(cache)], cwd=clone, check=True)
    if (ROOT / "corpora").exists():
        (clone / "corpora").symlink_to((ROOT / "corpora").resolve())
    task, recipe = name.split("/")
    yaml = YAML()
    params = yaml.load(clone / "params.yaml")
    params.update(task=task, recipe=recipe)
    yaml.dump(params, clone / "params.yaml")
    subprocess.run(["dvc", "repro"], cwd=clone, check=True)
    return clone / "metrics/record.json"


if __name__ == "__main__":
    main()
