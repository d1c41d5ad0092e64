"""Several corpora as one: each part is read, encoded, predicted and scored as it is alone, in every task."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import toy_recipe
from toy_training import ENGINES, curve, trained
from toys import TOYS, Recipe, save, write
from transformers import AutoTokenizer

from finetrail import inference, layout, tasks
from finetrail.errors import UserError
from finetrail.evaluation import inference as evaluation
from finetrail.evaluation import splits
from finetrail.evaluation.splits import Encoded
from finetrail.params import load_recipe
from finetrail.stage import read_json as read
from finetrail.training.logger import TrainingLogger
from stages import download_corpus, download_model, evaluate, export, report, tokenize, train

STAGES = (download_corpus, download_model, tokenize, train, evaluate, export, report)
MIXED = [task for task in TOYS if task != "retrieval"]
# What knows of no task is proved with the first two.
SOME = MIXED[:2]
of_some = pytest.mark.parametrize("mixed", SOME, indirect=True, scope="module")
# The parts, and their shares of the sentences.
PARTS = {"near": slice(0, 45), "far-off": slice(45, None)}
WEIGHTS = {"kind": "weight", "weights": {"near": 1.0, "far-off": 3.0}}
HELD_OUT = ("validation", "test")

pytestmark = pytest.mark.usefixtures("restored_torch")


def mixture(task: str, parent: Path, sentences: list[str], checkpoint: Path) -> Recipe:
    """Write the corpora of two parts, and return the recipe of the mixture."""
    parts, recipe = {}, {}
    for name, which in PARTS.items():
        folder = parent / name
        folder.mkdir(exist_ok=True)
        recipe = write(task, toy_recipe(parent, checkpoint), sentences[which], folder)
        parts[name] = recipe["corpus"] | {"name": f"Toy {name}", "license": "CC0-1.0"}
    recipe["corpus"] = {"name": "Toys", "license": None, "language": "en", "parts": parts}
    recipe["corpus"] |= {"heads": "shared"} if task == "text_classification" else {}
    recipe["train"] |= {"batching": {"by": "length", "mix": WEIGHTS}, "epochs": 2.0}
    return recipe


@pytest.fixture(scope="module", params=MIXED)
def mixed(request: pytest.FixtureRequest) -> Iterator[str]:
    """Enter the project of a mixture, run once, and of SOME exported and reported; the task's name."""
    task = str(request.param)
    sentences = [" ".join(tokens) for tokens, _ in request.getfixturevalue("toy_sentences")]
    parent = request.getfixturevalue("tmp_path_factory").mktemp(f"mixed_{task}")
    project = request.getfixturevalue("make_project")(parent)
    save(project, task, mixture(task, parent, sentences, request.getfixturevalue("tiny_checkpoint")))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        for one in STAGES if task in SOME else STAGES[:-2]:
            one.main()
        yield task


@pytest.fixture
def alone(mixed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return the function that gives the tables of one part, downloaded and encoded as a corpus of its own."""
    target, recipe = read(layout.TARGET), load_recipe(mixed, "toy")
    project, encoding = Path.cwd(), tasks.module(mixed, "encoding")
    tokenizer = encoding.load_tokenizer(layout.BASE_TOKENIZER, recipe.tokenize, tokenize.train)
    encoder = encoding.Encoder(tokenizer, target, recipe.tokenize)

    def tables(name: str) -> dict[str, Encoded]:
        folder = tmp_path / name
        shutil.copytree(project, folder, ignore=shutil.ignore_patterns("data", "metrics"))
        monkeypatch.chdir(folder)
        raw = json.loads(recipe.model_dump_json())
        raw["corpus"] = raw["corpus"]["parts"][name]
        raw["train"]["batching"] = "length"
        save(folder, mixed, raw)
        download_corpus.main()
        found = {}
        for split in layout.SPLITS:
            path = layout.table_file(layout.CORPUS, split)
            features = [part for part, _ in encoder.encode_table(split, tokenize.read(path, None))]
            found[split] = Encoded(pq.read_table(path), pa.concat_tables(features))
        monkeypatch.chdir(project)
        return found

    yield tables


def test_each_part_is_read_and_encoded_as_it_is_alone(mixed: str, alone: Any) -> None:
    for name in PARTS:
        for split, expected in alone(name).items():
            examples, features = splits.parts(splits.load(split))[name]
            assert features.drop_columns([layout.PART, "example"]).equals(expected.features.drop_columns("example"))
            place = features["example"].to_numpy() - features["example"].to_numpy().min()
            own = expected.features["example"].to_numpy()
            assert (place == own - own.min()).all()
            ids = [f"{name}/{one}" for one in expected.examples["id"].to_pylist()]
            whole = pq.read_table(layout.table_file(layout.CORPUS, split))
            assert [one for one in whole["id"].to_pylist() if one.startswith(f"{name}/")] == ids


def test_each_part_has_the_scores_that_it_has_alone(mixed: str, alone: Any) -> None:
    metrics, recipe, target = read(layout.EVALUATION_METRICS), load_recipe(mixed, "toy"), read(layout.TARGET)
    loading, scoring = (tasks.module(mixed, part) for part in ("loading", "scoring"))
    tokenizer = AutoTokenizer.from_pretrained(layout.TRAINED)
    forward = evaluation.torch_forward(loading.load_model(layout.TRAINED))
    assert list(metrics["parts"]) == list(PARTS)
    for name in PARTS:
        tables = alone(name)
        for split in HELD_OUT:
            predicted = scoring.predict(tables[split], {}, target, forward, tokenizer, recipe.evaluate)
            expected = evaluate.with_intervals(scoring, predicted, target, recipe.evaluate)
            assert metrics["parts"][name][split] == expected
            guesses = scoring.baselines(tables["train"], tables[split], {}, target, recipe.evaluate)
            found = metrics["parts"][name]["baselines"][split]
            for baseline, guess in guesses.items():
                assert found[baseline] == pytest.approx(scoring.score(guess, target, recipe.evaluate))


def test_the_whole_is_scored_over_all_parts(mixed: str) -> None:
    metrics, recipe, target = read(layout.EVALUATION_METRICS), load_recipe(mixed, "toy"), read(layout.TARGET)
    scoring = tasks.module(mixed, "scoring")
    stored = pq.read_table(layout.PREDICTIONS)
    for split in HELD_OUT:
        of_split = stored.filter(pa.compute.equal(stored["split"], split))
        assert set(of_split[layout.PART].to_pylist()) == set(PARTS)
        found = scoring.score(of_split, target, recipe.evaluate)
        assert found == {name: metrics[split][name] for name in found}
        ends = [json.dumps(metrics["parts"][name]) for name in PARTS]
        assert len(set(ends)) == 2  # else the parts would be no test of each other


def test_every_epoch_has_the_parts_by_their_weights(mixed: str) -> None:
    sizes = {name: len(part.features) for name, part in splits.parts(splits.load("train")).items()}
    found = read(layout.TRAINING_RECORD)["features_of_parts"]
    total = sum(sizes.values())
    assert set(found) == set(sizes)
    for epoch in range(2):
        assert sum(counts[epoch] for counts in found.values()) == pytest.approx(total, abs=1)
        assert found["far-off"][epoch] == pytest.approx(total * 3 / 4, abs=1)


@of_some
def test_checks_provenance_card_and_report_tell_of_the_parts(mixed: str) -> None:
    provenance = read(layout.CORPUS_PROVENANCE)
    assert provenance["kind"] == "parts" and provenance["license"] == "CC0-1.0"
    assert {name: part["name"] for name, part in provenance["parts"].items()} == {n: f"Toy {n}" for n in PARTS}
    headline = read(layout.RECORD)["headline"]
    table = pd.read_csv(layout.EVALUATION / "parts.csv")
    assert list(table["part"]) == [*PARTS, *PARTS]
    card, page = (path.read_text(encoding="utf-8") for path in (layout.EXPORTED / "README.md", layout.REPORT))
    for name in PARTS:
        test = read(layout.RECORD)["parts"][name]["test"][headline]
        assert f"| {name} | {read(layout.EVALUATION_METRICS)['parts'][name]['test'][headline]:.4f} |" in card
        assert test == pytest.approx(read(layout.EVALUATION_METRICS)["parts"][name]["test"][headline], rel=1e-5)
        assert f"Toy {name}" in card and name in page


@of_some
def test_the_exported_model_answers(mixed: str) -> None:
    encoded = splits.load("test")
    rows = (encoded.features if mixed == "masked_lm" else encoded.examples).to_pylist()
    expected = tasks.module(mixed, "serving").answers(
        pq.read_table(layout.PREDICTIONS, filters=[("split", "=", "test")]).drop_columns(["split", layout.PART])
    )
    found = inference.load(layout.EXPORTED)([TOYS[mixed].ask(row) for row in rows[:2]])
    for one, other in zip(found, expected, strict=False):
        assert comparable(one) == comparable(other)


def comparable(answer: dict[str, Any]) -> Any:
    """Return an answer without its id, and with numbers that may differ in their last digits rounded."""
    without = {key: value for key, value in answer.items() if key != "id"}
    return json.loads(json.dumps(without), parse_float=lambda text: round(float(text), 4))


def test_from_the_corpus_on_the_bytes_are_the_same_again(mixed: str) -> None:
    paths = [layout.table_file(layout.CORPUS, "train"), layout.features_file("train")]
    paths += [layout.TRAINED / "model.safetensors", layout.PREDICTIONS, layout.EVALUATION_METRICS]
    before = [path.read_bytes() for path in paths]
    for one in (download_corpus, tokenize, train, evaluate):
        one.main()
    assert [path.read_bytes() for path in paths] == before


@of_some
def test_mixtures_train_alike_by_both_engines_and_resume(mixed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    updated = TrainingLogger.updated

    def kill(self: TrainingLogger, update: int) -> None:
        updated(self, update)
        if update == last:
            raise KeyboardInterrupt

    undisturbed = {engine: trained(mixed, engine=engine, checkpoint_every="2 updates") for engine in ENGINES}
    one, other = (curve(files, "train/loss") for files in undisturbed.values())
    assert one == pytest.approx(other, rel=1e-5, abs=1e-5)
    last = len(one) - 1  # in the second epoch, which continues in each part where the first one ended
    for engine, files in undisturbed.items():
        with monkeypatch.context() as patch:
            patch.setattr(TrainingLogger, "updated", kill)
            with pytest.raises(KeyboardInterrupt):
                trained(mixed, engine=engine)
        assert trained(mixed, engine=engine) == files


def test_a_limit_that_leaves_nothing_of_a_part_is_refused(mixed: str) -> None:
    path = layout.table_file(layout.CORPUS, "train")
    whole = tokenize.part_rows(path, None)
    assert list(whole) == list(PARTS)
    assert np.array_equal(np.concatenate(list(whole.values())), np.arange(tokenize.row_count(path)))
    recipe = load_recipe(mixed, "toy")
    encoding = tasks.module(mixed, "encoding")
    tokenizer = encoding.load_tokenizer(layout.BASE_TOKENIZER, recipe.tokenize, tokenize.train)
    encoder = encoding.Encoder(tokenizer, read(layout.TARGET), recipe.tokenize)
    with pytest.raises(UserError, match=r"tokenize\.limit: it leaves no example of far-off in train"):
        rows = np.arange(1)
        parts = tokenize.part_rows(path, rows)
        list(tokenize.encoded(encoder, "train", tokenize.Batches(path, rows, 1), parts, map))


def test_features_keep_the_order_of_the_corpus(mixed: str) -> None:
    examples = splits.load("train").features["example"].to_numpy()
    assert (np.diff(examples) >= 0).all()
