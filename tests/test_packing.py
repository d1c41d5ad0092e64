"""Training without padding: the losses, gradients and outputs of the padded batch, for each architecture and head."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from finetrail.labels import IGNORE_INDEX
from finetrail.patches import flash_attention
from finetrail.schema import Lora
from finetrail.training import adapters, graphs, packing
from finetrail.training.memory import checkpoint_gradients

LENGTHS = (9, 4, 7)
PADDING = 1
# Large weights: else all texts are much alike, and mistakes are smaller than rounding.
SPREAD = {"initializer_range": 0.3, "use_cache": False, "vocab_size": 50, "pad_token_id": PADDING}
SIZES = SPREAD | {"max_position_embeddings": 40}
SMALL = SIZES | {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
DISTILLED = SIZES | {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}
# Layers that see everything, and those that see two tokens on each side.
MODERN = SMALL | {"num_hidden_layers": 4, "local_attention": 4, "global_attn_every_n_layers": 2}
MODERN |= {"cls_token_id": 3, "bos_token_id": 3, "sep_token_id": 4, "eos_token_id": 4}
GENERATOR = SPREAD | {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40}
# Keys and values for half of the heads.
GROUPED = SMALL | {"num_key_value_heads": 1}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("bert", SMALL),
    "camembert": ("camembert", SMALL),
    "distilbert": ("distilbert", DISTILLED),
    "electra": ("electra", SMALL | {"embedding_size": 8}),
    "gpt2": ("gpt2", GENERATOR),
    "llama": ("llama", GROUPED),
    "modernbert": ("modernbert", MODERN | {"classifier_pooling": "cls"}),
    "modernbert, mean": ("modernbert", MODERN | {"classifier_pooling": "mean"}),
    "roberta": ("roberta", SMALL),
    "xlm-roberta": ("xlm-roberta", SMALL),
}
DECODERS = {"gpt2", "llama"}
HEADS: dict[str, Any] = {
    "encoder": AutoModel,
    "sequence": AutoModelForSequenceClassification,
    "tokens": AutoModelForTokenClassification,
    "masks": AutoModelForMaskedLM,
    "questions": AutoModelForQuestionAnswering,
    "next token": AutoModelForCausalLM,
}
PAIRS = [
    (name, head)
    for name, (kind, _) in CONFIGS.items()
    for head in (("sequence", "next token") if kind in DECODERS else [head for head in HEADS if head != "next token"])
]


def made(name: str, head: str) -> Any:
    """Make a small model without dropout, the same each time."""
    kind, sizes = CONFIGS[name]
    config = AutoConfig.for_model(kind, **sizes, num_labels=2 if head == "questions" else 3)
    for key, value in vars(config).items():
        if isinstance(value, float) and ("drop" in key):
            setattr(config, key, 0.0)
    torch.manual_seed(0)
    return HEADS[head].from_config(config).train()


def padded_batch(head: str, left: bool = False) -> dict[str, torch.Tensor]:
    """Make three texts, with labels of a head."""
    length = max(LENGTHS)
    mask = (torch.arange(length) < torch.tensor(LENGTHS)[:, None]).long()
    if left:
        mask = mask.flip(-1)
    ids = torch.randint(5, 50, mask.shape, generator=torch.Generator().manual_seed(0)) * mask + PADDING * (1 - mask)
    batch = {"input_ids": ids, "attention_mask": mask}
    unknown = (mask == 0) | (ids % 3 == 0)
    if head == "sequence":
        batch["labels"] = torch.tensor([2, 0, 1])
    elif head == "tokens":
        batch["labels"] = (ids % 3).masked_fill((mask == 0) | (ids % 2 == 0), IGNORE_INDEX)
    elif head in ("masks", "next token"):
        batch["labels"] = ids.masked_fill(unknown, IGNORE_INDEX)
    elif head == "questions":
        batch |= {"start_positions": torch.tensor([2, 0, 1]), "end_positions": torch.tensor([3, 1, 2])}
    return batch


def loss_of(outputs: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Return the loss of a head; of an encoder some function of its states that are no padding."""
    mask = batch["attention_mask"]
    if "start_positions" in batch:  # as the task's model takes it
        logits = {end: outputs[f"{end}_logits"].masked_fill(mask == 0, -torch.inf) for end in ("start", "end")}
        return cross_entropy(logits["start"], batch["start_positions"]) + cross_entropy(
            logits["end"], batch["end_positions"]
        )
    loss: torch.Tensor = outputs["loss"] if "labels" in batch else (outputs[0] * mask[..., None]).square().sum()
    return loss


def gradients(model: Any, batch: dict[str, Any]) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = loss_of(model(**batch), batch)
    loss.backward()
    return loss.item(), {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def same(one: tuple[float, dict[str, torch.Tensor]], other: tuple[float, dict[str, torch.Tensor]]) -> None:
    assert one[0] == pytest.approx(other[0], rel=1e-5)
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        torch.testing.assert_close(
            gradient, other[1][name], atol=2e-5, rtol=1e-4, msg=lambda text, n=name: f"{n} {text}"
        )


def outputs_of(model: Any, batch: dict[str, Any]) -> list[torch.Tensor]:
    """Return what a model gives in evaluation, but for states of padding."""
    model.eval()
    with torch.no_grad():
        values = [value for value in model(**batch).values() if torch.is_tensor(value) and value.ndim > 1]
    model.train()
    mask = batch["attention_mask"].bool()
    return [value[mask] if value.shape[:2] == mask.shape else value for value in values]


def collated(packer: packing.Packer, batch: dict[str, torch.Tensor]) -> dict[str, Any]:
    collate: Callable[[Any], dict[str, Any]] = dict
    return packer.collator(collate)(batch)


@pytest.mark.parametrize("rounds", [False, True])
@pytest.mark.parametrize("compiles", [False, True])
@pytest.mark.parametrize(("name", "head"), PAIRS)
def test_losses_and_gradients_are_those_of_the_padded_batch(
    name: str, head: str, rounds: bool, compiles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "STEPS", 2)  # so that little batches are filled up too
    model, batch = made(name, head), padded_batch(head)
    assert packing.supported(model)
    expected, outputs = gradients(model, batch), outputs_of(model, batch)
    packer = packing.use(model, rounds=rounds, compiles=compiles)
    packed = collated(packer, batch)
    tokens = packed["packing"]["input_ids"].shape[1]
    assert tokens == (24 if rounds else sum(LENGTHS))
    bounds = packed["packing"]["bounds"]
    assert packed["packing"]["longest"] >= bounds.diff().max()  # flash attention looks no farther
    assert bounds[-1] == tokens and (bounds.diff() >= 0).all()
    same(expected, gradients(model, packed))
    for found in (outputs_of(model, packed), outputs_of(model, batch)):  # a batch without packing is packed
        for one, other in zip(outputs, found, strict=True):
            torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(("name", "head"), [("gpt2", "next token"), ("llama", "next token"), ("bert", "tokens")])
def test_padding_may_be_on_the_left(name: str, head: str) -> None:
    model = made(name, head)
    packer = packing.use(model, rounds=False, compiles=False)
    right, left = padded_batch(head), padded_batch(head, left=True)
    mask = right["attention_mask"].bool()
    for key in ("input_ids", "labels"):  # the same texts
        left[key] = torch.full_like(left[key], PADDING if key == "input_ids" else IGNORE_INDEX)
        left[key][left["attention_mask"].bool()] = right[key][mask]
    same(gradients(model, collated(packer, right)), gradients(model, collated(packer, left)))


@pytest.mark.parametrize("head", ["sequence", "tokens"])
def test_a_second_text_keeps_its_type(head: str) -> None:
    model, batch = made("bert", head), padded_batch(head)
    batch["token_type_ids"] = (torch.arange(9) > 2).long() * batch["attention_mask"]
    expected = gradients(model, batch)
    packed = collated(packing.use(model, rounds=True, compiles=False), batch)
    same(expected, gradients(model, packed))
    del packed["packing"]["token_type_ids"]
    assert gradients(model, packed)[0] != pytest.approx(expected[0], abs=1e-5)


@pytest.mark.parametrize(("name", "head"), [("bert", "sequence"), ("bert", "tokens"), ("llama", "next token")])
def test_adapters_and_checkpointed_gradients_go_with_it(name: str, head: str) -> None:
    model, batch = made(name, head), padded_batch(head)
    adapters.add(model, Lora(rank=2, alpha=4, dropout=0.0, target_modules=None, keep=False, quantize=None))
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    checkpoint_gradients(model)
    expected = gradients(model, batch)
    same(expected, gradients(model, collated(packing.use(model, rounds=True, compiles=False), batch)))


def test_dropout_is_drawn_in_attention_too() -> None:
    model, batch = made("gpt2", "next token"), padded_batch("next token")
    packed = collated(packing.use(model, rounds=False, compiles=False), batch)
    model.transformer.h[0].attn.attn_dropout.p = 0.5
    torch.manual_seed(2)
    losses = [gradients(model, packed)[0] for _ in range(2)]
    torch.manual_seed(2)
    assert losses[0] != losses[1] and gradients(model, packed)[0] == losses[0]


def test_the_row_of_a_batch() -> None:
    packer = packing.Packer(packing.LABELLED, first_position=2, pad_token_id=1, rounds=False)
    ids = torch.tensor([[5, 6, 1, 1], [7, 8, 9, 1], [4, 1, 1, 1]])
    labels = torch.tensor([[-100, 0, -100, -100], [3, -100, 4, -100], [-100, -100, -100, -100]])
    found = packer.pack(ids, (ids != 1).long(), None, labels)
    assert found["shape"] == (3, 4) and found["longest"] == 4
    assert {name: value.tolist() for name, value in found.items() if torch.is_tensor(value)} == {
        "input_ids": [[5, 6, 7, 8, 9, 4]],
        "position_ids": [[2, 3, 2, 3, 4, 2]],
        "places": [0, 1, 4, 5, 6, 8],
        "bounds": [0, 2, 5, 6],
        "kept": [1, 2, 4],
        "labels": [[0, 3, 4]],
    }
    assert found["bounds"].dtype == torch.int32
    following = packing.Packer(packing.NEXT, 0, 1, rounds=False).pack(ids, (ids != 1).long(), None, labels)
    assert following["kept"].tolist() == [0, 3] and following["labels"].tolist() == [[0, 4]]


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 100, 1000, 16_383, 16_385])
def test_counts_are_rounded_up_by_at_most_a_sixteenth(count: int) -> None:
    rounded = packing.Packer(packing.ALL, 0, 1, rounds=True).rounded(count, 16)
    assert count <= rounded <= count * 17 / 16
    assert packing.Packer(packing.ALL, 0, 1, rounds=False).rounded(count, 16) == count


@pytest.mark.parametrize("labels", ["features", "tokens"])
def test_rounded_batches_have_few_shapes(labels: str) -> None:
    reads = packing.LABELLED if labels == "tokens" else packing.FIRST
    packer = packing.Packer(reads, 0, 1, rounds=True)
    generator, shapes = torch.Generator().manual_seed(0), set()
    for _ in range(300):
        lengths = torch.randint(8, 129, (32,), generator=generator)
        mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
        drawn = torch.rand(mask.shape, generator=generator)
        wanted = torch.full_like(mask, IGNORE_INDEX).masked_fill((drawn < 0.15) & (mask > 0), 0)
        batch = {"input_ids": mask, "attention_mask": mask, "labels": wanted if labels == "tokens" else lengths}
        shapes.add(graphs._shapes(collated(packer, batch)))
    assert len(shapes) <= (25 if labels == "tokens" else 11)


def test_rounded_counts_leave_few_shapes() -> None:
    packer = packing.Packer(packing.ALL, 0, 1, rounds=True)
    assert len({packer.rounded(count, packing.STEPS) for count in range(1024, 4096)}) <= 2 * packing.STEPS + 1


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("key_heads", [1, 2])
def test_reference_attention_is_a_softmax_within_a_feature(causal: bool, window: int | None, key_heads: int) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(6, heads, 4) for heads in (2, key_heads, key_heads))
    found = packing.reference(query, key, value, torch.tensor([0, 4, 4, 6]), 4, 0.0, causal, 0.7, window)
    for start, end in ((0, 4), (4, 6)):
        for at in range(start, end):
            seen = [
                other
                for other in range(start, end)
                if (not causal or other <= at) and (window is None or abs(other - at) < window)
            ]
            for head in range(2):
                own = head * key_heads // 2
                weights = torch.softmax(key[seen, own] @ query[at, head] * 0.7, dim=0)
                torch.testing.assert_close(found[at, head], weights @ value[seen, own])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [None, 3])
def test_torchs_flash_attention_takes_our_inputs_with_gradients(causal: bool, window: int | None) -> None:
    """Without a GPU: shapes alone, by torch's own rules for them."""
    query, key, value = (
        torch.empty(20, heads, 64, dtype=torch.bfloat16, device="meta", requires_grad=True) for heads in (4, 2, 2)
    )
    bounds = torch.empty(4, dtype=torch.int32, device="meta")
    attended = flash_attention.attend(query, key, value, bounds, 9, 0.1, causal, None, window)
    assert attended.shape == query.shape and attended.dtype == torch.bfloat16
    attended.sum().backward()
    assert all(one.grad is not None and one.grad.shape == one.shape for one in (query, key, value))


@pytest.mark.parametrize(
    ("precision", "capability", "change", "expected"),
    [
        ("bf16", (9, 0), {}, True),
        ("fp16", (8, 0), {}, True),
        ("fp32", (9, 0), {}, False),
        ("bf16", (7, 5), {}, False),
        ("bf16", (9, 0), {"model_type": "deberta-v2"}, False),
        ("bf16", (9, 0), {"is_decoder": True}, False),
        ("bf16", (9, 0), {"_attn_implementation": "eager"}, False),
        ("bf16", (9, 0), {"hidden_size": 24}, False),  # 12 a head
    ],
)
def test_where_it_applies(
    precision: str,
    capability: tuple[int, int],
    change: dict[str, Any],
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = made("bert", "sequence")
    assert not packing.applies(model, precision)  # on a CPU
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    for name, value in change.items():
        object.__setattr__(model.config, name, value)
    assert packing.applies(model, precision) is expected
