"""Searches hyperparameters of a recipe in a declared space; each trial is a DVC experiment.

python -m finetrail.search searches/bbc-news.yaml             # starts, or resumes where it was stopped
python -m finetrail.search searches/bbc-news.yaml --jobs 2    # two trials at a time
python -m finetrail.search searches/bbc-news.yaml --show      # results so far; --json for programs
"""

import argparse
import importlib.util
import json
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from finetrail import stage
from finetrail.errors import UserError

if TYPE_CHECKING:
    from finetrail.searching.drive import Search


def main() -> None:
    """Run the remaining trials, and print the results."""
    options = arguments()
    if importlib.util.find_spec("optuna") is None:
        raise UserError("optuna is not installed; expected it: pip install 'optuna>=5'")
    from finetrail.searching import ending
    from finetrail.searching.drive import Search

    search = Search(Path.cwd(), options.space)
    if not options.show:
        run(search, options.jobs)
    begun, trials = search.begun, search.trials
    found = ending.ending(search.root, search.name, search.space.trials, begun, trials.all(), trials.study())
    print(json.dumps(ending.as_json(found), indent=2) if options.json else ending.as_text(found))


def arguments() -> argparse.Namespace:
    """Read the command line."""
    summary, _, usage = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m finetrail.search",
        description=summary,
        epilog=usage,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("space", type=Path, metavar="SPACE", help="YAML file with what to try; see docs/searching.md")
    parser.add_argument("--jobs", type=_positive, default=1, help="trials at a time (default: %(default)s)")
    parser.add_argument("--show", action="store_true", help="run nothing")
    parser.add_argument("--json", action="store_true", help="print JSON instead")
    return parser.parse_args()


def run(search: "Search", jobs: int) -> None:
    """Run trials until none is left; a signal that ends this process ends them too, and the next call resumes them."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        search.begin()
        with ThreadPoolExecutor(jobs) as pool:
            try:
                for done in as_completed([pool.submit(search.work, stop) for _ in range(jobs)]):
                    done.result()
            finally:
                stop.set()
    except KeyboardInterrupt:
        stage.log(f"{search.name}: stopped; the same command resumes its unfinished trials")
        sys.exit(130)
    search.clear()


def _interrupt(*_: Any) -> NoReturn:
    raise KeyboardInterrupt


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{value} is not positive")
    return value


if __name__ == "__main__":
    stage.run(main)
