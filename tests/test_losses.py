"""Label smoothing and class weights: the losses of the textbooks, in training only, and nothing of them is saved."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import PLAIN_LOSS, toy_settings
from datasets import Dataset
from pydantic import ValidationError
from scipy.special import log_softmax
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import cross_entropy
from toy_models import BATCHES, OWN_SETTINGS, TARGETS
from transformers.trainer_pt_utils import LabelSmoother

from finetrail import tasks
from finetrail.errors import UserError
from finetrail.labels import IGNORE_INDEX
from finetrail.model import losses
from finetrail.schema import ClassifierTrain

CLASSIFIERS = sorted(task for task, own in OWN_SETTINGS.items() if own == PLAIN_LOSS)
NAMES = {
    "text_classification": TARGETS["text_classification"]["label_names"],
    "token_classification": TARGETS["token_classification"],
}
# 2, 6 and 4 of the three labels.
LABELS: dict[str, Any] = {
    "text_classification": [0, 1, 1, 2, 1, 2, 1, 0, 2, 1, 2, 1],
    "token_classification": [[-100, 0, 1, 1, -100], [2, 1, -100, 2], [1, 0, 2], [-100, 1, 2], [1]],
}

Build = Callable[..., Any]


@pytest.fixture
def build(tiny_checkpoint: Path) -> Build:
    """Return the function that builds a classifier without dropout, with the features of LABELS as its train split."""

    def run(task: str, **changes: Any) -> Any:
        settings = ClassifierTrain(**toy_settings(**PLAIN_LOSS | changes))
        torch.manual_seed(0)
        train = Dataset(pa.table({"labels": LABELS[task]}))
        model = tasks.module(task, "modeling").build_model(tiny_checkpoint, TARGETS[task], settings, train)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        return model

    return run


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [4, 7, 5] and labels [4, 7], some of them none."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(5, (4, 7), generator=generator)
    labels[torch.rand(4, 7, generator=generator) < 0.3] = IGNORE_INDEX
    return torch.randn(4, 7, 5, generator=generator) * 3, labels


WEIGHTS = torch.tensor([0.2, 1.0, 3.0, 0.5, 2.0])


# --- the loss -----------------------------------------------------------------------------------------------------


def test_weights_are_those_of_torch_over_the_number_of_items(batch: Any) -> None:
    logits, labels = batch
    summed = cross_entropy(logits.flatten(0, 1), labels.flatten(), weight=WEIGHTS, reduction="sum")
    found = losses.classifier_loss(logits, labels, WEIGHTS, 0.0)
    assert torch.allclose(found, summed / (labels != IGNORE_INDEX).sum())


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
def test_smoothing_is_that_of_the_trainer(batch: Any, smoothing: float) -> None:
    logits, labels = batch
    expected = LabelSmoother(smoothing)({"logits": logits}, labels)
    assert torch.allclose(losses.classifier_loss(logits, labels, torch.ones(5), smoothing), expected)


def test_smoothed_losses_are_weighted_by_label(batch: Any) -> None:
    logits, labels = batch
    terms = []
    for scores, label in zip(logits.flatten(0, 1).numpy(), labels.flatten().tolist(), strict=True):
        if label != IGNORE_INDEX:
            wanted = np.full(5, 0.2 / 5)
            wanted[label] += 0.8
            terms.append(WEIGHTS[label].item() * -(wanted * log_softmax(scores)).sum())
    found = losses.classifier_loss(logits, labels, WEIGHTS, 0.2)
    assert found.item() == pytest.approx(np.mean(terms), rel=1e-6)


def test_the_losses_of_parts_add_up_to_that_of_the_batch(batch: Any) -> None:
    logits, labels = batch
    whole = losses.classifier_loss(logits, labels, WEIGHTS, 0.1)
    parts = [
        losses.classifier_loss(logits[rows], labels[rows], WEIGHTS, 0.1) * (labels[rows] != IGNORE_INDEX).sum()
        for rows in ([0], [1, 3], [2])
    ]
    assert torch.allclose(sum(parts) / (labels != IGNORE_INDEX).sum(), whole)


def test_half_precision_logits_have_a_loss_in_fp32(batch: Any) -> None:
    logits, labels = batch
    half = logits.to(torch.bfloat16)
    assert torch.equal(
        losses.classifier_loss(half, labels, WEIGHTS, 0.1), losses.classifier_loss(half.float(), labels, WEIGHTS, 0.1)
    )


# --- the weights --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", CLASSIFIERS)
def test_balanced_weights_are_scikit_learns_with_mean_1(task: str) -> None:
    flat = np.concatenate([np.atleast_1d(labels) for labels in LABELS[task]])
    flat = flat[flat != IGNORE_INDEX]
    found = losses.class_weights("balanced", NAMES[task], Dataset(pa.table({"labels": LABELS[task]})))
    assert found.dtype == torch.float32
    assert found.numpy() == pytest.approx(compute_class_weight("balanced", classes=np.arange(3), y=flat))
    assert found[torch.as_tensor(flat)].mean().item() == pytest.approx(1)


def test_labels_are_counted_over_chunks_and_of_chosen_rows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "FEATURES_AT_ONCE", 3)
    rows = [[row % 4] * (row % 3) + [IGNORE_INDEX] for row in range(25)]
    table = pa.table({"labels": pa.chunked_array([rows[:7], rows[7:]], pa.list_(pa.int32())), "example": range(25)})
    chosen = [20, 3, 4, 11, 8]
    expected = np.bincount(np.concatenate([[row % 4] * (row % 3) for row in chosen]).astype(int), minlength=5)
    assert losses.label_counts(Dataset(table).select(chosen), 5).tolist() == expected.tolist()


def test_a_label_that_train_lacks_weighs_1_and_changes_no_other() -> None:
    train = Dataset(pa.table({"labels": [0, 0, 0, 2]}))
    assert losses.class_weights("balanced", ["a", "b", "c"], train).tolist() == pytest.approx([4 / 6, 1, 4 / 2])


@pytest.mark.parametrize("task", CLASSIFIERS)
@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_weights_are_asked_for_all_labels_and_no_others(build: Build, task: str, change: str) -> None:
    names = NAMES[task][1:] if change == "missing" else [*NAMES[task], "zzz"]
    message = f"train.class_weights has the labels {', '.join(sorted(names))}; expected .*: {', '.join(NAMES[task])}$"
    with pytest.raises(UserError, match=message):
        build(task, class_weights=dict.fromkeys(names, 1.0))


# --- the models ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", CLASSIFIERS)
@pytest.mark.parametrize(
    ("label_smoothing", "class_weights"), [(0.1, None), (0.0, "balanced"), (0.2, "balanced"), (0.1, "given")]
)
def test_own_loss_in_training_plain_loss_in_validation(
    build: Build, task: str, label_smoothing: float, class_weights: Any
) -> None:
    values, batch = (
        {"balanced": [2.0, 12 / 18, 1.0], "given": [0.5, 2.0, 7.0], None: [1.0] * 3}[class_weights],
        BATCHES[task],
    )
    if class_weights == "given":
        class_weights = dict(zip(reversed(NAMES[task]), reversed(values), strict=True))
    model = build(task, label_smoothing=label_smoothing, class_weights=class_weights)

    trained = model.train()(**batch)
    expected = losses.classifier_loss(trained.logits, batch["labels"], torch.tensor(values), label_smoothing)
    assert torch.allclose(trained.loss, expected, atol=1e-6)
    trained.loss.backward()
    assert model.classifier.weight.grad.any()
    validated = model.eval()(**batch)
    assert torch.allclose(validated.loss, cross_entropy(validated.logits.flatten(0, -2), batch["labels"].flatten()))
    assert not torch.allclose(validated.loss, trained.loss)
    assert model.train()(**{name: batch[name] for name in batch if name != "labels"}).loss is None


@pytest.mark.parametrize("task", CLASSIFIERS)
def test_a_model_with_another_loss_compiles_whole(build: Build, task: str) -> None:
    model = build(task, label_smoothing=0.1, class_weights="balanced").train()
    expected = model(**BATCHES[task]).loss
    model.compile(backend="eager", fullgraph=True)
    assert torch.allclose(model(**BATCHES[task]).loss, expected, atol=1e-6)


@pytest.mark.parametrize("task", CLASSIFIERS)
def test_nothing_of_the_loss_is_saved(build: Build, tmp_path: Path, task: str) -> None:
    build(task).save_pretrained(tmp_path / "plain")
    build(task, label_smoothing=0.1, class_weights="balanced").save_pretrained(tmp_path / "other")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


@pytest.mark.parametrize("task", CLASSIFIERS)
def test_where_neither_is_asked_for_the_model_is_left_alone(build: Build, task: str) -> None:
    model = build(task)
    assert not model._forward_hooks and not hasattr(model, "class_weights")


# --- the settings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("class_weights", ["ballanced", {"O": 0}, {"O": -1.0}, {1: 2.0}, {"O": float("nan")}, 3, ["O"]])
def test_other_class_weights_are_refused_in_one_sentence(class_weights: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        ClassifierTrain(**toy_settings(label_smoothing=0.0, class_weights=class_weights))
    (problem,) = caught.value.errors()
    assert "expected balanced, null, or a weight above 0 for each label" in problem["msg"]


@pytest.mark.parametrize("label_smoothing", [-0.1, 1.0])
def test_smoothing_is_a_share_below_1(label_smoothing: float) -> None:
    with pytest.raises(ValidationError, match="label_smoothing"):
        ClassifierTrain(**toy_settings(label_smoothing=label_smoothing, class_weights=None))
