"""Training on a CPU, made faster: dropout, attention, the last layer, memory."""

import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from finetrail.labels import IGNORE_INDEX
from finetrail.patches import attention, attention_masks, dropout, memory, speedups
from finetrail.patches.architectures import LIKE_BERT
from finetrail.patches.labelled_tokens import compute_labelled_tokens_only
from finetrail.training.memory import checkpoint_gradients

ENCODERS = ["bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta"]
SIZES = {"vocab_size": 50, "num_labels": 3, "max_position_embeddings": 40, "pad_token_id": 1}
SMALL = SIZES | {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
DISTILLED = SIZES | {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}
GENERATOR = {"vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40}
# Keys and values for half of the heads.
GROUPED = SMALL | {"num_key_value_heads": 1, "attention_dropout": 0.3}


def made(auto_class: Any, kind: str) -> Any:
    """Make a small model of an architecture, the same each time."""
    torch.manual_seed(0)
    sizes = {"distilbert": DISTILLED, "gpt2": GENERATOR, "llama": GROUPED}.get(kind, SMALL)
    return auto_class.from_config(AutoConfig.for_model(kind, **sizes)).train()


def batch(labels: Any) -> dict[str, torch.Tensor]:
    """Make three texts, padded to 9 tokens."""
    ids = torch.randint(3, 50, (3, 9), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(9) < torch.tensor([[9], [4], [7]])).long()
    return {"input_ids": ids * mask + (1 - mask), "attention_mask": mask, "labels": labels(ids)}


def gradients(model: Any, inputs: dict[str, torch.Tensor]) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = model(**inputs).loss
    loss.backward()
    return loss.item(), {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def same(one: tuple[float, dict[str, torch.Tensor]], other: tuple[float, dict[str, torch.Tensor]]) -> None:
    """Assert that two losses and their gradients are equal, but for rounding."""
    assert one[0] == pytest.approx(other[0], abs=1e-5)
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        torch.testing.assert_close(
            gradient, other[1][name], atol=2e-5, rtol=1e-4, msg=lambda text, n=name: f"{n} {text}"
        )


@pytest.fixture
def nothing_dropped(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let every mask keep all: what remains is all but chance."""
    for module in (attention, dropout):
        monkeypatch.setattr(module, "scaled_mask", lambda shape, p, dtype: torch.ones(*shape, dtype=dtype))
    yield


@pytest.fixture(autouse=True)
def no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("p", [0.001, 0.1, 0.5, 0.99])
def test_a_mask_has_the_rate_and_scale_of_torchs_dropout(dtype: torch.dtype, p: float) -> None:
    torch.manual_seed(1)
    mask = dropout.scaled_mask((500, 801), p, dtype)
    assert mask.dtype == dtype and mask.shape == (500, 801)
    kept = mask[mask != 0]
    scale = torch.ones((), dtype=dtype).div_(1 - p)
    torch.testing.assert_close(kept, scale.expand_as(kept), rtol=torch.finfo(dtype).eps, atol=0)
    assert 1 - len(kept) / mask.numel() == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / mask.numel()) + 2**-17)


def test_neighbours_rows_and_masks_are_dropped_independently() -> None:
    torch.manual_seed(2)
    kept = torch.stack([dropout.scaled_mask((400, 1000), 0.1, torch.bfloat16) for _ in range(2)]).bool().float() - 0.9
    for pair in (
        kept[..., :-1] * kept[..., 1:],
        kept[:, :-1] * kept[:, 1:],
        kept[0] * kept[1],
        kept[..., 4:] * kept[..., :-4],
    ):
        assert abs(pair.mean().item()) < 5 * 0.09 / math.sqrt(pair.numel())


def test_masks_follow_torchs_generator_alone() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, second = (dropout.scaled_mask((7, 3), 0.5, torch.float32) for _ in range(2))
    torch.set_rng_state(state)
    assert torch.equal(dropout.scaled_mask((7, 3), 0.5, torch.float32), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("shape", [(0,), (1,), (3, 5), (2, 0, 4), ()])
def test_a_mask_has_any_shape(shape: tuple[int, ...]) -> None:
    assert dropout.scaled_mask(shape, 0.1, torch.bfloat16).shape == shape


def test_dropout_multiplies_values_and_gradients_by_one_mask() -> None:
    layer = dropout.Dropout(0.4)
    values = torch.randn(30, 20, requires_grad=True)
    dropped = layer(values)
    dropped.sum().backward()
    assert torch.equal(dropped, values * values.grad)
    assert values.grad is not None and values.grad.unique().tolist() == [0.0, pytest.approx(1 / 0.6)]


def test_dropout_is_torchs_own_where_it_draws_nothing() -> None:
    values = torch.randn(4, 5)
    assert torch.equal(dropout.Dropout(0.4).eval()(values), values)
    assert torch.equal(dropout.Dropout(0.0)(values), values)
    assert not dropout.Dropout(1.0)(values).any()
    changed = values.clone()
    assert dropout.Dropout(0.5, inplace=True)(changed) is changed


def test_only_torchs_own_dropout_layers_change_and_no_weight() -> None:
    class Special(nn.Dropout):
        pass

    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.3), Special(0.3))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    dropout.use_scaled_masks(model)
    assert [type(layer) for layer in model] == [nn.Linear, dropout.Dropout, Special]
    assert model[1].p == 0.3
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())


@pytest.mark.parametrize("masking", ["none", "padding", "causal", "addend"])
@pytest.mark.parametrize("scaling", [None, 0.5])
def test_attention_is_that_of_sdpa_but_for_dropout(masking: str, scaling: float | None, nothing_dropped: None) -> None:
    module = nn.Module()
    mask = {
        "padding": (torch.arange(6) < torch.tensor([[6], [4]]))[:, None, None].expand(2, 1, 6, 6),
        "addend": torch.randn(2, 1, 6, 6),
    }.get(masking)
    states = [torch.randn(2, 6, 3, 8).transpose(1, 2).requires_grad_() for _ in range(3)]
    options = {"scaling": scaling, "is_causal": masking == "causal"}
    given, none = attention.attend(module, *states, mask, dropout=0.1, **options)
    expected, _ = sdpa_attention_forward(module, *states, mask, dropout=0.0, **options)
    assert none is None
    torch.testing.assert_close(given, expected)
    weighting = torch.randn_like(given)
    for one, other in zip(
        torch.autograd.grad((given * weighting).sum(), states),
        torch.autograd.grad((expected * weighting).sum(), states),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_attention_drops_weights_and_keeps_their_mean() -> None:
    torch.manual_seed(4)
    query, key = torch.randn(1, 1, 5, 4), torch.randn(1, 1, 5, 4)
    value = torch.eye(5)[None, None]  # so that what comes out are the weights
    drawn = torch.stack(
        [attention.attend(nn.Module(), query, key, value, None, 0.25, is_causal=False)[0] for _ in range(4000)]
    )
    weights, _ = sdpa_attention_forward(nn.Module(), query, key, value, None, is_causal=False)
    torch.testing.assert_close(drawn.mean(0), weights, atol=0.02, rtol=0)
    assert (drawn == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)


def test_without_dropout_attention_is_sdpa_itself() -> None:
    states = [torch.randn(2, 3, 6, 8) for _ in range(3)]
    given, _ = attention.attend(nn.Module(), *states, None, is_causal=False)
    expected, _ = sdpa_attention_forward(nn.Module(), *states, None, is_causal=False)
    assert torch.equal(given, expected)


CLASSES = {"classifier": AutoModelForSequenceClassification, "tagger": AutoModelForTokenClassification}


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("head", CLASSES)
def test_a_sped_up_model_has_the_plain_losses_and_gradients(head: str, kind: str, nothing_dropped: None) -> None:
    inputs = batch(lambda ids: torch.tensor([0, 2, 1]) if head == "classifier" else ids % 3)
    plain, fast = (made(CLASSES[head], kind) for _ in range(2))
    speedups.speed_up(fast, compiles=False)
    for module in plain.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    same(gradients(fast, inputs), gradients(plain, inputs))
    torch.testing.assert_close(fast.eval()(**inputs).logits, plain.eval()(**inputs).logits)
    assert fast.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_sped_up_generator_has_the_plain_losses_and_gradients(kind: str, nothing_dropped: None) -> None:
    inputs = batch(lambda ids: ids)
    plain, fast = (made(AutoModelForCausalLM, kind) for _ in range(2))
    for module in (*plain.modules(), *fast.modules()):
        if isinstance(module, nn.Dropout):
            module.p = 0.1 * (module in fast.modules())
        if kind == "llama" and hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0  # grouped heads stay with sdpa, which would draw
    speedups.speed_up(fast, compiles=False)
    same(gradients(fast, inputs), gradients(plain, inputs))


def test_dropout_bytes_repeat_with_the_seed() -> None:
    inputs = batch(lambda ids: ids % 3)
    found = []
    torch.use_deterministic_algorithms(True)
    for seed in (5, 5, 6):
        model = made(AutoModelForTokenClassification, "bert")
        speedups.speed_up(model, compiles=False)
        torch.manual_seed(seed)
        with torch.autocast("cpu", torch.bfloat16):
            found.append(gradients(model, inputs))
    torch.use_deterministic_algorithms(False)
    assert found[0][0] == found[1][0] != found[2][0]
    assert all(torch.equal(found[0][1][name], found[1][1][name]) for name in found[0][1])


def test_gradient_checkpointing_draws_the_same_masks_again() -> None:
    inputs = batch(lambda ids: torch.tensor([0, 2, 1]))
    found = []
    for checkpointing in (False, True):
        model = made(AutoModelForSequenceClassification, "bert")
        speedups.speed_up(model, compiles=False)
        if checkpointing:
            model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        torch.manual_seed(7)
        found.append(gradients(model, inputs))
    same(*found)


@pytest.mark.parametrize("head", CLASSES.values())
def test_where_an_accelerator_trains_only_masks_change(head: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    model = made(head, "bert")
    speedups.speed_up(model, compiles=False)
    assert not any(isinstance(module, dropout.Dropout) for module in model.modules())
    assert model.config._attn_implementation == attention_masks.NAME
    assert not model.base_model.encoder.layer[-1].attention.output._forward_pre_hooks


def test_what_is_saved_names_no_attention_of_ours(tmp_path: Any) -> None:
    model = made(AutoModelForSequenceClassification, "bert")
    speedups.speed_up(model, compiles=False)
    assert model.config._attn_implementation == attention.NAME
    model.save_pretrained(tmp_path)
    assert (tmp_path / "config.json").read_text().count("attn_implementation") == 0
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path).config._attn_implementation == "sdpa"


@pytest.mark.parametrize("kind", sorted(LIKE_BERT))
def test_the_last_layer_computes_the_first_token_for_classifiers(kind: str) -> None:
    model = made(AutoModelForSequenceClassification, kind)
    speedups.speed_up(model, compiles=False)
    assert model.base_model(**{k: v for k, v in batch(len).items() if k != "labels"})[0].shape == (3, 1, 16)


def test_a_classifier_of_other_layers_keeps_its_last_layer() -> None:
    model = made(AutoModelForSequenceClassification, "distilbert")
    speedups.speed_up(model, compiles=False)
    inputs = {name: value for name, value in batch(len).items() if name != "labels"}
    assert model.base_model(**inputs)[0].shape == (3, 9, 16)


def some_labelled(ids: torch.Tensor) -> torch.Tensor:
    """Give a third of the tokens a label of two, the first of each text among them."""
    return torch.where(torch.arange(9) % 3 == 0, ids % 2, IGNORE_INDEX)


@pytest.mark.parametrize(
    ("kind", "checkpointing"),
    [(kind, False) for kind in (*ENCODERS, "albert", "deberta-v2", "modernbert", "mpnet")]
    + [("bert", True), ("distilbert", True)],
)
@pytest.mark.parametrize("head", [AutoModelForMaskedLM, AutoModelForTokenClassification])
def test_labelled_tokens_alone_give_the_same_losses(head: Any, kind: str, checkpointing: bool) -> None:
    inputs = batch(some_labelled)
    plain, fast = (made(head, kind) for _ in range(2))
    for module in (*plain.modules(), *fast.modules()):
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    compute_labelled_tokens_only(fast, compiles=False)
    if checkpointing:
        checkpoint_gradients(fast)
    same(gradients(fast, dict(inputs)), gradients(plain, dict(inputs)))
    assert fast(**inputs).logits.shape[:2] == (1, 9)
    unlabelled = {name: value for name, value in inputs.items() if name != "labels"}
    assert fast(**unlabelled).logits.shape[:2] == (3, 9)
    assert fast.eval()(**inputs).logits.shape[:2] == (3, 9)  # evaluation sees all
    assert fast.base_model(**unlabelled)[0].shape[:2] == (3, 9)


@pytest.mark.slow  # the compiler takes its time
@pytest.mark.parametrize("head", [AutoModelForMaskedLM, AutoModelForTokenClassification])
def test_a_compiled_model_has_the_losses_and_gradients_of_eager(head: Any) -> None:
    plain, compiled = (made(head, "bert") for _ in range(2))
    for module in (*plain.modules(), *compiled.modules()):
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    speedups.speed_up(compiled, compiles=True)
    compiled.compile(backend="eager", dynamic=True)
    for length in (9, 6):
        inputs = {name: value[:, :length].contiguous() for name, value in batch(some_labelled).items()}
        same(gradients(compiled, dict(inputs)), gradients(plain, dict(inputs)))


def test_a_tagger_whose_own_loss_reads_the_mask_is_left_as_it_is() -> None:
    model = made(AutoModelForTokenClassification, "xlm-roberta-xl")
    speedups.speed_up(model, compiles=False)
    assert model(**batch(some_labelled)).logits.shape[:2] == (3, 9)


@pytest.mark.parametrize("kind", sorted(LIKE_BERT))
def test_the_last_layer_computes_labelled_tokens_for_taggers(kind: str) -> None:
    model = made(AutoModelForTokenClassification, kind)
    speedups.speed_up(model, compiles=False)
    seen = []
    model.base_model.encoder.layer[-1].intermediate.register_forward_hook(lambda *a: seen.append(a[-1].shape))
    model(**batch(some_labelled))
    assert seen == [(1, 9, 24)]


def test_the_mask_head_works_on_labelled_tokens_on_accelerators(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    model = made(AutoModelForMaskedLM, "bert")
    speedups.speed_up(model, compiles=False)
    assert model(**batch(some_labelled)).logits.shape == (1, 9, 50)


def test_few_shapes_are_cached_unless_the_environment_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = memory.PREPARED
    monkeypatch.setenv(one, "7")
    monkeypatch.setenv(other, "to be removed")  # so that it is as before, afterwards
    del os.environ[other]
    memory.keep_few_prepared()
    assert (os.environ[one], os.environ[other]) == ("7", "64")


# What is in use grows with the first shapes, and no more with the others; without keep_few_prepared by 100 MiB.
SHAPES = """
import ctypes
import torch
from finetrail.patches import memory

class InUse(ctypes.Structure):
    _fields_ = [(f"field{number}", ctypes.c_size_t) for number in range(10)]

mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = InUse
memory.keep_few_prepared()
weights = torch.randn(384, 1536, dtype=torch.bfloat16)
for rows in range(8, 400):
    if rows == 200:
        before = mallinfo2().field7
    torch.randn(rows, 384, dtype=torch.bfloat16) @ weights
print((mallinfo2().field7 - before) // 2**20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator than glibc's, which counts otherwise")
def test_new_shapes_take_no_memory_for_good() -> None:
    environment = {name: value for name, value in os.environ.items() if name not in memory.PREPARED}
    run = subprocess.run([sys.executable, "-c", SHAPES], env=environment, check=True, capture_output=True, text=True)
    assert int(run.stdout) < 30


KEPT = """
import resource
import torch
from finetrail.patches import memory
memory.keep_memory()
for _ in range(20):  # until the heap has room for it between what else is alive
    torch.zeros(16_000_000).add_(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.zeros(16_000_000).add_(1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator than glibc's, which keeps as it likes")
def test_memory_that_a_tensor_frees_is_kept_for_the_next() -> None:
    run = subprocess.run([sys.executable, "-c", KEPT], check=True, capture_output=True, text=True)
    assert int(run.stdout) < 1000  # 64 MB are 15,625 pages
