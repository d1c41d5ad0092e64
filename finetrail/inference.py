"""Turns an exported folder into a function from users' inputs to answers, with the code of evaluation."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from pydantic import ValidationError, create_model

from finetrail import json_errors, layout, saved_tokenizer, schema, tasks, upgrades
from finetrail.errors import UserError
from finetrail.evaluation import inference
from finetrail.evaluation.splits import Encoded
from finetrail.exporting.forms import ONNX_FILES
from finetrail.schema import Evaluate, Tokenize
from finetrail.upgrades import SCHEMA_VERSION

if TYPE_CHECKING:
    from finetrail.tasks.contract import Encoding, Serving, TableEncoder

Input = dict[str, Any] | str
Runtime = Literal["torch", "onnx", "onnx_int8"]

EXAMPLES_A_BATCH = 4096  # bounds the memory of encoding documents
TABLE = "test"  # inputs are encoded as the test split is


class Predict(Protocol):
    """The function that load() returns: inputs -> answers in the same order, as JSON objects.

    An input without an id gets its number, starting at first_id. UserError, with its place, for an invalid input.
    """

    def __call__(
        self, inputs: Sequence[Input], *, places: Sequence[str] | None = None, first_id: int = 0
    ) -> list[dict[str, Any]]: ...


class Exported(NamedTuple):
    """The content of an exported folder's finetrail.json."""

    task: str
    target: object
    tokenize: Tokenize
    evaluate: Evaluate


def load(
    folder: Path | str,
    runtime: Runtime = "torch",
    device: str | None = None,
    batch_size: int | None = None,
    documents: Sequence[dict[str, Any]] | None = None,
    document_places: Sequence[str] | None = None,
    threads: int | None = None,
) -> Predict:
    """Load an exported folder as a function; UserError if a file is missing, damaged, or asks to run code.

    device: torch's; None is the device of evaluation: the accelerator, if there is one. batch_size: None is that of
    evaluation. documents: what retrieval searches; other tasks take none. All inputs of a call are in memory together.
    threads: of the model on a CPU; None is the runtime's choice. With ONNX neither torch nor transformers is imported,
    except for chats.
    """
    folder = Path(folder)
    exported = read_settings(folder)
    if batch_size is not None:
        exported = exported._replace(evaluate=exported.evaluate.model_copy(update={"batch_size": batch_size}))
    encoding, scoring = tasks.module(exported.task, "encoding"), tasks.module(exported.task, "scoring")
    serving = tasks.module(exported.task, "serving")
    forward = _forward(folder, exported.task, runtime, device, threads)
    tokenizer = _tokenizer(folder, encoding, exported.tokenize, forward)
    encoder = encoding.Encoder(tokenizer, exported.target, exported.tokenize)
    examples = serving.examples_for(exported.target) if serving.examples_for else serving.examples
    shared = _shared(exported.task, encoder, serving, documents, document_places)

    def predict(
        inputs: Sequence[Input], *, places: Sequence[str] | None = None, first_id: int = 0
    ) -> list[dict[str, Any]]:
        if not inputs:
            return []
        given = [serving.text_input(one) if isinstance(one, str) else one for one in inputs]
        given = [{"id": str(number)} | one for number, one in enumerate(given, start=first_id)]
        split = _encoded(encoder, TABLE, examples, given, places)
        predictions = scoring.predict(split, shared, exported.target, forward, tokenizer, exported.evaluate)
        return list(serving.answers(predictions))

    return predict


def as_json(answer: dict[str, Any]) -> str:
    """Return an answer as JSON, for a line of predict's output and for the service."""
    return json.dumps(answer, ensure_ascii=False, allow_nan=False)


def read_settings(folder: Path) -> Exported:
    """Read and validate the task, labels and settings that export wrote."""
    path = folder / layout.EXPORT_SETTINGS.name
    if not path.is_file():
        raise UserError(f"{path} is missing; expected a folder that the export stage wrote, such as {layout.EXPORTED}")
    _refuse_code(folder)
    found = _read_object(path)
    if missing := [key for key in Exported._fields if key not in found]:
        raise UserError(f"{path}: no {missing[0]!r}; expected the keys {', '.join(Exported._fields)}")
    if found["task"] not in tasks.names():
        raise UserError(f"{path}: there is no task {found['task']!r}; expected one of {', '.join(tasks.names())}")
    _check_version(found, path)
    settings = tasks.module(found["task"], "settings")
    # The folder does not say which engine encoded the corpus; here this process encodes.
    if isinstance(found["tokenize"], dict):
        found["tokenize"] |= schema.Tokenize.IN_PROCESS
    model: Any = create_model("Settings", tokenize=(settings.Tokenize, ...), evaluate=(settings.Evaluate, ...))
    sections, _ = upgrades.upgraded({key: found[key] for key in model.model_fields}, model)
    try:
        read = model.model_validate_json(json.dumps(sections))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = ".".join(map(str, problem["loc"]))
        raise UserError(f"{path}: {key}: {problem['msg']}; expected what export writes") from None
    return Exported(found["task"], upgrades.target(found["task"], found["target"]), read.tokenize, read.evaluate)


def _check_version(found: dict[str, Any], path: Path) -> None:
    """Raise UserError for a folder of a later version; early versions did not write theirs."""
    version = found.get(SCHEMA_VERSION, 1)
    if not isinstance(version, int) or version > upgrades.VERSION:
        raise UserError(
            f"{path}: {SCHEMA_VERSION} is {version!r:.20}, and this finetrail reads versions up to {upgrades.VERSION}; "
            "expected a newer finetrail: update it"
        )


def _refuse_code(folder: Path) -> None:
    """Raise UserError if transformers would ask whether to run the folder's own code."""
    for name in ("config.json", "tokenizer_config.json"):
        if (folder / name).is_file() and "auto_map" in _read_object(folder / name):
            raise UserError(f"{folder / name} has auto_map: it wants code of its own to run; expected a built-in model")


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        problem = f"{json_errors.described(error)}, line {error.lineno}"
        raise UserError(f"{path} is not JSON: {problem}; expected what export writes") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not JSON: byte {error.start} is not UTF-8; expected what export writes") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: {type(value).__name__}; expected a JSON object")
    return value


def preferred_runtime(folder: Path) -> Runtime:
    """Return the fastest runtime: onnx if its file exists."""
    return "onnx" if (folder / ONNX_FILES["onnx"]).is_file() else "torch"


def _forward(folder: Path, task: str, runtime: Runtime, device: str | None, threads: int | None) -> inference.Forward:
    if runtime == "torch":
        if not list(folder.glob("*.safetensors")):
            raise UserError(f"{folder}: no model.safetensors; expected the weights that export wrote")
        import torch  # an ONNX session needs no torch

        if threads is not None:
            torch.set_num_threads(threads)
        try:
            model = tasks.module(task, "loading").load_model(folder)
            return inference.torch_forward(model.to(device or inference.device()))  # type: ignore[arg-type]  # of _Wrapped
        except Exception as error:  # foreign files: the libraries raise whatever their parsing runs into
            raise UserError(f"{folder}: the model does not load: {_first_line(error)}") from None
    path = folder / ONNX_FILES[runtime]
    if not path.is_file():
        hint = (
            "; export leaves it out if export.int8 is false, or if int8 loses too much"
            if runtime == "onnx_int8"
            else ""
        )
        raise UserError(f"{path} is missing; expected the file that export writes{hint}")
    if device not in (None, "cpu"):
        raise UserError(f"device {device!r} needs the runtime torch; expected cpu, where {path.name} runs")
    try:
        return inference.onnx_forward(path, threads)
    except Exception as error:  # onnxruntime has an exception for each of its status codes, and no common base
        raise UserError(f"{path} does not load: {_first_line(error)}") from None


def _tokenizer(folder: Path, encoding: "Encoding", settings: Tokenize, forward: inference.Forward) -> Any:
    """Load the tokenizer; without transformers if ONNX names the model's inputs and there is no chat template."""
    if hasattr(forward, "inputs") and saved_tokenizer.is_enough(folder):
        return saved_tokenizer.load(folder, forward.inputs)
    return encoding.load_tokenizer(folder, settings, lambda: iter(()))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _shared(
    task: str,
    encoder: "TableEncoder",
    serving: "Serving",
    documents: Sequence[dict[str, Any]] | None,
    places: Sequence[str] | None,
) -> dict[str, Encoded]:
    """Encode the data that all inputs share: the documents that retrieval searches (serving.documents)."""
    if documents is None:
        return {}
    tables = [table for table in encoder.tables if table not in layout.SPLITS]
    if not tables or serving.documents is None:
        raise UserError(f"documents: {task} does not search; expected documents with retrieval only")
    to_examples = serving.documents
    return {table: _encoded(encoder, table, to_examples, list(documents), places) for table in tables}


def _encoded(
    encoder: "TableEncoder",
    table: str,
    to_examples: Callable[[list[dict[str, Any]]], pa.Table],
    inputs: list[dict[str, Any]],
    places: Sequence[str] | None,
) -> Encoded:
    """Encode inputs as rows of a table; a UserError names the place of the first invalid input."""

    def encode(inputs: list[dict[str, Any]]) -> Encoded:
        examples = to_examples(inputs)
        ids = examples["id"].to_pylist()
        if len(set(ids)) < len(ids):
            twice = next(id for id, times in Counter(ids).items() if times > 1)
            raise UserError(f"the id {twice!r} occurs more than once; expected unique ids, or none")
        parts = [features for features, _ in encoder.encode_table(table, _batches(examples))]
        features = pa.concat_tables(parts)
        lost = np.setdiff1d(np.arange(len(inputs)), features["example"].to_numpy())
        if len(lost):
            raise UserError(f"input {ids[lost[0]]!r}: it has no text to predict from")
        return Encoded(examples, features)

    try:
        return encode(inputs)
    except UserError:
        for place, given in zip(places or [], inputs, strict=bool(places)):
            try:
                encode([given])
            except UserError as error:
                raise UserError(f"{place}: {error}") from None
        raise


def _batches(examples: pa.Table) -> Iterator[tuple[np.ndarray, pa.Table]]:
    for start in range(0, len(examples), EXAMPLES_A_BATCH):
        batch = examples.slice(start, EXAMPLES_A_BATCH)
        yield np.arange(start, start + len(batch)), batch
