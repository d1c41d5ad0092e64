"""One encoder with a head for each of several corpora: losses, predictions and exports are those of each head alone."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from conftest import NO_FEATURES, toy_recipe, toy_settings
from ruamel.yaml import YAML
from toy_training import ENGINES, curve, trained
from toys import Recipe, save, write
from transformers import AutoTokenizer, pipeline

from finetrail import inference, layout
from finetrail.errors import UserError
from finetrail.evaluation import splits
from finetrail.params import load_recipe
from finetrail.stage import read_json as read
from finetrail.tasks.text_classification import encoding, loading, modeling, scoring
from finetrail.tasks.text_classification.settings import Train, heads_of
from stages import download_corpus, download_model, evaluate, export, report, tokenize, train

STAGES = (download_corpus, download_model, tokenize, train, evaluate, export, report)
# Both parts have a label "other", which is not the same.
LABELS = {"topic": ["other", "travel"], "length": ["long", "other"]}
DISTILLATION = {"temperature": 2.0, "labels_weight": 0.5, "teacher_weight": 0.5}

pytestmark = pytest.mark.usefixtures("restored_torch")


def heads(parent: Path, sentences: list[str], checkpoint: Path) -> Recipe:
    """Write two corpora of the same texts, labelled by topic and by length; return the recipe of both."""
    parts, recipe = {}, {}
    for name in LABELS:
        folder = parent / name
        folder.mkdir()
        recipe = write("text_classification", toy_recipe(parent, checkpoint), sentences, folder)
        if name == "length":
            rows = [{"text": text, "label": "long" if len(text.split()) > 6 else "other"} for text in sentences]
            (folder / "toy.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
        parts[name] = recipe["corpus"] | {"name": f"Toy {name}"}
    recipe["corpus"] = {"name": "Toys", "license": None, "language": "en", "heads": "separate", "parts": parts}
    recipe["train"] |= {"epochs": 20.0}
    recipe["evaluate"] |= {"positive_label": None}
    return recipe


@pytest.fixture(scope="module")
def exported(request: pytest.FixtureRequest) -> Iterator[None]:
    """Enter the project of two heads, run once through all stages."""
    sentences = [" ".join(tokens) for tokens, _ in request.getfixturevalue("toy_sentences")]
    parent = request.getfixturevalue("tmp_path_factory").mktemp("heads")
    project = request.getfixturevalue("make_project")(parent)
    save(project, "text_classification", heads(parent, sentences, request.getfixturevalue("tiny_checkpoint")))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        for one in STAGES:
            one.main()
        yield


def stored(part: str) -> list[dict[str, Any]]:
    rows = pq.read_table(layout.PREDICTIONS, filters=[("split", "=", "test"), (layout.PART, "=", part)]).to_pylist()
    return list(rows)


@pytest.mark.usefixtures("exported")
def test_labels_are_those_of_their_part() -> None:
    target = read(layout.TARGET)
    assert target["label_names"] == ["length/long", "length/other", "topic/other", "topic/travel"]
    assert heads_of(target) == {"length": [0, 1], "topic": [2, 3]}
    checks = read(layout.CORPUS_CHECKS)
    assert sorted(checks["splits"]["train"]["labels"]) == target["label_names"]
    assert heads_of({key: value for key, value in target.items() if key != "heads"}) == {}


@pytest.mark.usefixtures("exported")
def test_both_parts_are_learned_though_the_texts_are_the_same() -> None:
    metrics = read(layout.RECORD)
    for part in LABELS:
        majority = read(layout.EVALUATION_METRICS)["parts"][part]["baselines"]["test"]["majority"]["accuracy"]
        assert metrics["parts"][part]["test"]["accuracy"] > majority


@pytest.mark.usefixtures("exported")
def test_label_probabilities_of_a_part_sum_to_one() -> None:
    for part, labels in LABELS.items():
        for row in stored(part):
            assert row["predictions"] in {f"{part}/{label}" for label in labels}
            own = {name: value for name, value in row["probabilities"].items() if name.startswith(f"{part}/")}
            assert sum(own.values()) == pytest.approx(1, abs=1e-6)
            assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-6)


@pytest.mark.usefixtures("exported")
def test_the_loss_is_that_of_each_head_and_moves_no_other() -> None:
    target = read(layout.TARGET)
    settings = Train.model_validate(toy_settings(label_smoothing=0.0, class_weights=None, best_metric="accuracy"))
    torch.manual_seed(0)
    model = modeling.build_model(layout.WEIGHTS, target, settings, NO_FEATURES)
    ids = torch.randint(5, 20, (4, 7))
    labels = torch.tensor([0, 1, 3, 2])
    for training in (True, False):
        model.train(training)
        torch.manual_seed(1)
        found = model(input_ids=ids, labels=labels)
        torch.manual_seed(1)
        logits = model(input_ids=ids)["logits"].detach()
        naive = [
            -torch.log_softmax(row[[0, 1]] if label < 2 else row[[2, 3]], -1)[int(label) % 2]
            for row, label in zip(logits, labels, strict=True)
        ]
        assert torch.isfinite(logits).all()
        assert float(found["loss"].detach()) == pytest.approx(float(torch.stack(naive).mean()), rel=1e-5)
    model.zero_grad()
    model(input_ids=ids[:2], labels=labels[:2])["loss"].backward()
    moved = model.classifier.weight.grad.abs().sum(-1) > 0
    assert moved.tolist() == [True, True, False, False]


@pytest.mark.usefixtures("exported")
@pytest.mark.parametrize("part", LABELS)
def test_each_head_is_exported_as_a_plain_classifier(part: str) -> None:
    folder = layout.EXPORTED / "parts" / part
    model, whole = loading.load_model(folder), loading.load_model(layout.TRAINED)
    assert list(model.config.id2label.values()) == LABELS[part]
    outputs = heads_of(read(layout.TARGET))[part]
    assert torch.equal(model.classifier.weight, whole.classifier.weight[outputs])
    for name, weight in model.base_model.state_dict().items():
        assert torch.equal(weight, whole.base_model.state_dict()[name])
    short = [row for row in stored(part) if len(row["text"].split()) < 6]  # others are in windows
    classify = pipeline("text-classification", model=str(folder), tokenizer=AutoTokenizer.from_pretrained(folder))
    found = [answer["label"] for answer in classify([row["text"] for row in short])]
    assert [f"{part}/{label}" for label in found] == [row["predictions"] for row in short]
    assert read(layout.EXPORT_METRICS)[f"parts/{part}/onnx_fp32"]["disagreements"] == 0


@pytest.mark.usefixtures("exported")
@pytest.mark.parametrize("runtime", ["torch", "onnx"])
@pytest.mark.parametrize("part", LABELS)
def test_a_heads_folder_gives_the_stored_predictions(part: str, runtime: Any) -> None:
    answers = inference.load(layout.EXPORTED / "parts" / part, runtime)([row["text"] for row in stored(part)])
    assert [f"{part}/{answer['label']}" for answer in answers] == [row["predictions"] for row in stored(part)]
    for answer, row in zip(answers, stored(part), strict=True):
        assert answer["confidence"] == pytest.approx(row["confidences"], abs=1e-4)


@pytest.mark.usefixtures("exported")
def test_the_whole_says_which_folders_answer() -> None:
    predict = inference.load(layout.EXPORTED)
    with pytest.raises(
        UserError, match="the model has heads for length, topic; expected the folder of one: parts/length"
    ):
        predict(["Ada lives here ."])


@pytest.mark.usefixtures("exported")
def test_cards_tell_of_their_part() -> None:
    for part, labels in LABELS.items():
        card = (layout.EXPORTED / "parts" / part / "README.md").read_text(encoding="utf-8")
        score = read(layout.EVALUATION_METRICS)["parts"][part]["test"]["accuracy"]
        assert f"fine-tuned on Toy {part}" in card and f"its accuracy is {score:.4f}" in card
        assert all(f"`{label}`" in card for label in labels) and "/" not in card.split("## Labels")[1].split("##")[0]


@pytest.mark.usefixtures("exported")
def test_the_whole_models_card_asks_head_by_head() -> None:
    card = (layout.EXPORTED / "README.md").read_text(encoding="utf-8")
    assert "python -m finetrail.predict path/to/this/folder/parts/length --input" in card


@pytest.mark.usefixtures("exported")
def test_a_head_goes_on_where_the_multi_task_training_ended() -> None:
    folder, target = layout.EXPORTED / "parts/topic", {"problem": "single_label", "label_names": LABELS["topic"]}
    settings = load_recipe("text_classification", "toy").train
    model = modeling.build_model(folder, target, settings, NO_FEATURES)
    kept = loading.load_model(folder).state_dict()
    assert all(torch.equal(weight, kept[name]) for name, weight in model.state_dict().items() if name in kept)


@pytest.mark.usefixtures("exported")
def test_baselines_choose_among_the_labels_of_the_part() -> None:
    target, settings = read(layout.TARGET), load_recipe("text_classification", "toy").evaluate
    whole = scoring.baselines(splits.load("train"), splits.load("test"), {}, target, settings)
    parts = splits.load("test").examples[layout.PART].to_pylist()
    for guess in whole.values():
        assert [label.split("/")[0] for label in guess["predictions"].to_pylist()] == parts


def test_shares_of_no_own_label_are_all_alike() -> None:
    own = np.array([[True, True, False], [False, False, True]])
    found = scoring.restricted(np.array([[0.0, 0.0, 1.0], [0.5, 0.25, 0.25]]), own)
    assert found.tolist() == [[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]


@pytest.mark.usefixtures("exported")
def test_both_engines_train_heads_alike() -> None:
    runs = [trained("text_classification", engine=engine, epochs=2.0) for engine in ENGINES]
    names = [
        name.removeprefix("metrics/train/plots/metrics/").removesuffix(".tsv")
        for name in runs[0]
        if name.endswith(".tsv")
    ]
    curves = [{name: curve(files, name) for name in names} for files in runs]
    assert curves[0].keys() == curves[1].keys()
    for name in curves[0]:
        assert curves[0][name] == pytest.approx(curves[1][name], rel=1e-5, abs=1e-5)


@pytest.mark.usefixtures("exported")
def test_a_head_of_one_label_is_refused() -> None:
    table = pq.read_table(layout.table_file(layout.CORPUS, "train"))
    without = table.filter(pc.not_equal(table["label"], "topic/travel"))
    with pytest.raises(UserError, match="train: 'topic/other' is the only label of topic; expected two or more"):
        encoding.target(iter([without]), load_recipe("text_classification", "toy").tokenize)


@pytest.mark.usefixtures("exported")
@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("train", "label_smoothing", 0.1, r"other\.yaml: train\.label_smoothing: it is not supported with"),
        ("evaluate", "positive_label", "other", r"other\.yaml: evaluate\.positive_label: the heads have"),
        (
            "train",
            "distillation",
            DISTILLATION,
            r"train\.distillation compares all labels, and each head",
        ),
    ],
)
def test_settings_that_do_not_go_with_heads_are_refused(section: str, key: str, value: Any, message: str) -> None:
    path, yaml = layout.recipe_file("text_classification", "toy"), YAML()
    recipe = yaml.load(path)
    recipe[section][key] = value
    yaml.dump(recipe, path.with_name("other.yaml"))
    with pytest.raises(UserError, match=message):
        load_recipe("text_classification", "other")
