"""The export stage: a folder that works alone and says what it is, refused where it differs from what was trained."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.numpy import load_file, save_file
from seqeval.metrics.sequence_labeling import get_entities
from transformers import BertConfig, BertForTokenClassification, BertTokenizer

from finetrail import layout, schema, upgrades
from finetrail.encoding.tokenizer import load_tokenizer
from finetrail.errors import UserError
from finetrail.evaluation.inference import torch_forward
from finetrail.evaluation.splits import Encoded
from finetrail.exporting.onnx import export_onnx
from finetrail.stage import read_json as read
from finetrail.stage import write_json
from finetrail.tasks.token_classification import encoding, loading, scoring
from finetrail.tasks.token_classification.settings import Tokenize
from stages import export

LABELS = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
WORDS = ["ada", "met", "alan", "in", "paris", "and", "new", "york", "##s", "."]
EVALUATE = schema.Evaluate(
    batch_size=4, bootstrap=schema.Bootstrap(samples=100, confidence=0.95, seed=0), worst_errors=3
)
FILES = [
    "README.md",
    "config.json",
    "finetrail.json",
    "model.safetensors",
    "onnx/model.onnx",
    "onnx/model_quantized.onnx",
    "tokenizer.json",
    "tokenizer_config.json",
]


def sentences() -> pa.Table:
    """Twenty sentences of known words."""
    generator = np.random.default_rng(0)
    whole = [word for word in WORDS if not word.startswith("##")] + ["alans", "yorks"]
    tokens = [[str(word) for word in generator.choice(whole, length)] for length in generator.integers(3, 20, 20)]
    labels = [["O"] * len(words) for words in tokens]
    return pa.table({"id": [f"test-{row}" for row in range(20)], "tokens": tokens, "labels": labels})


def write_trained(folder: Path, vocabulary: Path) -> None:
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    tokenizer = BertTokenizer(str(vocabulary))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
        initializer_range=0.5,  # a random model with various answers
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
    )
    BertForTokenClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    record = {"seed": 1, "lr": 3e-4, "epochs": 1.0, "batch_size": 4, "precision": "fp32", "machine": {"device": "cpu"}}
    write_json(folder / "training.json", record)


def write_earlier_outputs() -> None:
    """Write what the earlier stages would, on a corpus whose labels are what the random model answers."""
    for path in (layout.TOKENIZED, layout.CORPUS, layout.MODEL, layout.EVALUATION):
        path.mkdir(parents=True)
    write_trained(layout.TRAINED, Path("vocab.txt"))
    tokenizer = load_tokenizer(layout.TRAINED, 16, pre_split=True)
    settings = Tokenize(engine="local", num_proc=1, max_length=16, stride=4, label_subwords="first", limit=None)
    # The first sentence has no features, as tokenize.limit may have it.
    features = encoding.Encoder(tokenizer, LABELS, settings).encode(sentences().slice(1), np.arange(1, 20))
    with pa.ipc.new_stream(str(layout.features_file("test")), features.schema) as writer:
        writer.write_table(features)
    forward = torch_forward(loading.load_model(layout.TRAINED))

    def predict(examples: pa.Table) -> pa.Table:
        return scoring.predict(Encoded(examples, features), {}, LABELS, forward, tokenizer, EVALUATE)

    labels = [["O"] * len(sentences()["tokens"][0]), *predict(sentences().slice(1))["predictions"].to_pylist()]
    corpus = sentences().set_column(2, "labels", pa.array(labels))
    pq.write_table(corpus, layout.table_file(layout.CORPUS, "test"))
    predictions = predict(corpus.slice(1))
    pq.write_table(predictions.add_column(0, "split", pa.array(["test"] * len(predictions))), layout.PREDICTIONS)
    origin = {"license": "mit", "kind": "package", "source": {"package": "p"}, "resolved": {}, "sha256": "0" * 64}
    write_json(layout.CORPUS_PROVENANCE, {"name": "Toy", "language": "en", **origin})
    checks = {"scheme": "IOB2", "splits": {"train": {"labels": {"O": 9, "B-PER": 2}}}, "leakage": {"train/test": 2}}
    write_json(layout.CORPUS_CHECKS, checks | {"unseen_labels": {}})
    write_json(layout.MODEL_PROVENANCE, {"name": "us/tiny", **origin})
    write_json(layout.TARGET, LABELS)
    write_json(
        layout.TOKENIZED_COUNTS,
        {"settings": settings.of_features(), "splits": {}},
    )
    scores = scoring.score(predictions, LABELS, EVALUATE)
    metrics = {"headline": "f1", "lower_is_better": [], "confidence": 0.95, "machine": {"device": "cpu"}}
    metrics |= {"validation": scores, "test": scores}
    write_json(layout.EVALUATION_METRICS, metrics)


def run(**changes: Any) -> None:
    """Run the stage with a recipe's settings."""
    settings = {"int8": True, "max_metric_drop": 0.5, "hub_repo": None, "hub_private": True} | changes
    declared = SimpleNamespace(
        task="token_classification",
        numerics="fast",
        threads=None,
        export=schema.Export(**settings),
        evaluate=EVALUATE,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export.params, "load", lambda name: {"export": declared}[name])
        export.main()


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project in which the stage has run once."""
    project = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        patch.setattr(export.inference, "device", lambda: "cpu")  # where write_earlier_outputs predicts
        write_earlier_outputs()
        run()
    yield project


@pytest.fixture
def project(done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that project, in which the ONNX model comes from the first run (it takes seconds to make)."""
    copy = shutil.copytree(done, tmp_path / "project")
    monkeypatch.chdir(copy)
    monkeypatch.setattr(export.inference, "device", lambda: "cpu")
    made = done / layout.EXPORTED / "onnx" / "model.onnx"
    monkeypatch.setattr(export, "export_onnx", lambda model, path, inputs: shutil.copy(made, path))
    return copy


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_holds_all_that_people_need_and_nothing_else(done: Path) -> None:
    exported, trained = bytes_of(done / layout.EXPORTED), bytes_of(done / layout.TRAINED)
    assert sorted(exported) == FILES
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert exported[name] == trained[name]
    of_tokenizer = json.loads(trained["tokenizer_config.json"]) | {"model_max_length": 32}  # the model's positions
    assert json.loads(exported["tokenizer_config.json"]) == of_tokenizer
    places = (sys.prefix, str(done), str(Path(__file__).parent))
    assert not [name for name, content in exported.items() if any(place.encode() in content for place in places)]
    assert not [path for path in (done / "data").iterdir() if path.name.startswith(".")]


def test_the_record_says_how_each_file_compares_with_torch(done: Path) -> None:
    record = read(done / layout.EXPORT_METRICS)
    size = (done / layout.EXPORTED / "onnx" / "model.onnx").stat().st_size
    words = sum(map(len, sentences()["tokens"].to_pylist()[1:]))
    assert record["onnx_fp32"] == {
        "f1": 1.0,
        "predictions": words,
        "disagreements": 0,
        "near_ties": 0,
        "mib": round(size / 2**20, 2),
    }
    weights = (done / layout.EXPORTED / "model.safetensors").stat().st_size
    assert record["torch"] == {"f1": 1.0, "mib": round(weights / 2**20, 2)}
    int8 = record["onnx_int8"]
    assert set(int8) == {"f1", "predictions", "disagreements", "near_ties", "mib", "f1_drop", "kept"}
    assert int8["predictions"] == words
    assert int8["kept"] is True
    assert int8["f1_drop"] == pytest.approx(1 - int8["f1"])
    assert int8["mib"] < record["onnx_fp32"]["mib"]


def test_the_settings_of_inference_are_those_of_the_run(done: Path) -> None:
    assert read(done / layout.EXPORT_SETTINGS) == {
        upgrades.SCHEMA_VERSION: upgrades.VERSION,
        "task": "token_classification",
        "target": LABELS,
        "tokenize": {"max_length": 16, "stride": 4, "label_subwords": "first", "limit": None},
        "evaluate": EVALUATE.model_dump(),
    }
    found = read(done / layout.EXPORT_SETTINGS)
    assert found["tokenize"]["stride"] == 4
    assert schema.Evaluate(**found["evaluate"]) == EVALUATE


def test_the_card_is_about_this_run(done: Path) -> None:
    card = ModelCard((done / layout.EXPORTED / "README.md").read_text(encoding="utf-8"))
    assert card.data.pipeline_tag == "token-classification"
    assert (card.data.eval_results[0].metric_type, card.data.eval_results[0].metric_value) == ("f1", 1.0)
    assert "`O`, `B-LOC`, `I-LOC`, `B-PER`, `I-PER`" in card.text


def test_the_card_examples_run_outside_the_project(done: Path, tmp_path: Path) -> None:
    card = (done / layout.EXPORTED / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(blocks) == 2
    # Words of one subword each, so that the pipeline's groups are the entities of our word-level labels.
    rows = pq.read_table(done / layout.PREDICTIONS).to_pylist()
    row = next(row for row in rows if not {"alans", "yorks"} & set(row["tokens"]) and get_entities(row["predictions"]))
    text = " ".join(row["tokens"])
    script = "\n".join(blocks).replace("path/to/this/folder", str(done / layout.EXPORTED))
    script += f"""
import json, sys
groups = [[group["entity_group"], group["word"]] for group in tagger({text!r})]
print(json.dumps([groups, len(found), list(logits.shape)[2:], [name for name in sys.modules if "finetrail" in name]]))
"""
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=clean, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    groups, labelled, outputs, ours = json.loads(ran.stdout.splitlines()[-1])
    entities = get_entities(row["predictions"])
    assert groups == [[label, " ".join(row["tokens"][start : end + 1])] for label, start, end in entities]
    assert (labelled, outputs) == (7, [len(LABELS)])
    assert ours == []


def test_another_run_gives_the_same_bytes(done: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the real export
    monkeypatch.chdir(project)
    run()
    assert bytes_of(project / "data") == bytes_of(done / "data")
    assert bytes_of(project / "metrics") == bytes_of(done / "metrics")


def test_int8_beyond_max_metric_drop_is_removed_and_told(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def quantize_badly(fp32: Path, int8: Path) -> None:
        model = onnx.load(fp32)
        words = next(tensor for tensor in model.graph.initializer if "word_embeddings" in tensor.name)
        words.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(words), words.name))
        onnx.save(model, int8)

    monkeypatch.setattr(export, "quantize_int8", quantize_badly)
    run(max_metric_drop=0.02)
    assert sorted(bytes_of(layout.EXPORTED)) == [name for name in FILES if "quantized" not in name]
    int8 = read(layout.EXPORT_METRICS)["onnx_int8"]
    assert int8["kept"] is False
    assert int8["f1_drop"] > 0.02
    assert "quantized" not in (layout.EXPORTED / "README.md").read_text(encoding="utf-8")
    assert "model_quantized.onnx" in capfd.readouterr().err


def test_int8_is_not_made_unless_asked_for(project: Path) -> None:
    run(int8=False)
    assert sorted(bytes_of(layout.EXPORTED)) == [name for name in FILES if "quantized" not in name]
    assert set(read(layout.EXPORT_METRICS)) == {"torch", "onnx_fp32"}


def relabel_a_word(choose: Callable[..., Any], surer: float) -> str:
    """Change the least or most sure prediction of torch's, and its confidence by so much; return its example."""
    table = pq.read_table(layout.PREDICTIONS)
    rows = table.to_pylist()
    row = choose(rows, key=lambda row: choose(row["confidences"]))
    word = row["confidences"].index(choose(row["confidences"]))
    row["predictions"][word] = "B-LOC" if row["predictions"][word] != "B-LOC" else "O"
    row["confidences"][word] += surer
    pq.write_table(pa.Table.from_pylist(rows, table.schema), layout.PREDICTIONS)
    return str(row["id"])


@pytest.mark.parametrize(("choose", "surer"), [(min, 0.001), (max, 0.0)])
def test_a_word_that_onnx_labels_otherwise_is_refused(project: Path, choose: Callable[..., Any], surer: float) -> None:
    before = bytes_of(layout.EXPORTED)
    example = relabel_a_word(choose, surer)
    with pytest.raises(
        UserError, match=rf"model.onnx differs from torch in 1 of \d+ predictions on test, .* example '{example}'"
    ):
        run()
    assert bytes_of(layout.EXPORTED) == before
    assert not [path for path in Path("data").iterdir() if path.name.startswith(".")]


def test_one_near_tie_is_told_and_not_refused(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    relabel_a_word(min, surer=0.00001)
    run(int8=False)
    fp32 = read(layout.EXPORT_METRICS)["onnx_fp32"]
    assert (fp32["disagreements"], fp32["near_ties"]) == (0, 1)
    assert f"agrees with torch in all {fp32['predictions']} predictions on test (near ties apart: 1)" in (
        capfd.readouterr().err
    )


@pytest.mark.parametrize(
    ("headline", "torch_score", "int8_score", "drop"),
    [
        ("f1", 0.9, 0.85, 0.05),
        ("f1", 0.9, 0.95, -0.05),
        ("perplexity", 10.0, 10.5, 0.5),
        ("perplexity", 10.0, 9.0, -1.0),
        ("loss", 2.0, 3.0, 1.0),
    ],
)
@pytest.mark.parametrize("slack", [-0.01, 0.01])
def test_int8_is_kept_within_the_drop_in_either_direction(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    headline: str,
    torch_score: float,
    int8_score: float,
    drop: float,
    slack: float,
) -> None:
    monkeypatch.setattr(export, "quantize_int8", lambda fp32, int8: int8.write_bytes(b"int8"))
    measured = {headline: int8_score, "predictions": 9, "disagreements": 1, "near_ties": 0, "mib": 0.1}
    record = export.write_int8(
        tmp_path / "model.onnx",
        tmp_path / "model_quantized.onnx",
        lambda path: (measured, ["a"]),
        {"headline": headline, "lower_is_better": ["loss", "perplexity"], "test": {headline: torch_score}},
        drop + slack,
    )
    assert record == measured | {f"{headline}_drop": pytest.approx(drop), "kept": slack > 0}
    assert (tmp_path / "model_quantized.onnx").exists() == (slack > 0)


@pytest.mark.parametrize(("forgets", "lengths"), [(False, [4, 9]), (True, [4, 9]), (False, [1])])
def test_a_decoder_that_forgets_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgets: bool, lengths: list[int]
) -> None:
    def decoder(forgets: bool) -> Any:
        """Say the number of tokens that were read; one that forgets begins anew at each call."""

        def read(tokens: list[int], kept: Any) -> tuple[np.ndarray, Any]:
            seen = len(tokens) + (0 if forgets else kept or 0)
            return np.eye(20)[seen], seen

        return SimpleNamespace(read=read)

    monkeypatch.setattr(export, "onnx_forward", lambda path, threads: decoder(forgets))
    monkeypatch.setattr(export.inference, "torch_forward", lambda model: decoder(False))
    features = pa.table({"input_ids": [list(range(length)) for length in lengths]})
    if forgets:
        with pytest.raises(
            UserError, match="beginning of feature 0 of test differently from torch: 6 of 8 tokens differ"
        ):
            export.check_memory(None, tmp_path / "model.onnx", features, None)  # type: ignore[arg-type]
    else:
        found = export.check_memory(None, tmp_path / "model.onnx", features, None)  # type: ignore[arg-type]
        assert found == {"continued_tokens": 8 if len(lengths) == 2 else 1}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_copy_that_computes_otherwise_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setattr(export.inference, "device", lambda: device)

    def copy_badly(source: Path, folder: Path, **arguments: Any) -> None:
        copytree(source, folder, **arguments)
        weights = load_file(folder / "model.safetensors")
        weights["classifier.weight"] = -weights["classifier.weight"]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    copytree = shutil.copytree
    monkeypatch.setattr(export.shutil, "copytree", copy_badly)
    monkeypatch.setattr(export, "export_onnx", export_onnx)  # of the copy, and not the first run's
    with pytest.raises(UserError, match="model.onnx differs from torch in"):
        run()


def test_beside_an_accelerator_onnx_is_compared_on_the_cpu(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout.PREDICTIONS.unlink()  # made by the accelerator: not the reference
    monkeypatch.setattr(export.inference, "device", lambda: "cuda")
    run()
    assert read(layout.EXPORT_METRICS)["onnx_fp32"]["disagreements"] == 0


def test_the_folder_is_pushed_whole_where_hub_repo_is_set(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pushed: list[Any] = []

    def push(folder: Path, repo: str, private: bool) -> str:
        pushed.append((folder, repo, private, sorted(bytes_of(folder))))
        return "https://hub/me/tagger/commit/1"

    monkeypatch.setattr(export.hub, "push", push)
    run()
    assert pushed == []
    run(hub_repo="me/tagger", hub_private=False)
    assert pushed == [(layout.EXPORTED, "me/tagger", False, FILES)]
    card = (layout.EXPORTED / "README.md").read_text(encoding="utf-8")
    assert 'model="me/tagger"' in card
    assert 'snapshot_download("me/tagger")' in card
