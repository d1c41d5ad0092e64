"""Runs a target under Atheris until libFuzzer ends the process: `python -m benchmarks.fuzz.child TARGET FOLDER`.

Each kind of finding is kept once in FOLDER/findings, with the bytes that caused it, and does not end the run.
"""

import hashlib
import sys
import traceback
from contextlib import suppress
from pathlib import Path

import atheris  # type: ignore[import-not-found]

INSTRUMENTED = ["finetrail", "stages", "json", "csv", "zipfile", "tarfile", "gzip", "ruamel.yaml"]


def kind(error: BaseException) -> str:
    """Return what tells findings apart: the exception, and where in a file it was raised."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(last.filename).name}:{last.name}:{last.lineno}"


def main() -> None:
    name, folder, *options = sys.argv[1:]
    found, seeds = Path(folder) / "findings", Path(folder) / "seeds"
    for path in (found, seeds):
        path.mkdir(parents=True, exist_ok=True)
    with atheris.instrument_imports(include=INSTRUMENTED):
        from benchmarks.fuzz import mutators, targets

        target = targets.TARGETS[name]
        for seed in target.seeds():
            (seeds / hashlib.sha256(seed).hexdigest()).write_bytes(seed)
            with targets.empty_folder() as work, suppress(Exception):
                targets.outcome(target, seed, work)  # tasks and libraries are imported when they are first needed

    def one(data: bytes) -> None:
        with targets.empty_folder() as work:
            try:
                targets.outcome(target, data, work)
            except Exception as error:
                kind_found = kind(error)
                place = found / hashlib.sha256(kind_found.encode()).hexdigest()[:12]
                if not place.exists():
                    place.write_bytes(data)
                    place.with_suffix(".txt").write_text(f"{kind_found}\n{''.join(traceback.format_exception(error))}")
                    print(f"FOUND {kind_found}: {str(error)[:200]}", file=sys.stderr, flush=True)

    def mutated(data: bytes, most: int, seed: int) -> bytes:
        return mutators.MUTATORS[name](data, most, seed, atheris.Mutate)

    given = {"custom_mutator": mutated} if name in mutators.MUTATORS else {}
    atheris.Setup([name, *options, str(seeds)], one, **given)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
