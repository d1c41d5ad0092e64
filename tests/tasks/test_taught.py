"""A student of each task that can be taught: its pipeline with a teacher, which is an earlier result of the same."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
import toy_training
from ruamel.yaml import YAML
from safetensors.numpy import load_file
from spread import TORCHRUN
from toys import projects

from finetrail import layout, tasks
from finetrail.errors import UserError
from finetrail.model import distillation
from stages import download_corpus, download_model, teach, tokenize, train

pytestmark = pytest.mark.usefixtures("restored_torch")

TAUGHT = sorted(task for task in tasks.names() if tasks.module(task, "settings").TaughtTrain)
BEFORE = [task for task in TAUGHT if tasks.module(task, "modeling").TEACHING.taught]
DISTILLATION = {"temperature": 2.0, "labels_weight": 0.5, "teacher_weight": 0.5}
# Each engine and process would draw its own dropout.
DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob")

Edit = Callable[[dict[str, Any]], None]


def change(task: str, edit: Edit) -> None:
    path, yaml = layout.recipe_file(task, "toy"), YAML()
    recipe = yaml.load(path)
    edit(recipe)
    yaml.dump(recipe, path)


def student(teacher: Path) -> Edit:
    """Let the recipe train one layer of its base model with this teacher."""
    source = {"kind": "file", "path": str(teacher.resolve()), "sha256": None}

    def edit(recipe: dict[str, Any]) -> None:
        recipe["model"]["layers"] = [1]
        recipe["model"]["teacher"] = {"name": "teacher", "source": source, "license": "MIT", "batch_size": 5}
        recipe["train"]["distillation"] = dict(DISTILLATION)

    return edit


@pytest.fixture(scope="module")
def taught(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Path]]:
    """Return the function that enters the project of a task, whose recipe has a student, with what it learns from."""
    with projects(request, download_corpus, download_model, tokenize, train, batching="random", warmup=0.0) as enter:

        def entered(task: str) -> Path:
            folder = enter(task)
            if not Path("teacher").exists():
                shutil.copytree(layout.TRAINED, "teacher")
                change(task, student(Path("teacher")))
                download_model.main()
                teach.main()
                config = layout.WEIGHTS / "config.json"
                config.write_text(json.dumps(json.loads(config.read_text()) | dict.fromkeys(DROPOUTS, 0.0)))
            return folder

        yield entered


def trained(task: str, **changes: Any) -> tuple[list[float], dict[str, Any]]:
    """Run the stage train with changes to the recipe's section; return its loss curve and weights."""
    toy_training.trained(task, **changes)
    return result()


def result() -> tuple[list[float], dict[str, Any]]:
    lines = Path("metrics/train/plots/metrics/train/loss.tsv").read_text().splitlines()[1:]
    return [float(line.split("\t")[1]) for line in lines], load_file(layout.TRAINED / "model.safetensors")


@pytest.mark.parametrize("task", TAUGHT)
def test_the_loss_is_the_same_by_engine_and_batch_split(task: str, taught: Callable[[str], Path]) -> None:
    taught(task)
    whole, weights = trained(task, engine="trainer", batch_size=8, gradient_accumulation=1)
    assert len(whole) > 4
    for engine, size, accumulation in (("trainer", 2, 4), ("accelerate", 4, 2))[TAUGHT.index(task) > 0 :]:
        losses, others = trained(task, engine=engine, batch_size=size, gradient_accumulation=accumulation)
        assert losses == pytest.approx(whole, rel=1e-4, abs=1e-5), (engine, size)
        for name in weights:
            if weights[name].ndim > 1:  # a softmax cancels some biases out, whose gradients are rounding errors
                assert others[name] == pytest.approx(weights[name], abs=2e-4), (engine, size, name)
    plain, _ = trained(task, batch_size=8, distillation=DISTILLATION | {"labels_weight": 1.0, "teacher_weight": 1e-9})
    toy_training.configure(task, distillation=dict(DISTILLATION))  # for the next test
    assert plain != pytest.approx(whole, rel=1e-3)


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(taught: Callable[[str], Path]) -> None:
    taught("token_classification")
    alone, weights = trained("token_classification", engine="accelerate", batch_size=8, gradient_accumulation=2)
    change("token_classification", lambda recipe: recipe["train"].update(gradient_accumulation=1))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}
    command = (sys.executable, *TORCHRUN, "127.0.0.1:0", "-m", "stages.train")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    together, others = result()
    assert together == pytest.approx(alone, rel=1e-4)
    assert all(others[name] == pytest.approx(weights[name], abs=2e-4) for name in weights)


@pytest.mark.parametrize("task", BEFORE)
def test_the_logits_are_the_teachers_for_each_feature(task: str, taught: Callable[[str], Path]) -> None:
    taught(task)
    features = pa.ipc.open_stream(layout.features_file("train").read_bytes()).read_all()
    said = pa.ipc.open_stream(layout.TAUGHT_LOGITS.read_bytes()).read_all()[distillation.TAUGHT].to_pylist()
    assert len(said) == len(features)
    teacher = tasks.module(task, "loading").load_model(Path("teacher")).eval()
    for feature, found in zip(features.to_pylist(), said, strict=True):
        names = [name for name in ("input_ids", "token_type_ids") if name in feature]
        with torch.no_grad():
            outputs = teacher(**{name: torch.tensor([feature[name]]) for name in names})
        if task == "question_answering":
            expected = torch.stack([outputs.start_logits[0], outputs.end_logits[0]], dim=-1)
        elif task == "token_classification":
            expected = outputs.logits[0][torch.tensor(feature["labels"]) != -100]
        else:
            expected = outputs.logits
        assert torch.allclose(torch.tensor(found), expected, atol=1e-4)


def test_a_masked_lm_student_asks_the_checked_teacher(
    taught: Callable[[str], Path],
) -> None:
    taught("masked_lm")
    assert pa.ipc.open_stream(layout.TAUGHT_LOGITS.read_bytes()).schema.names == []
    copied, given = (load_file(folder / "model.safetensors") for folder in (layout.TAUGHT_BY, Path("teacher")))
    assert copied.keys() == given.keys()


def test_the_record_tells_of_the_teacher_and_the_layers(taught: Callable[[str], Path]) -> None:
    taught("text_classification")
    record = json.loads(layout.MODEL_PROVENANCE.read_text())
    assert record["layers"] == [1]
    assert (record["teacher"]["name"], record["teacher"]["license"]) == ("teacher", "MIT")
    assert record["teacher"]["sha256"] != record["sha256"]
    trained("text_classification")
    training = json.loads(layout.TRAINING_RECORD.read_text())
    assert training["distillation"] == DISTILLATION
    assert json.loads((layout.TRAINED / "config.json").read_text())["num_hidden_layers"] == 1


def test_another_tokenizer_is_refused_before_a_logit_is_computed(taught: Callable[[str], Path]) -> None:
    taught("token_classification")
    file = layout.TEACHER / "tokenizer/tokenizer.json"
    original = file.read_text()
    content = json.loads(original)
    vocabulary = content["model"]["vocab"]
    first, second = list(vocabulary)[-2:]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    before = layout.TAUGHT_LOGITS.read_bytes()
    try:
        file.write_text(json.dumps(content))
        with pytest.raises(UserError, match=r"^model.teacher: '.*' is token \d+ of its tokenizer and token \d+ of the"):
            teach.main()
    finally:
        file.write_text(original)
    assert layout.TAUGHT_LOGITS.read_bytes() == before


def test_a_recipe_without_a_teacher_pays_no_import_of_torch(
    make_project: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = make_project(tmp_path)
    code = (
        "import sys; from stages import teach; teach.main();"
        "sys.exit(bool({'torch', 'transformers'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "teach: no teacher in the recipe: the model learns from the labels alone\n"
    assert pa.ipc.open_stream((folder / layout.TAUGHT_LOGITS).read_bytes()).schema.names == []
