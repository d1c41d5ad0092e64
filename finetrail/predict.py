"""Turns texts, or a file of inputs, into answers by an exported folder: python -m finetrail.predict.

Both are JSON Lines or tables, CSV and TSV; answers also have the formats of the task's serving module, such as
annotations for a tool.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

from finetrail import delimited, inference, stage, tasks
from finetrail.corpus.raw import lines, objects
from finetrail.errors import UserError
from finetrail.exporting.forms import ONNX_FILES

ENCODING = "utf-8"
JSON_LINES = "jsonl"
INPUTS_A_CALL = 1024  # bounds memory, whatever the size of the file; enough that batches are of similar lengths


def main() -> None:
    """Answer the inputs that the command line names, in order."""
    options = arguments()
    if options.output is not None and options.output.is_dir():
        raise UserError(f"--output {options.output} is a folder; expected a file")
    inputs = read(options)
    write = writer(options)
    first = next(inputs, None)  # before the model loads: a mistake in the command is reported at once
    if first is None:
        raise UserError(f"--input {options.input}: the file is empty; expected one input per line")
    predict = load(options.folder, options.runtime, options.batch_size, options.documents)
    with written(options.output) as file:
        for line in write(answers(predict, chain([first], inputs))):
            file.write(line + "\n")


def load(
    folder: Path,
    runtime: inference.Runtime,
    batch_size: int | None,
    documents: Path | None,
    threads: int | None = None,
) -> inference.Predict:
    """Load an exported folder, and the file of documents that retrieval searches."""
    read = {} if documents is None else dict(read_objects(documents))
    if runtime == "torch":
        stage.silence_transformers()
    return inference.load(
        folder,
        runtime,
        batch_size=batch_size,
        documents=None if documents is None else list(read.values()),
        document_places=None if documents is None else list(read),
        threads=threads,
    )


def arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m finetrail.predict", description="Answer inputs, in their order.")
    parser.add_argument("folder", type=Path, help="output of the export stage: data/exported, or a copy of it")
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--text", action="append", help="one input; may be given more than once")
    given.add_argument(
        "--input",
        type=Path,
        help="one JSON object per line; .csv, .tsv: a row per input, below a header; .txt: a text per non-blank line",
    )
    parser.add_argument("--output", type=Path, help="file to write, which appears when it is complete; default: stdout")
    parser.add_argument(
        "--format",
        help="of the answers: jsonl, csv or tsv; for entities also doccano or label_studio; default: --output's suffix",
    )
    parser.add_argument(
        "--documents", type=Path, help="for retrieval: documents to search, as JSON Lines, .csv or .tsv"
    )
    parser.add_argument("--batch-size", type=positive, help="features per batch; default: that of evaluation")
    runtime = parser.add_mutually_exclusive_group()
    for option, name in (("--onnx", "onnx"), ("--int8", "onnx_int8")):
        runtime.add_argument(option, dest="runtime", action="store_const", const=name, help=f"run {ONNX_FILES[name]}")
    parser.set_defaults(runtime="torch")
    return parser.parse_args()


def writer(options: argparse.Namespace) -> Callable[[Iterable[dict[str, Any]]], Iterable[str]]:
    """Return what turns answers into lines; UserError if the folder's task has no such format."""
    task = inference.read_settings(options.folder).task
    formats = {JSON_LINES: json_lines} | delimited.FORMATS | dict(tasks.module(task, "serving").FORMATS or {})
    ending = kind_of(options.output)
    name = options.format or (ending if ending in delimited.FORMATS else JSON_LINES)
    if name not in formats:
        raise UserError(f"--format {name}: {task} does not have this format; expected {' or '.join(formats)}")
    return formats[name]


def json_lines(found: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield one line per answer."""
    return map(inference.as_json, found)


def positive(text: str) -> int:
    """Return a whole number above 0."""
    if int(text) < 1:
        raise ValueError
    return int(text)


def read(options: argparse.Namespace) -> Iterator[tuple[str, inference.Input]]:
    """Yield (place, input): texts of the command line; lines that are not blank; rows of a table; JSON objects."""
    if options.input is None:
        yield from ((f"--text {text!r:.40}", text) for text in options.text)
    elif kind_of(options.input) == "txt":
        path = readable(options.input)
        yield from ((f"{path}:{number}", line) for number, line in lines(path, str(path), None) if line.strip())
    else:
        yield from read_objects(options.input)


def read_objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (file and line, JSON object), or the row of a table by the names of its columns."""
    if delimiter := delimited.DELIMITERS.get(kind_of(path)):
        return delimited.inputs(readable(path), delimiter)
    return objects(readable(path), str(path), None)


def kind_of(path: Path | None) -> str:
    """Return the suffix of a file's name in lower case, without its dot; "" if it has none."""
    return path.suffix.lower().removeprefix(".") if path is not None else ""


def readable(path: Path) -> Path:
    """Return the path; UserError if no file is there."""
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; expected JSON Lines, a .csv or .tsv table, or a .txt file with one text per line"
        )
    return path


def answers(predict: inference.Predict, inputs: Iterator[tuple[str, inference.Input]]) -> Iterator[dict[str, Any]]:
    """Yield the answer to each (place, input), INPUTS_A_CALL of them in memory at a time."""
    number = 0
    while chunk := list(islice(inputs, INPUTS_A_CALL)):
        places, given = zip(*chunk, strict=True)
        yield from predict(given, places=places, first_id=number)
        number += len(chunk)


@contextmanager
def written(path: Path | None) -> Iterator[TextIO]:
    """Yield the stream to write to: stdout, or a file that is moved into place when it is complete."""
    if path is not None:
        with stage.output(path) as beside, beside.open("w", encoding=ENCODING, newline="\n") as file:
            yield file
        return
    with stage.printing():
        yield sys.stdout


if __name__ == "__main__":
    stage.run(main)
