"""What replaces or reaches into a library: documented, guarded by lists of what is known, and checked on an upgrade.

test_speedups.py, test_attention_masks.py, test_packing.py and test_products.py compare each patched computation with
the library's.
"""

import ast
import hashlib
import inspect
import re
from importlib import import_module
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch
from accelerate.utils import fsdp_utils
from conftest import toy_settings
from datasets import Dataset
from test_speedups import batch, gradients, made, same
from torch import nn
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    Trainer,
    masking_utils,
)
from transformers.integrations import sdpa_attention
from transformers.models.bert import modeling_bert

from finetrail import patches, tasks
from finetrail.errors import UserError
from finetrail.patches import attention, first_token, flash_attention, labelled_tokens, speedups
from finetrail.patches.architectures import SELF_ATTENTIONS
from finetrail.patches.fsdp_tied_bias import forget_second_names
from finetrail.schema import Train
from finetrail.training import execution, packing, trainer
from finetrail.training.run import Run
from stages.train import executed

ROOT = Path(__file__).parent.parent
MODULES = sorted(path.stem for path in Path(patches.__file__).parent.glob("*.py") if path.stem != "__init__")
NO_PATCH = {"architectures", "speedups"}
# The library's code that a patch imitates or relies on, as it was when the two were compared.
SOURCES = {
    "attention": (sdpa_attention.sdpa_attention_forward, "e3d016070b6ac957"),
    "attention_masks": (masking_utils.sdpa_mask, "a30991b130d8ebbf"),
    "dropout": (nn.Dropout, "2c94cdfbab7d864c"),
    "first_token": (modeling_bert.BertSelfAttention, "14db541caf5207e2"),
    "fsdp_tied_bias": (fsdp_utils.fsdp2_prepare_model, "8a4cb9db8310af98"),
    "labelled_tokens": (modeling_bert.BertLayer, "7dbaacb153352e6f"),
}


@pytest.mark.parametrize("name", SOURCES)
def test_the_library_has_the_code_the_patch_was_compared_with(name: str) -> None:
    source, expected = SOURCES[name]
    found = hashlib.sha256(inspect.getsource(source).encode()).hexdigest()[:16]
    assert found == expected, (
        f"{source.__qualname__} is another one in this version: read what changed, compare it with "
        f"finetrail/patches/{name}.py, and set its hash here to {found}"
    )


@pytest.mark.parametrize("name", sorted(SELF_ATTENTIONS))
def test_the_self_attentions_that_are_known_have_berts_code(name: str) -> None:
    kind = {"XLMRoberta": "xlm_roberta"}.get(name.removesuffix("SelfAttention"), name.removesuffix("SelfAttention"))
    module = import_module(f"transformers.models.{kind.lower()}.modeling_{kind.lower()}")
    own, berts = (
        ast.parse(dedent(inspect.getsource(one.forward)))
        for one in (getattr(module, name), modeling_bert.BertSelfAttention)
    )
    assert ast.dump(own) == ast.dump(berts)


def test_torchs_flash_attention_takes_what_the_patch_gives() -> None:
    assert flash_attention.is_known(), f"it takes {flash_attention.arguments()}"


def test_without_that_operator_training_has_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(AutoModelForTokenClassification, "bert")
    model.config.hidden_size = 128
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    assert packing.applies(model, "bf16")
    monkeypatch.setattr(
        flash_attention, "arguments", lambda: dict.fromkeys([*flash_attention.ARGUMENTS[:-1], "window"], True)
    )
    assert not packing.applies(model, "bf16")
    monkeypatch.setattr(
        flash_attention, "arguments", lambda: dict.fromkeys([*flash_attention.ARGUMENTS, "more"], False)
    )
    assert not packing.applies(model, "bf16")


@pytest.mark.parametrize("name", sorted(set(MODULES) - NO_PATCH))
def test_each_patch_says_what_it_is_for(name: str) -> None:
    text = import_module(f"finetrail.patches.{name}").__doc__ or ""
    assert re.findall(r"^(\w+): \S", text, re.MULTILINE) == ["Library", "Reason", "Upstream", "Guard"]
    assert f"- `{name}`: " in (patches.__doc__ or ""), "the package's docstring lists each patch"


# Code that replaces what a library defines.
REPLACES = re.compile(
    r"super\(\)\._(?!_)|\bdelattr\(|\.__class__ = |\.forward = |Interface\.register\(|library\.Library\("
)


def test_nothing_else_replaces_what_a_library_defines() -> None:
    files = [*ROOT.glob("finetrail/**/*.py"), *ROOT.glob("stages/*.py")]
    found = {str(path.relative_to(ROOT)) for path in files if REPLACES.search(path.read_text(encoding="utf-8"))}
    known = {"attention", "attention_masks", "dropout", "first_token", "fsdp_tied_bias", "products"}
    # packing.py registers an attention function of its own, by transformers' public interface.
    assert found == {f"finetrail/patches/{name}.py" for name in known} | {"finetrail/training/packing.py"}


def test_an_argument_that_attention_does_not_know_goes_to_sdpa(monkeypatch: pytest.MonkeyPatch) -> None:
    states = [torch.randn(1, 2, 4, 8) for _ in range(3)]
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(attention, "sdpa_attention_forward", lambda *args, **kwargs: given.append(kwargs))
    for known in ({}, {"position_ids": torch.arange(4)}, {"softcap": None}, {"output_attentions": False}):
        attention.attend(nn.Module(), *states, None, dropout=0.1, is_causal=False, **known)
    assert given == []
    for unknown in ({"softcap": 30.0}, {"s_aux": torch.ones(2)}, {"new": 1}):
        attention.attend(nn.Module(), *states, None, dropout=0.1, is_causal=False, **unknown)
    assert [next(reversed(kwargs)) for kwargs in given] == ["softcap", "s_aux", "new"]


def test_an_unknown_argument_falls_back_to_the_class() -> None:
    model = made(AutoModelForSequenceClassification, "bert").eval()
    speedups.speed_up(model, compiles=False)
    layer, states = model.base_model.encoder.layer[-1].attention.self, torch.randn(2, 5, 16)
    assert layer(states, None, past_key_values=None)[0].shape == (2, 1, 16)
    found, _ = layer(states, None, new=torch.ones(1))
    assert torch.equal(found, modeling_bert.BertSelfAttention.forward(layer, states, None, new=torch.ones(1))[0])
    assert found.shape == (2, 5, 16)


def test_a_decoder_and_an_unknown_class_keep_their_last_layer() -> None:
    class Other(modeling_bert.BertSelfAttention):
        pass

    for change in ("decoder", "class"):
        model = made(AutoModelForSequenceClassification, "bert")
        attention.use_attention_with_dropout(model)
        last = model.base_model.encoder.layer[-1].attention
        if change == "decoder":
            model.config.is_decoder = True
        else:
            last.self.__class__ = Other
        first_token.compute_first_token_only(model)
        assert "forward" not in vars(last.self)


@pytest.mark.parametrize(("kind", "is_known"), [("bert", True), ("mpnet", True), ("big_bird", False)])
def test_heads_that_were_not_compared_compute_all_tokens(kind: str, is_known: bool) -> None:
    model = made(AutoModelForMaskedLM, kind)
    assert labelled_tokens.knows(model) is is_known


def test_a_bias_with_one_name_keeps_losses_and_gradients() -> None:
    plain, changed = (made(AutoModelForMaskedLM, "bert").eval() for _ in range(2))
    forget_second_names(changed)
    names = [
        name for name, _ in changed.named_parameters(remove_duplicate=False) if name.endswith("cls.predictions.bias")
    ]
    assert names == [] and len(changed._tied_weights_keys) < len(plain._tied_weights_keys)
    given = batch(lambda ids: ids)
    one, other = gradients(plain, given), gradients(changed, given)
    bias, decoder = "cls.predictions.bias", "cls.predictions.decoder.bias"
    one[1][decoder] = one[1].pop(bias) if bias in one[1] else one[1][decoder]
    same(one, other)


def test_the_trainer_still_calls_what_the_engine_overrides() -> None:
    """Another name, or another order of arguments, would bring back the Trainer's own batches or devices."""
    assert list(inspect.signature(Trainer.get_batch_samples).parameters) == [
        *("self", "epoch_iterator", "num_batches", "device")
    ]
    assert callable(Trainer._load_best_model)
    assert isinstance(vars(trainer.Arguments)["n_gpu"], property) and ".n_gpu" in inspect.getsource(Trainer)


@pytest.mark.parametrize("switched_on", [False, True])
def test_speedups_false_runs_the_libraries_own_code(switched_on: bool, tmp_path: Path) -> None:
    model = made(AutoModelForTokenClassification, "bert")
    types = {name: type(module) for name, module in model.named_modules()}
    run = Run(
        task=tasks.module("token_classification", "modeling"),
        collator=lambda rows: {},
        train=Dataset.from_dict({"input_ids": [[1]]}),
        validation=Dataset.from_dict({}),
        validate=lambda reduced: {},
        settings=Train(**toy_settings(speedups=switched_on)),
        seed=0,
        scratch=tmp_path,
        micro_batch_size=2,
    )
    assert executed(model, run).execution.padding == "buckets"
    changed = (
        types != {name: type(module) for name, module in model.named_modules()},
        model.config._attn_implementation != "sdpa",
        any(module._forward_pre_hooks or module._forward_hooks for module in model.modules()),
    )
    assert changed == (switched_on,) * 3


@pytest.mark.parametrize("packs", [False, True])
def test_without_speedups_a_gpu_has_padding_and_no_graphs(packs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(AutoModelForTokenClassification, "bert")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(packing, "applies", lambda model, precision: packs)
    own = Train(**toy_settings(speedups=False))
    assert execution.chosen(model, own, "bf16", 5000) == execution.Execution("buckets", "eager")
    with pytest.raises(
        UserError, match=r"^train.execution: graphs needs speedups true; otherwise expected auto or eager"
    ):
        execution.chosen(model, Train(**toy_settings(speedups=False, execution="graphs")), "bf16", 5000)
