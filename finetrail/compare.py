"""Tests whether finished runs differ by more than chance, and lists the examples that changed.

python -m finetrail.compare HEAD workspace                       # two runs, by the examples of their test split
python -m finetrail.compare main exp-one exp-two                 # several, each against the first
python -m finetrail.compare text_classification/bbc-news text_classification/mine    # recipes over several seeds
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from finetrail import stage
from finetrail.comparison import page, runs, seeds, words
from finetrail.comparison.pairs import Compared, compare
from finetrail.comparison.runs import System, Unavailable
from finetrail.comparison.words import Corrected
from finetrail.evaluation.significance import Settings
from finetrail.reporting.summary import Series

DEFAULTS = Settings(samples=10_000, confidence=0.95, seed=42)


def main() -> None:
    """Compare each system with the first one, and print the result."""
    options = arguments()
    root = Path.cwd()
    first, *others = (runs.system(root, name) for name in (options.first, *options.others))
    settings = Settings(samples=options.samples, confidence=options.confidence, seed=options.seed)
    try:
        found = [compare(root, first, other, settings) for other in others]
    except Unavailable as error:
        if min(len(system.runs) for system in (first, *others)) < 2:
            raise
        stage.log(f"of the seeds alone, because predictions are missing: {error}\n")
        print("\n\n".join(by_seed(first, other) for other in others))
        return
    p_values, of_slices = words.corrected(found), words.corrected_slices(found)
    if options.page:
        with stage.output(options.page) as file:
            html = page.render(found, p_values, of_slices, settings, [first, *others], curves(root, [first, *others]))
            file.write_text(html, encoding="utf-8")
        stage.log(f"page: {options.page}")
    if options.json:
        records = [record(*of_one, settings) for of_one in zip(found, p_values, of_slices, strict=True)]
        print(json.dumps(records, indent=2, ensure_ascii=False))
        return
    for one, other, of_one, of_parts in zip(found, others, p_values, of_slices, strict=True):
        if one.seeds:
            print(f"{by_seed(first, other)}\n")
        parts = [words.table(one, of_one), words.verdict(one, of_one, settings)]
        parts += [words.slices(one, of_parts, settings)] if one.slices else []
        print("\n\n".join([*parts, words.examples(one, options.show)]), end="\n\n")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    summary, _, usage = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m finetrail.compare",
        description=summary,
        epilog=usage,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("first", metavar="RUN", help="the baseline")
    parser.add_argument(
        "others",
        nargs="+",
        metavar="RUN",
        help="compared with the baseline. A run is a commit, branch, tag or experiment, or workspace; several, "
        "separated by commas, are the seeds of one system, and TASK/RECIPE means all experiments of a recipe",
    )
    parser.add_argument(
        "--samples", type=_positive, default=DEFAULTS.samples, help="resamplings (default: %(default)s)"
    )
    parser.add_argument(
        "--confidence", type=_fraction, default=DEFAULTS.confidence, help="of the intervals (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=DEFAULTS.seed, help="of the resamplings (default: %(default)s)")
    parser.add_argument("--show", type=int, default=5, help="changed examples to list (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead, with all changed examples")
    parser.add_argument("--page", type=Path, metavar="FILE", help="also write an HTML page")
    return parser.parse_args()


def record(found: Compared, p_values: Corrected, of_slices: list[float], settings: Settings) -> dict[str, Any]:
    """Return a comparison as JSON values."""
    scores = {name: asdict(one) | {"p_corrected": p_values.get(name)} for name, one in found.scores.items()}
    parts = [
        {"slicing": part.slicing, "slice": part.slice, "examples": part.examples, **asdict(part.score)}
        | {"p_corrected": p, "significant": not words.is_noise(p, settings)}
        for part, p in zip(found.slices, of_slices, strict=True)
    ]
    return asdict(found) | {"scores": scores, "slices": parts}


def curves(root: Path, systems: list[System]) -> dict[str, dict[str, Series]]:
    """Return the curves of each system's first run; unavailable ones are logged and left out."""
    found = {}
    for system in systems:
        try:
            found[system.name] = runs.curves(root, system.runs[0])
        except Unavailable as error:
            stage.log(f"the page has no curves of {system.name}: {error}")
    return found


def by_seed(first: System, second: System) -> str:
    """Return the scores by seed, and the verdict that needs no predictions."""
    found = seeds.compare(*([run.record for run in system.runs] for system in (first, second)))
    names = (first.name, second.name)
    return f"{seeds.table(names, found)}\n\n{seeds.verdict(names, found)}"


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{value} is not positive")
    return value


def _fraction(text: str) -> float:
    if not 0 < (value := float(text)) < 1:
        raise argparse.ArgumentTypeError(f"{value} is not between 0 and 1")
    return value


def command() -> None:
    """Compare; a closed pipe of the reader is not an error."""
    with stage.printing():
        main()


if __name__ == "__main__":
    stage.run(command)
