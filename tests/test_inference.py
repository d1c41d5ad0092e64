"""Inference from an exported folder: the answers are what evaluation stored, however they are asked for."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import BertConfig, BertForTokenClassification, PreTrainedModel

from finetrail import delimited, inference, layout, predict, stage, tasks, upgrades
from finetrail.errors import UserError
from finetrail.evaluation import inference as evaluation
from finetrail.evaluation.splits import Encoded
from finetrail.exporting.onnx import export_onnx, quantize_int8
from finetrail.tasks.token_classification import serving
from finetrail.tasks.token_classification.corpus import SCHEMA

RUNTIMES = inference.ONNX_FILES
EVALUATE = {"batch_size": 8, "bootstrap": {"samples": 100, "confidence": 0.95, "seed": 0}, "worst_errors": 0}


class Case(NamedTuple):
    """A task with a test split, and how its stored predictions look as answers."""

    target: Any
    tokenize: dict[str, Any]
    evaluate: dict[str, Any]
    model: Callable[[Path], PreTrainedModel]  # from the tokenizer's folder
    test: pa.Table
    inputs: list[dict[str, Any]]  # what people would send of the test split
    stored: Callable[[dict[str, Any]], dict[str, Any]]  # row of the predictions -> part of its answer


LABELS = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]


def tagger(folder: Path) -> PreTrainedModel:
    """A random model with various answers."""
    config = BertConfig.from_pretrained(folder, id2label=dict(enumerate(LABELS)), initializer_range=0.5)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BertForTokenClassification(config).eval()


@pytest.fixture(scope="module")
def cases(toy_sentences) -> dict[str, Case]:
    words, labels = (list(column) for column in zip(*toy_sentences, strict=True))
    words, labels = [*words, words[0] * 5, []], [*labels, labels[0] * 5, []]  # one in windows, one empty
    columns = {"id": [f"t{row}" for row in range(len(words))], "tokens": words, "labels": labels}
    test = pa.table(columns, schema=SCHEMA)
    return {
        "token_classification": Case(
            target=LABELS,
            tokenize={"max_length": 16, "stride": 4, "label_subwords": "first", "limit": None},
            evaluate=EVALUATE,
            model=tagger,
            test=test,
            inputs=[{"id": row["id"], "tokens": row["tokens"]} for row in test.to_pylist()],
            stored=lambda row: {"labels": row["predictions"], "tokens": row["tokens"]},
        )
    }


TASKS = ["token_classification"]


@pytest.fixture(scope="module")
def exported(cases, tiny_wordpiece, tmp_path_factory) -> dict[str, Path]:
    """An exported folder of each task."""
    folders = {}
    for task, case in cases.items():
        folder = tmp_path_factory.mktemp(task) / "exported"
        shutil.copytree(tiny_wordpiece, folder)
        model = case.model(tiny_wordpiece)
        model.save_pretrained(folder)
        (folder / "onnx").mkdir()
        inputs = evaluation.input_names(next(iter(encoder(task, case, folder).tables.values())))
        export_onnx(model, folder / RUNTIMES["onnx"], inputs)
        quantize_int8(folder / RUNTIMES["onnx"], folder / RUNTIMES["onnx_int8"])
        settings = {"task": task, "target": case.target, "tokenize": case.tokenize, "evaluate": case.evaluate}
        stage.write_json(folder / layout.EXPORT_SETTINGS.name, settings)
        folders[task] = folder
    return folders


def settings_of(task, case):
    module = tasks.module(task, "settings")
    return module.Tokenize(**case.tokenize, engine="local", num_proc=1), module.Evaluate(**case.evaluate)


def encoder(task, case, folder):
    encoding, tokenize = tasks.module(task, "encoding"), settings_of(task, case)[0]
    return encoding.Encoder(encoding.load_tokenizer(folder, tokenize, lambda: iter(())), case.target, tokenize)


def stored_predictions(task, case, folder):
    """What the stages tokenize and evaluate would store."""
    batches = iter([(np.arange(len(case.test)), case.test)])
    features = pa.concat_tables(part for part, _ in encoder(task, case, folder).encode_table("test", batches))
    forward = evaluation.torch_forward(tasks.module(task, "loading").load_model(folder))
    tokenizer = tasks.module(task, "encoding").load_tokenizer(folder, settings_of(task, case)[0], lambda: iter(()))
    scoring, evaluate = tasks.module(task, "scoring"), settings_of(task, case)[1]
    return scoring.predict(Encoded(case.test, features), {}, case.target, forward, tokenizer, evaluate).to_pylist()


@pytest.fixture
def folder(exported, tmp_path) -> Path:
    """A copy of the tagger's folder, to be damaged."""
    return shutil.copytree(exported["token_classification"], tmp_path / "model")


@pytest.fixture(scope="module")
def tag(exported) -> inference.Predict:
    return inference.load(exported["token_classification"])


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("runtime", ["torch", "onnx"])
def test_answers_on_the_test_split_are_the_stored_predictions(cases, exported, task, runtime):
    case = cases[task]
    answers = inference.load(exported[task], runtime)(case.inputs)
    expected = stored_predictions(task, case, exported[task])
    assert [answer["id"] for answer in answers] == case.test["id"].to_pylist()
    for answer, row in zip(answers, expected, strict=True):
        assert answer | case.stored(row) == answer
        if "confidences" in answer:
            assert answer["confidences"] == pytest.approx(row["confidences"], abs=1e-5)
    assert len({json.dumps(case.stored(row)) for row in expected}) > len(expected) / 4, "answers that differ"


def test_int8_answers_in_the_same_form(cases, exported, tag):
    inputs = cases["token_classification"].inputs
    answers = inference.load(exported["token_classification"], "onnx_int8")(inputs)
    assert [answer.keys() for answer in answers] == [answer.keys() for answer in tag(inputs)]
    same = [
        a == b
        for one, other in zip(answers, tag(inputs), strict=True)
        for a, b in zip(one["labels"], other["labels"], strict=True)
    ]
    assert np.mean(same) > 0.5


def test_the_batch_size_changes_no_answer(cases, exported, tag):
    inputs = cases["token_classification"].inputs
    one = inference.load(str(exported["token_classification"]), batch_size=1, device="cpu")(inputs)
    assert [answer["labels"] for answer in one] == [answer["labels"] for answer in tag(inputs)]


def test_inputs_without_an_id_are_numbered_and_texts_split(tag):
    answers = tag(["Anna lives\tin  Paris.", {"tokens": ["a b"], "id": "mine"}, {"text": ""}], first_id=7)
    assert [(answer["id"], answer["tokens"]) for answer in answers] == [
        ("7", ["Anna", "lives", "in", "Paris", "."]),
        ("mine", ["a b"]),
        ("9", []),
    ]
    assert tag([]) == []


@pytest.mark.parametrize(
    ("labels", "entities"),
    [
        (["O", "B-X", "I-X", "B-X"], [("X", 1, 3), ("X", 3, 4)]),
        (["I-X", "I-Y", "O", "I-Y"], [("X", 0, 1), ("Y", 1, 2), ("Y", 3, 4)]),
        (["B-X", "I-Y"], [("X", 0, 1), ("Y", 1, 2)]),
        (["O", "O"], []),
        ([], []),
        (["NOUN", "O"], None),
    ],
)
def test_entities_are_read_as_conlleval_reads_labels(labels, entities):
    tokens = [f"w{position}" for position in range(len(labels))]
    columns = {"id": ["a"], "tokens": [tokens], "predictions": [labels], "confidences": [[0.5] * len(labels)]}
    (answer,) = serving.answers(pa.table(columns))
    assert answer.get("entities") == (
        None
        if entities is None
        else [
            {"type": kind, "start": start, "end": end, "text": " ".join(tokens[start:end]), "confidence": 0.5}
            for kind, start, end in entities
        ]
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "input '0': there is no text; expected {\"tokens\""),
        ({"id": "x", "text": None}, "input 'x': text is None; expected"),
        ({"tokens": "a b"}, "input '0': tokens is 'a b'; expected"),
        ({"tokens": ["a", 1]}, "input '0': tokens is ['a', 1]; expected"),
        ({"text": "a", "more": 1}, "input '0': unknown key 'more'; expected id, tokens, text"),
    ],
)
def test_an_input_that_is_none_is_told_behind_its_place(tag, given, message):
    with pytest.raises(UserError) as error:
        tag([given])
    assert str(error.value).startswith(message)
    with pytest.raises(UserError) as error:
        tag(["fine", given], places=["a:1", "a:3"])
    assert str(error.value).startswith("a:3: input '")


def test_an_id_that_stands_twice_is_refused(tag):
    with pytest.raises(UserError, match=r"^the id 'x' occurs more than once"):
        tag([{"id": "x", "text": "a"}, {"id": "y", "text": "b"}, {"id": "x", "text": "c"}])


# --- folders ------------------------------------------------------------------------------------------------------


def edit(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value != "gone"}))


def test_an_export_of_a_later_version_is_told(folder: Path) -> None:
    edit(folder / "finetrail.json", schema_version=upgrades.VERSION)
    inference.read_settings(folder)
    for version in (upgrades.VERSION + 1, "9"):
        edit(folder / "finetrail.json", schema_version=version)
        with pytest.raises(UserError, match=r"finetrail.json: schema_version is .*; expected a newer finetrail"):
            inference.read_settings(folder)


DAMAGE: dict[str, tuple[Callable[[Path], Any], dict[str, Any], str]] = {
    "no settings": (
        lambda folder: (folder / "finetrail.json").unlink(),
        {},
        r"finetrail.json is missing; expected a folder that the export stage wrote, such as data/exported$",
    ),
    "no JSON": (
        lambda folder: (folder / "finetrail.json").write_text("{"),
        {},
        r"finetrail.json is not JSON: it breaks off",
    ),
    "no object": (
        lambda folder: (folder / "finetrail.json").write_text("[]"),
        {},
        r"finetrail.json: list; expected a JSON object$",
    ),
    "no target": (
        lambda folder: edit(folder / "finetrail.json", target="gone"),
        {},
        r"finetrail.json: no 'target'; expected the keys task, target, tokenize, evaluate$",
    ),
    "unknown task": (
        lambda folder: edit(folder / "finetrail.json", task="../os"),
        {},
        r"finetrail.json: there is no task '../os'; expected one of .*token_classification",
    ),
    "unknown setting": (
        lambda folder: edit(folder / "finetrail.json", tokenize={"max_length": 16}),
        {},
        r"finetrail.json: tokenize.stride: Field required; expected what export writes$",
    ),
    "code of the model": (
        lambda folder: edit(folder / "config.json", auto_map={"AutoModel": "evil.Model"}),
        {},
        r"config.json has auto_map: it wants code of its own to run; expected a built-in model$",
    ),
    "code of the tokenizer": (
        lambda folder: edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Tokenizer", None]}),
        {},
        r"tokenizer_config.json has auto_map: it wants code",
    ),
    "damaged tokenizer": (
        lambda folder: (folder / "tokenizer.json").write_text("{}"),
        {},
        r"the tokenizer does not load: ",
    ),
    "pickled weights": (
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
        {},
        r": no model.safetensors; expected the weights that export wrote$",
    ),
    "damaged weights": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"\x08"),
        {},
        r": the model does not load: ",
    ),
    "no such device": (lambda folder: None, {"device": "abacus"}, r": the model does not load: .*abacus"),
    "no ONNX": (
        lambda folder: (folder / "onnx/model.onnx").unlink(),
        {"runtime": "onnx"},
        r"onnx/model.onnx is missing; expected the file that export writes$",
    ),
    "no int8": (
        lambda folder: (folder / "onnx/model_quantized.onnx").unlink(),
        {"runtime": "onnx_int8"},
        r"onnx/model_quantized.onnx is missing; .*; export leaves it out if export.int8 is false, or if int8 loses t",
    ),
    "damaged ONNX": (
        lambda folder: (folder / "onnx/model.onnx").write_bytes(b"onnx"),
        {"runtime": "onnx"},
        r"onnx/model.onnx does not load: ",
    ),
    "ONNX elsewhere": (
        lambda folder: None,
        {"runtime": "onnx", "device": "cuda"},
        r"^device 'cuda' needs the runtime torch; expected cpu, where model.onnx runs$",
    ),
    "documents": (
        lambda folder: None,
        {"documents": [{"text": "x"}]},
        r"^documents: token_classification does not search; expected documents with retrieval only$",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_folder_that_does_not_serve_is_told_in_one_line(folder, damage):
    do, options, message = DAMAGE[damage]
    do(folder)
    with pytest.raises(UserError, match=message) as error:
        inference.load(folder, **options)
    assert "\n" not in str(error.value)


# --- documents, which all inputs share ----------------------------------------------------------------------------


class FakeEncoder:
    """Features are the texts, with the table that they are encoded for."""

    tables = dict.fromkeys([*layout.SPLITS, "documents"])

    def __init__(self, *_: Any) -> None:
        pass

    def encode_table(self, name, batches):
        for rows, examples in batches:
            yield pa.table({"example": rows, "name": [f"{name} {text}" for text in examples["text"].to_pylist()]}), {}


def rows(inputs):
    for given in inputs:
        if "text" not in given:
            raise UserError(f"input {given['id']!r}: no text")
    return pa.table({"id": [given["id"] for given in inputs], "text": [given["text"] for given in inputs]})


@pytest.fixture
def search(monkeypatch, tmp_path):
    """inference.load() of a task whose answers are the features of all documents."""

    def predict(split, shared, *_):
        documents = {table: encoded.features["name"].to_pylist() for table, encoded in shared.items()}
        found = [f"{name} in {documents}" for name in split.features["name"].to_pylist()]
        return pa.table({"id": split.examples["id"], "predictions": found})

    parts = {
        "encoding": SimpleNamespace(load_tokenizer=lambda *_: None, Encoder=FakeEncoder),
        "scoring": SimpleNamespace(predict=predict),
        "serving": SimpleNamespace(
            examples=rows,
            examples_for=None,
            documents=rows,
            answers=pa.Table.to_pylist,
            text_input=lambda text: {"text": text},
        ),
        "modeling": None,
    }
    monkeypatch.setattr(inference.tasks, "module", lambda task, part: parts[part])
    monkeypatch.setattr(inference, "read_settings", lambda folder: inference.Exported("search", None, None, None))
    monkeypatch.setattr(inference, "_forward", lambda *_: None)
    monkeypatch.setattr(inference, "EXAMPLES_A_BATCH", 2)
    return lambda documents, places=None: inference.load(tmp_path, documents=documents, document_places=places)


def test_documents_are_one_table_shared_by_all_inputs(search):
    answers = search([{"id": name, "text": name} for name in "abc"])(["x", "y"])
    found = {"documents": ["documents a", "documents b", "documents c"]}
    assert [answer["predictions"] for answer in answers] == [f"test x in {found}", f"test y in {found}"]
    assert [answer["predictions"] for answer in search(None)(["x"])] == ["test x in {}"]


def test_documents_that_are_wrong_are_told_behind_their_place(search):
    with pytest.raises(UserError, match=r"^d.jsonl:4: input 'b': no text$"):
        search([{"id": "a", "text": "x"}, {"id": "b"}], ["d.jsonl:1", "d.jsonl:4"])


def test_an_input_that_gives_no_features_is_not_lost_in_silence(search, monkeypatch):
    def all_but_empty(self, name, batches):
        for numbers, examples in batches:
            kept = [bool(text) for text in examples["text"].to_pylist()]
            yield pa.table({"example": numbers[kept], "name": ["x"] * sum(kept)}), {}

    monkeypatch.setattr(FakeEncoder, "encode_table", all_but_empty)
    with pytest.raises(UserError, match=r"^a:2: input '1': it has no text to predict from$"):
        search([{"id": "a", "text": "x"}])(["x", ""], places=["a:1", "a:2"])


# --- the command --------------------------------------------------------------------------------------------------


@pytest.fixture
def command(monkeypatch, capsys, exported):
    """Run finetrail.predict with the tagger as `python -m` would; return exit code, output lines and the error."""

    def run(*options: object) -> tuple[int, list[dict[str, Any]], str]:
        folder = exported["token_classification"]
        monkeypatch.setattr(sys, "argv", ["predict", str(folder), *map(str, options)])
        code = 0
        try:
            stage.run(predict.main)
        except SystemExit as stop:
            code = 1 if isinstance(stop.code, str) else int(stop.code or 0)
            print(stop.code, file=sys.stderr)
        written = capsys.readouterr()
        return code, [json.loads(line) for line in written.out.splitlines()], written.err.strip()

    return run


@pytest.fixture
def sentences(cases, tmp_path) -> Path:
    path = tmp_path / "in.jsonl"
    inputs = [{"tokens": given["tokens"]} for given in cases["token_classification"].inputs]
    path.write_text("\n".join(json.dumps(given, ensure_ascii=False) + "\n" for given in inputs), encoding="utf-8")
    return path


@pytest.mark.parametrize("options", [[], ["--onnx"], ["--int8"], ["--batch-size", 1]])
def test_a_file_is_answered_line_by_line_in_bounded_memory(command, sentences, monkeypatch, options):
    code, whole, _ = command("--input", sentences, *options)
    monkeypatch.setattr(predict, "INPUTS_A_CALL", 7)
    assert (code, len(whole)) == (0, 66)
    assert [answer["id"] for answer in whole] == [str(number) for number in range(66)]
    in_parts = command("--input", sentences, *options)[1]
    if "--int8" not in options:  # activations share a range within their batch
        assert [answer["labels"] for answer in in_parts] == [answer["labels"] for answer in whole]
    assert [answer["tokens"] for answer in in_parts] == [answer["tokens"] for answer in whole]


def test_lines_of_a_file_and_texts_of_the_command_are_inputs(command, tmp_path):
    (tmp_path / "in.txt").write_text("\ufeffAnna met 민수\r\n\n \nin Paris", encoding="utf-8")
    of_file = command("--input", tmp_path / "in.txt")
    assert [answer["tokens"] for answer in of_file[1]] == [["Anna", "met", "민수"], ["in", "Paris"]]
    assert command("--text", "Anna met 민수", "--text", "in Paris") == of_file


@pytest.mark.parametrize(("ending", "delimiter"), [("csv", ","), ("tsv", "\t")])
def test_tables_are_read_and_written(command, tmp_path, ending, delimiter):
    given, output = tmp_path / f"in.{ending}", tmp_path / f"out.{ending.upper()}"
    with given.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(
            [["text", "id"], ["Anna, met\t민수\nin Paris", "a"], ['in "Paris"', "b"]]
        )
    assert command("--input", given, "--output", output) == (0, [], "")
    with output.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter=delimiter))
    texts = [{"id": "a", "text": "Anna, met\t민수\nin Paris"}, {"id": "b", "text": 'in "Paris"'}]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, texts)))
    expected = command("--input", tmp_path / "in.jsonl")[1]
    lists = [{key: value for key, value in answer.items() if isinstance(value, list)} for answer in expected]
    assert [{key: json.loads(row[key]) for key in lists[0]} for row in rows] == lists
    assert [(row["id"], row["text"]) for row in rows] == [("a", texts[0]["text"]), ("b", texts[1]["text"])]


def test_a_table_has_a_column_per_probability_for_one_kind() -> None:
    answers = [{"id": "1", "label": "a,b", "probabilities": {"a,b": 0.75, "c": 0.25}}]
    assert list(delimited.rows(answers, ",")) == ['id,label,"probabilities.a,b",probabilities.c', '1,"a,b",0.75,0.25']
    with pytest.raises(UserError, match="answer '2' has the keys id, loss, the first one id, label, .*--format jsonl"):
        list(delimited.rows([*answers, {"id": "2", "loss": 1.0}], ","))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "in.csv: an empty file; expected a row for each example"),
        ("text\n", "in.csv: the file is empty"),
        ("text,text\na,b\n", "in.csv:1: more than one column 'text'"),
        ("text,when\na,b\n", "in.csv:2: input '0': unknown key 'when'; expected id, "),
        ('text\na\n"b\n', "in.csv:3: not CSV: a field in quotes never ends; expected its quote before the delimiter"),
    ],
)
def test_a_damaged_table_is_told_with_its_place(command, tmp_path, content, message):
    (tmp_path / "in.csv").write_text(content)
    code, _, error = command("--input", tmp_path / "in.csv")
    assert code == 1 and message in error and error.startswith("error: ") and "\n" not in error
    assert "reader." not in error  # a key of a corpus's recipe


def test_a_file_is_written_whole_or_not_at_all(command, sentences, tmp_path, monkeypatch):
    output = tmp_path / "new" / "out.jsonl"
    assert command("--input", sentences, "--output", output) == (0, [], "")
    answers = output.read_text(encoding="utf-8")
    assert [json.loads(line) for line in answers.splitlines()] == command("--input", sentences)[1]
    assert "민수" in answers
    with sentences.open("a") as file:
        file.write("{}\n")
    monkeypatch.setattr(predict, "INPUTS_A_CALL", 10)
    code, _, error = command("--input", sentences, "--output", output)
    assert (code, error.startswith(f"error: {sentences}:132: input '66': there is no text; expected")) == (1, True)
    assert output.read_text(encoding="utf-8") == answers
    assert [path.name for path in output.parent.iterdir()] == ["out.jsonl"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "in.jsonl: the file is empty; expected one input per line"),
        ("\n\n", "in.jsonl: the file is empty"),
        ('{"text": "a"}\n{"text"', "in.jsonl:2: not JSON: "),
        ('"a"\n', "in.jsonl:1: str; expected one JSON object per line"),
        ('{"text": "a"}\n\n{"text": 1}\n', "in.jsonl:3: input '1': text is 1; expected"),
        ('{"text": "a", "id": 1}\n{"text": "b", "id": "1"}\n', "the id '1' occurs more than once"),
        (b'{"text": "\xff"}', "in.jsonl: the byte 0xff at offset 10 is not utf-8; expected text in that encoding"),
    ],
)
def test_a_damaged_input_is_told_in_one_line_with_its_place(command, tmp_path, content, message):
    path = tmp_path / "in.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    code, _, error = command("--input", path)
    assert code == 1
    assert message in error
    assert error.startswith("error: ") and "\n" not in error


def test_files_that_cannot_be_are_told(command, tmp_path):
    assert command("--input", tmp_path / "x")[2].startswith(f"error: {tmp_path}/x: no such file; expected JSON Lines")
    assert command("--text", "a", "--documents", tmp_path / "x")[2].startswith(f"error: {tmp_path}/x: no such file")
    assert command("--text", "a", "--output", tmp_path)[2] == f"error: --output {tmp_path} is a folder; expected a file"
    (tmp_path / "d.jsonl").write_text("\n")
    assert command("--text", "a", "--documents", tmp_path / "d.jsonl")[2] == (
        "error: documents: token_classification does not search; expected documents with retrieval only"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "one of the arguments --text --input is required"),
        (["--text", "a", "--input", "b"], "not allowed with argument"),
        (["--text", "a", "--onnx", "--int8"], "not allowed with argument"),
        (["--text", "a", "--batch-size", "0"], "invalid positive value: '0'"),
    ],
)
def test_a_command_that_is_none_is_told_with_its_usage(command, options, message):
    code, _, error = command(*options)
    assert code == 2
    assert message in error


def test_the_module_prints_only_answers_even_into_a_closed_pipe(exported, tmp_path):
    (tmp_path / "in.txt").write_text("Anna lives in Paris .\n" * 1100)
    line = f"{sys.executable} -m finetrail.predict {exported['token_classification']} --onnx --input in.txt | head -n 1"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stderr == ""
    assert json.loads(done.stdout)["tokens"] == ["Anna", "lives", "in", "Paris", "."]
    assert done.returncode == 0


@pytest.mark.parametrize("content", ["\ntext\na\n", '"text",id\na,1\n', 'text,"two\nlines"\na,b\n'])
def test_the_header_is_the_first_row_that_is_not_blank(tmp_path: Path, content: str) -> None:
    (tmp_path / "in.csv").write_text(content)
    [(_, values)] = delimited.inputs(tmp_path / "in.csv", ",")
    assert values["text"] == "a"


def test_the_probe_of_pairs_has_both_texts() -> None:
    serving = tasks.module("text_classification", "serving")
    assert serving.probe({"texts": ["text", "text_pair"]}).keys() == {"text", "text_pair"}
