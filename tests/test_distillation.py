"""Distillation: the loss of Hinton et al. 2015 for each task, in training only, however a batch is computed."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import toy_settings
from scipy.special import log_softmax, softmax
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, kl_div
from toy_models import BATCHES, OWN_SETTINGS, TARGETS, build, without_dropout

from finetrail import tasks
from finetrail.errors import UserError
from finetrail.labels import IGNORE_INDEX
from finetrail.model import distillation
from finetrail.patches import speedups
from finetrail.schema import Distillation
from finetrail.training import packing

TAUGHT = sorted(task for task in tasks.names() if tasks.module(task, "settings").TaughtTrain)
BEFORE = [task for task in TAUGHT if tasks.module(task, "modeling").TEACHING.taught]
SETTINGS = Distillation(temperature=2.0, labels_weight=0.3, teacher_weight=0.7)


@pytest.fixture
def logits() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a student and of a teacher, [6, 5]."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 6, 5, generator=generator) * 3
    return student, teacher


# --- the divergence -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_divergence_is_that_of_a_plain_loop(logits: Any, temperature: float) -> None:
    found = distillation.divergences(*logits, temperature)
    for value, student, teacher in zip(found, *(part.double().numpy() for part in logits), strict=True):
        expected = 0.0
        for p, q in zip(softmax(teacher / temperature), softmax(student / temperature), strict=True):
            expected += p * np.log(p / q)
        assert value.item() == pytest.approx(expected * temperature**2, rel=1e-4)


def test_at_temperature_1_it_is_soft_label_cross_entropy(logits: Any) -> None:
    student, teacher = logits
    student.requires_grad_(True)
    soft = softmax(teacher.numpy(), axis=-1)
    entropy = -(soft * log_softmax(teacher.numpy(), axis=-1)).sum()
    expected = cross_entropy(student, torch.from_numpy(soft), reduction="sum")
    found = distillation.divergences(student, teacher, 1.0).sum()
    assert found.item() == pytest.approx(expected.item() - entropy, rel=1e-5)
    of_found, of_expected = (torch.autograd.grad(loss, student)[0] for loss in (found, expected))
    assert torch.allclose(of_found, of_expected, atol=1e-6)


def test_a_high_temperature_leaves_the_gradients_as_large(logits: Any) -> None:
    """They become the difference of centred logits, over the number of labels (Hinton et al. 2015, equation 4)."""
    student, teacher = logits
    student.requires_grad_(True)
    [gradient] = torch.autograd.grad(distillation.divergences(student, teacher, 1e4).sum(), student)
    centred = [part - part.mean(-1, keepdim=True) for part in (student.detach(), teacher)]
    assert torch.allclose(gradient, (centred[0] - centred[1]) / 5, atol=2e-3)


def test_half_precision_logits_have_a_divergence_in_fp32(logits: Any) -> None:
    half = logits[0].to(torch.bfloat16)
    found = distillation.divergences(half, logits[1], 2.0)
    assert torch.equal(found, distillation.divergences(half.float(), logits[1], 2.0))


# --- the loss of each task ----------------------------------------------------------------------------------------


def taught_by(task: str, teacher: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return what the teach stage would have in the batch: of its features one after the other."""
    with torch.no_grad():
        outputs = teacher.eval()(**{name: batch[name] for name in ("input_ids", "attention_mask")})
    known = {name: value.numpy() for name, value in outputs.items() if torch.is_tensor(value)}
    lengths = batch["attention_mask"].sum(-1).tolist()
    columns = {"input_ids": [row[:end].tolist() for row, end in zip(batch["input_ids"], lengths, strict=True)]}
    if "labels" in batch:
        of_tokens = batch["labels"].ndim > 1
        rows = zip(batch["labels"], lengths, strict=True)
        columns["labels"] = [row[:end].tolist() if of_tokens else row.item() for row, end in rows]
    rows = tasks.module(task, "modeling").taught(known, pa.table(columns))
    return torch.from_numpy(np.concatenate(rows))


class Pair:
    """A student and a teacher of one task, a batch for them, and the student's loss of the labels alone."""

    def __init__(self, task: str, bert: Path, folder: Path) -> None:
        self.modeling = tasks.module(task, "modeling")
        self.student = without_dropout(build(task, bert, folder))
        self.teacher = without_dropout(build(task, bert, folder, seed=1))
        with torch.no_grad():  # a masked language model keeps its head, so that both were the same
            for number, parameter in enumerate(self.teacher.parameters()):
                parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
        self.batch, self.names = dict(BATCHES[task]), set(self.student.state_dict())
        self.student.train()
        self.plain = self.student(**self.batch)
        if task in BEFORE:
            self.batch[distillation.TAUGHT] = taught_by(task, self.teacher, BATCHES[task])
            ask = None
        else:
            ask = self.modeling.asking(self.teacher, "fp32")
        distillation.teach(self.student, self.modeling.divergence, SETTINGS, ask)


@pytest.fixture
def pair(tiny_checkpoint: Path, tmp_path: Path) -> Callable[[str], Pair]:
    return lambda task: Pair(task, tiny_checkpoint, tmp_path)


def naive(student: torch.Tensor, teacher: torch.Tensor) -> float:
    """Return the divergence of one choice, by torch's own loss."""
    probabilities = (teacher / 2).softmax(-1)
    return 4 * kl_div((student / 2).log_softmax(-1), probabilities, reduction="sum").item()


def naive_divergence(task: str, student: Any, teacher: Any, batch: dict[str, torch.Tensor]) -> float:
    """Return the mean divergence of a batch, item by item."""
    found = []
    for row, mask in enumerate(batch["attention_mask"].bool()):
        if task == "text_classification":
            found.append(naive(student.logits[row], teacher.logits[row]))
        elif task == "question_answering":
            ends = [
                naive(student[name][row][mask], teacher[name][row][mask]) for name in ("start_logits", "end_logits")
            ]
            found.append(sum(ends) / 2)
        else:
            for token, label in enumerate(batch["labels"][row]):
                if label != IGNORE_INDEX:
                    found.append(naive(student.logits[row, token], teacher.logits[row, token]))
    return float(np.mean(found))


@pytest.mark.parametrize("task", TAUGHT)
def test_the_loss_is_the_weighted_sum_of_labels_and_divergence(
    task: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """The teacher's outputs are taken from a copy that nothing has hooks on."""
    made = Pair(task, tiny_checkpoint, tmp_path)
    other = without_dropout(build(task, tiny_checkpoint, tmp_path))
    other.load_state_dict(made.teacher.state_dict())
    said = other.eval()(**{name: BATCHES[task][name] for name in ("input_ids", "attention_mask")})
    expected = 0.3 * made.plain.loss.item() + 0.7 * naive_divergence(task, made.plain, said, BATCHES[task])
    assert made.student(**made.batch).loss.item() == pytest.approx(expected, rel=1e-4)
    assert made.plain.loss.item() != pytest.approx(expected, rel=1e-2)


def test_several_labels_at_once_are_a_yes_or_no_each(tiny_checkpoint: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 4, 3, generator=generator)
    labels = torch.ones(4, 3)
    found = tasks.module("text_classification", "modeling").divergence(
        {"logits": student}, {"labels": labels}, teacher, 2.0
    )
    soft = (teacher / 2).sigmoid()
    entropy = binary_cross_entropy_with_logits(teacher / 2, soft)
    assert found.item() == pytest.approx(
        4 * (binary_cross_entropy_with_logits(student / 2, soft) - entropy).item(), rel=1e-4
    )


@pytest.mark.parametrize("task", TAUGHT)
def test_evaluation_has_the_plain_loss_and_no_teacher_is_saved(task: str, pair: Callable[[str], Pair]) -> None:
    made = pair(task)
    made.student.eval()
    assert torch.allclose(made.student(**BATCHES[task]).loss, made.plain.loss)
    assert set(made.student.state_dict()) == made.names


@pytest.mark.parametrize("task", TAUGHT)
def test_the_losses_of_parts_add_up_to_that_of_the_batch(task: str, pair: Callable[[str], Pair]) -> None:
    made = pair(task)
    whole, total = made.student(**made.batch).loss, made.modeling.num_items(made.batch)
    parts = []
    for row in range(len(made.batch["input_ids"])):
        part = {name: value[row : row + 1] for name, value in BATCHES[task].items()}
        if task in BEFORE:
            part[distillation.TAUGHT] = taught_by(task, made.teacher, part)
        parts.append(made.student(**part).loss * made.modeling.num_items(part) / total)
    assert torch.allclose(sum(parts), whole, atol=1e-5)


@pytest.mark.parametrize("way", ["speed_up", "packed"])
@pytest.mark.parametrize("task", TAUGHT)
def test_what_is_faster_has_the_same_loss_and_gradients(task: str, way: str, pair: Callable[[str], Pair]) -> None:
    made = pair(task)
    made.student(**made.batch).loss.backward()
    expected_loss = made.student(**made.batch).loss.item()
    expected = {name: parameter.grad.clone() for name, parameter in made.student.named_parameters()
                if parameter.grad is not None}  # fmt: skip
    made.student.zero_grad()
    batch = dict(made.batch)
    if way == "speed_up":
        speedups.speed_up(made.student, compiles=False)
    else:
        batch = packing.use(made.student, rounds=False, compiles=False).collator(lambda features: features)(batch)
    loss = made.student(**batch).loss
    loss.backward()
    assert loss.item() == pytest.approx(expected_loss, rel=1e-4)
    for name, parameter in made.student.named_parameters():
        if name in expected:
            assert parameter.grad is not None, name
            assert torch.allclose(parameter.grad, expected[name], atol=1e-4), name


# --- columns ------------------------------------------------------------------------------------------------------


def test_batch_logits_are_those_of_its_features_concatenated() -> None:
    rows = [np.arange(6).reshape(3, 2), np.zeros((0, 2)), np.full((1, 2), 9)]
    table = pa.table({"input_ids": [[1], [2], [3]], distillation.TAUGHT: distillation.column(rows)})
    collate = distillation.collator(lambda features: {"input_ids": torch.tensor(features["input_ids"].to_pylist())})
    batch = collate(table.take([2, 0, 1]))
    assert batch[distillation.TAUGHT].tolist() == [[9, 9], [0, 1], [2, 3], [4, 5]]
    assert batch["input_ids"].tolist() == [[3], [1], [2]]
    assert distillation.TAUGHT not in collate(table.drop_columns(distillation.TAUGHT))


# --- what is refused ----------------------------------------------------------------------------------------------


def tokenizer(**ids: int) -> Any:
    return SimpleNamespace(get_vocab=lambda: ids)


def test_a_teacher_with_another_vocabulary_is_refused() -> None:
    distillation.check_tokens(tokenizer(a=0, b=1), tokenizer(b=1, a=0))
    with pytest.raises(UserError, match="^model.teacher: 'b' is token 2 of its tokenizer and token 1 of the student's"):
        distillation.check_tokens(tokenizer(a=0, b=2), tokenizer(a=0, b=1))
    with pytest.raises(UserError, match="'c' is no token of its tokenizer and token 2 of the student's"):
        distillation.check_tokens(tokenizer(a=0, b=1), tokenizer(a=0, b=1, c=2))


@pytest.mark.parametrize("task", ["question_answering", "text_classification", "token_classification"])
def test_a_model_that_is_not_finished_is_refused(task: str, tiny_checkpoint: Path) -> None:
    with pytest.raises(UserError, match=r"^model.teacher: its weights lack .*expected a finished Bert"):
        tasks.module(task, "modeling").load_teacher(tiny_checkpoint, TARGETS[task])


def test_a_teacher_of_other_labels_or_another_problem_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    modeling, target = tasks.module("text_classification", "modeling"), TARGETS["text_classification"]
    build("text_classification", tiny_checkpoint, tmp_path).save_pretrained(tmp_path / "teacher")
    assert modeling.load_teacher(tmp_path / "teacher", target).config.num_labels == 3
    for names in (["bad", "good", "fair"], ["bad", "fair"]):
        with pytest.raises(UserError, match="^model.teacher: its labels are bad, fair, good; expected those of the"):
            modeling.load_teacher(tmp_path / "teacher", target | {"label_names": names})
    with pytest.raises(UserError, match="its problem_type is single_label_classification; expected multi_label"):
        modeling.load_teacher(tmp_path / "teacher", target | {"problem": "multi_label"})


def test_features_that_are_too_long_for_a_teacher_are_refused() -> None:
    config = SimpleNamespace(max_position_embeddings=4, model_type="bert")
    distillation.check_lengths(config, pa.table({"input_ids": [[1, 2, 3, 4]]}))
    with pytest.raises(UserError, match="^model.teacher: it takes 4 tokens, and a feature of train has 5"):
        distillation.check_lengths(config, pa.table({"input_ids": [[1], [1, 2, 3, 4, 5]]}))


def test_every_teachable_task_has_the_distillation_section() -> None:
    assert TAUGHT == ["masked_lm", "question_answering", "text_classification", "token_classification"]
    for task in TAUGHT:
        values = toy_settings(**OWN_SETTINGS.get(task, {})) | {"distillation": SETTINGS.model_dump()}
        assert tasks.module(task, "settings").TaughtTrain(**values).distillation == SETTINGS
