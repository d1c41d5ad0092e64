"""From the corpus to answers for what the contract's toy does not have: several labels, and scores of pairs."""

import json
import shutil
import unicodedata
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import Sentence, toy_recipe
from ruamel.yaml import YAML
from safetensors.numpy import load
from toy_training import ENGINES, trained
from toys import write
from transformers import AutoModelForSequenceClassification, RobertaConfig, pipeline

from finetrail import inference, layout, stage
from finetrail.params import load_recipe
from finetrail.tasks.text_classification import encoding, serving
from finetrail.training.logger import TrainingLogger
from stages import download_corpus, download_model, evaluate, export, report, tokenize, train

STAGES = (download_corpus, download_model, tokenize, train, evaluate, export, report)
PLACES = {"travel": "lives", "café": "café", "rail": "train", "question": "ask"}


def several(texts: list[str]) -> list[dict[str, Any]]:
    return [{"text": text, "labels": [name for name, word in PLACES.items() if word in text]} for text in texts]


def scored(texts: list[str]) -> list[dict[str, Any]]:
    return [{"a": text, "b": " ".join(text.split()[:4]), "score": 1000 + 10 * len(text.split())} for text in texts]


# Rows, columns, and what a recipe has for them in train and in evaluate.
CASES: dict[str, tuple[Callable[[list[str]], list[dict[str, Any]]], dict[str, str], dict[str, Any], dict[str, Any]]] = {
    "multi_label": (
        several,
        {"text": "text", "labels": "labels"},
        {"best_metric": "loss", "epochs": 40.0},
        {"positive_label": None, "threshold": 0.4},
    ),
    "regression": (
        scored,
        {"text": "a", "text_pair": "b", "score": "score"},
        {"best_metric": "mae", "epochs": 12.0, "layer_decay": 0.9, "unfreeze_layers": 2},
        {"positive_label": None, "threshold": None},
    ),
}


def make(problem: str, project: Path, parent: Path, sentences: list[Sentence], checkpoint: Path) -> None:
    """Write corpus, recipe and params.yaml of a problem."""
    rows, columns, of_train, of_evaluate = CASES[problem]
    texts = [" ".join(tokens) for tokens, _ in sentences]
    recipe = write("text_classification", toy_recipe(parent, checkpoint), texts, parent)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows(texts)]
    (parent / "toy.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    recipe["corpus"] |= {"problem": problem, "reader": recipe["corpus"]["reader"] | {"columns": columns}}
    recipe["tokenize"] |= {"max_length": 20, "overflow": "tail", "stride": None}
    recipe["train"] |= of_train
    recipe["evaluate"] |= of_evaluate
    yaml = YAML()
    (project / "recipes/text_classification").mkdir(exist_ok=True)
    yaml.dump(recipe, project / "recipes/text_classification/toy.yaml")
    params = yaml.load(project / "params.yaml")
    params.update(task="text_classification", recipe="toy")
    yaml.dump(params, project / "params.yaml")


@pytest.mark.usefixtures("restored_torch")
@pytest.mark.parametrize("problem", CASES)
def test_it_is_learned_exported_and_answered(
    problem: str,
    project: Path,
    tmp_path: Path,
    toy_sentences: list[Sentence],
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make(problem, project, tmp_path, toy_sentences, tiny_checkpoint)
    monkeypatch.chdir(project)
    for one in STAGES:
        one.main()
    metrics = stage.read_json(layout.RECORD)
    headline = {"multi_label": "micro_f1", "regression": "pearson"}[problem]
    assert metrics["headline"] == headline and metrics["export"]["onnx_fp32"]["disagreements"] == 0
    weakest = min(metrics["baselines"]["test"].values())
    assert metrics["test"][headline] > weakest + 0.2
    page = layout.REPORT.read_text(encoding="utf-8")
    tables = {"multi_label": {"per_label", "reliability", "slices"}, "regression": {"by_reference", "slices"}}[problem]
    assert {path.stem for path in layout.EVALUATION.glob("*.csv")} == tables and headline in page
    stored = pq.read_table(layout.PREDICTIONS, filters=[("split", "=", "test")]).drop_columns("split")
    expected = serving.answers(stored)
    asked = [{key: row[key] for key in ("id", "text", "text_pair") if key in row} for row in stored.to_pylist()]
    found = inference.load(layout.EXPORTED, "torch")(asked)
    assert [row["id"] for row in found] == [row["id"] for row in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.get("labels") == other.get("labels")
    if problem == "regression":
        assert [one["score"] for one in found] == pytest.approx([other["score"] for other in expected], rel=1e-6)
        assert_scores_are_in_their_own_unit(stored)


def assert_scores_are_in_their_own_unit(stored: pa.Table) -> None:
    """Compare the stored predictions with transformers' pipeline, and their error with that of the mean of train."""
    given = [{"text": row["text"], "text_pair": row["text_pair"]} for row in stored.to_pylist()]
    found = pipeline("text-classification", model=str(layout.EXPORTED))(given)
    assert [one["score"] for one in found] == pytest.approx(stored["predictions"].to_pylist(), rel=1e-6)
    assert {one["label"] for one in found} == {"score"}
    evaluation = stage.read_json(layout.EVALUATION_METRICS)
    assert evaluation["test"]["mae"] < 0.7 * evaluation["baselines"]["test"]["train_mean"]["mae"]
    assert f"its mae {evaluation['test']['mae']:.4f}." in (layout.EXPORTED / "README.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("restored_torch")
def test_scores_are_the_same_by_both_engines_and_after_a_kill(
    project: Path,
    tmp_path: Path,
    toy_sentences: list[Sentence],
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make("regression", project, tmp_path, toy_sentences, tiny_checkpoint)
    monkeypatch.chdir(project)
    for one in (download_corpus, download_model, tokenize):
        one.main()
    lora = {"rank": 2, "alpha": 4.0, "dropout": 0.0, "target_modules": None, "keep": True, "quantize": None}
    changes = {"lora": lora, "layer_decay": 1.0, "unfreeze_layers": None, "checkpoint_every": "1 updates"}
    found = {}
    for engine in ENGINES:
        run = partial(trained, "text_classification", **changes, engine=engine, epochs=3.0)
        undisturbed = run()
        with monkeypatch.context() as patch:
            patch.setattr(TrainingLogger, "updated", killed_after_three_updates)
            with pytest.raises(KeyboardInterrupt):
                run()
        assert run() == undisturbed
        found[engine] = load(undisturbed["data/trained/model.safetensors"])
    for name, values in found["trainer"].items():
        assert values == pytest.approx(found["accelerate"][name], rel=1e-4, abs=1e-4), name
    mean = stage.read_json(layout.TARGET)["mean"]
    assert found["trainer"]["classifier.bias"] == pytest.approx(mean, abs=20)
    # The head that is kept with the adapters gives scores in their own unit too.
    kept = load((layout.TRAINED / "adapter/adapter_model.safetensors").read_bytes())
    assert kept["base_model.model.classifier.bias"].tolist() == found["accelerate"]["classifier.bias"].tolist()


def killed_after_three_updates(logger: TrainingLogger, update: int) -> None:
    if update == 3:
        raise KeyboardInterrupt


@pytest.mark.parametrize("normalize", ["nfc", "none"])
def test_inputs_are_normalized_as_the_corpus_was(
    normalize: str,
    project: Path,
    tmp_path: Path,
    toy_sentences: list[Sentence],
    tiny_checkpoint: Path,
    tiny_bpe: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make("multi_label", project, tmp_path, toy_sentences, tiny_checkpoint)
    monkeypatch.chdir(project)
    yaml, path = YAML(), Path("recipes/text_classification/toy.yaml")
    recipe = yaml.load(path)
    recipe["corpus"]["normalize"] = normalize
    yaml.dump(recipe, path)
    download_corpus.main()
    target = encoding.target(tokenize.train(), load_recipe("text_classification", "toy").tokenize)
    exported = export_bytes(tiny_bpe, target, recipe, tmp_path / "model")
    composed = ["café", "한국 is far", "a"]
    decomposed = [unicodedata.normalize("NFD", text) for text in composed]

    answer = inference.load(exported)

    assert answer(composed)[:2] != answer(["cafe", "hanguk is far"])
    assert (answer(decomposed) == answer(composed)) == (normalize == "nfc")
    assert answer(decomposed)[2] == answer(composed)[2]


def export_bytes(tokenizer: Path, target: Any, recipe: dict[str, Any], folder: Path) -> Path:
    """Lay out a random model, whose tokenizer tells any two texts apart, as export does."""
    shutil.copytree(tokenizer, folder)
    names = dict(enumerate(target["label_names"]))
    config = RobertaConfig.from_pretrained(folder, id2label=names, problem_type="multi_label_classification")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    sections = {name: json.loads(json.dumps(recipe[name])) for name in ("tokenize", "evaluate")}
    stage.write_json(folder / layout.EXPORT_SETTINGS.name, {"task": "text_classification", "target": target} | sections)
    return folder
