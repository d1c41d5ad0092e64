"""ONNX files: as torch computes, dynamic, self-contained, the same bytes each time."""

import logging
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pyarrow as pa
import pytest
import torch
from transformers import (
    BertConfig,
    BertForTokenClassification,
    DebertaV2Config,
    DebertaV2ForTokenClassification,
    DistilBertConfig,
    DistilBertForQuestionAnswering,
    ElectraConfig,
    ElectraForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
)

from finetrail.errors import UserError
from finetrail.evaluation.inference import input_names, onnx_forward, torch_forward
from finetrail.exporting.onnx import export_onnx, quantize_int8

INPUTS = ["input_ids", "attention_mask"]
PAD = 1  # RoBERTa numbers its positions around it
SIZES = {
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": PAD,
    "initializer_range": 0.2,
}
DISTIL_SIZES = {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 64}
GPT_SIZES = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64, "use_cache": False}
MODELS: dict[str, Any] = {
    "bert": (BertForTokenClassification, BertConfig(**SIZES, num_labels=5)),
    "distilbert": (DistilBertForQuestionAnswering, DistilBertConfig(vocab_size=300, pad_token_id=PAD, **DISTIL_SIZES)),
    "roberta": (RobertaForMaskedLM, RobertaConfig(**SIZES)),
    "electra": (ElectraForSequenceClassification, ElectraConfig(**SIZES, embedding_size=16)),
    "deberta": (
        DebertaV2ForTokenClassification,
        DebertaV2Config(**SIZES, relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=8),
    ),
}
# Where keys and values have as many heads as attention, and where they have fewer.
DECODERS: dict[str, Any] = {
    "gpt2": (GPT2LMHeadModel, GPT2Config(vocab_size=300, **GPT_SIZES)),
    "llama": (
        LlamaForCausalLM,
        LlamaConfig(**SIZES | {"num_hidden_layers": 2, "num_attention_heads": 4}, num_key_value_heads=2),
    ),
}


def build(name: str) -> Any:
    model_class, config = (MODELS | DECODERS)[name]
    torch.manual_seed(0)
    return model_class(config).eval()


def batch(size: int, length: int) -> dict[str, np.ndarray]:
    """Random ids, with the second half of the first row padded."""
    ids = np.random.default_rng(size * length).integers(3, 300, (size, length))
    mask = np.ones_like(ids)
    mask[0, (length + 1) // 2 :] = 0
    return {"input_ids": np.where(mask == 1, ids, PAD), "attention_mask": mask}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Export each model once, into a folder of its own."""

    @cache
    def export(name: str) -> Path:
        path = tmp_path_factory.mktemp(name) / "model.onnx"
        export_onnx(build(name), path, INPUTS)
        return path

    return export


@pytest.mark.parametrize("name", MODELS)
def test_every_output_is_torchs_at_any_batch_size_and_length(
    name: str, exported: Callable[[str], Path], tmp_path: Path
) -> None:
    session = onnxruntime.InferenceSession(exported(name), providers=["CPUExecutionProvider"])
    quantize_int8(exported(name), tmp_path / "int8.onnx")
    int8 = onnxruntime.InferenceSession(tmp_path / "int8.onnx", providers=["CPUExecutionProvider"])
    assert [(given.name, given.shape) for given in session.get_inputs()] == [
        ("input_ids", ["batch_size", "sequence_length"]),
        ("attention_mask", ["batch_size", "sequence_length"]),
    ]
    for size, length in [(1, 5), (3, 40), (1, 1), (5, 5)]:
        inputs = batch(size, length)
        with torch.inference_mode():
            expected = build(name)(**{name: torch.from_numpy(array) for name, array in inputs.items()})
        names = list(expected.keys())
        for run, tolerance in ((session, 1e-5), (int8, 0.1 * max(abs(value).max() for value in expected.values()))):
            assert [output.name for output in run.get_outputs()] == names
            found = run.run(names, inputs)
            for value, wanted in zip(found, expected.values(), strict=True):
                assert value.dtype == np.float32
                np.testing.assert_allclose(value, wanted, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", DECODERS)
def test_decoder_logits_match_torch_after_any_number_of_tokens(name: str, exported: Callable[[str], Path]) -> None:
    session = onnxruntime.InferenceSession(exported(name), providers=["CPUExecutionProvider"])
    model, layers = build(name), build(name).config.num_hidden_layers
    shapes = {given.name: given.shape for given in session.get_inputs()}
    names = [f"{layer}.{kind}" for layer in range(layers) for kind in ("key", "value")]
    width = 16 if name == "gpt2" else 8
    # What transformers.js sizes the first, empty memory by: a dimension batch_size, and others with a name are 0.
    for key in names:
        assert shapes.pop(f"past_key_values.{key}") == ["batch_size", 2, "past_sequence_length", width]
    assert shapes == {
        "input_ids": ["batch_size", "sequence_length"],
        "attention_mask": ["batch_size", "total_sequence_length"],
        "position_ids": ["batch_size", "sequence_length"],
    }
    assert [output.name for output in session.get_outputs()] == ["logits", *(f"present.{key}" for key in names)]
    read: dict[str, Any] = {key: np.zeros((2, 2, 0, width), np.float32) for key in names}
    ids, start = np.random.default_rng(0).integers(3, 300, (2, 14)), 0
    mask = np.ones_like(ids)
    mask[0, :3] = 0  # padded on the left, as generation pads
    positions = np.maximum(mask.cumsum(1) - 1, 0)
    with torch.no_grad():
        given = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        expected = model(**{key: torch.from_numpy(array) for key, array in given.items()}).logits.numpy()
    for end in (6, 7, 8, 11, 14):
        inputs = {"input_ids": ids[:, start:end], "attention_mask": mask[:, :end]}
        inputs["position_ids"] = positions[:, start:end]
        logits, *present = session.run(None, inputs | {f"past_key_values.{key}": read[key] for key in names})
        seen = mask[:, start:end] == 1
        np.testing.assert_allclose(logits[seen], expected[:, start:end][seen], rtol=0, atol=1e-5)
        read, start = dict(zip(names, present, strict=True)), end


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_that_is_read_bit_by_bit_says_what_torch_says(
    name: str, exported: Callable[[str], Path], tmp_path: Path
) -> None:
    forward, reference = onnx_forward(exported(name)), torch_forward(build(name))
    inputs = batch(3, 11)
    found, expected = forward(inputs), reference(inputs)
    assert list(found) == ["logits"]
    seen = inputs["attention_mask"] == 1
    np.testing.assert_allclose(found["logits"][seen], expected["logits"][seen], rtol=0, atol=1e-5)
    tokens, kept, other_kept = [5, 9, 7], None, None
    for _ in range(5):
        logits, kept = forward.read(tokens, kept)  # type: ignore[attr-defined]
        others, other_kept = reference.read(tokens, other_kept)  # type: ignore[attr-defined]
        np.testing.assert_allclose(logits, others, rtol=0, atol=1e-5)
        tokens = [int(others.argmax())]
    quantize_int8(exported(name), tmp_path / "int8.onnx")
    int8 = onnx_forward(tmp_path / "int8.onnx")(inputs)["logits"]
    np.testing.assert_allclose(int8[seen], expected["logits"][seen], rtol=0, atol=0.1 * abs(expected["logits"]).max())


def test_a_model_that_continues_nothing_has_no_memory(exported: Callable[[str], Path]) -> None:
    assert not hasattr(onnx_forward(exported("roberta")), "read")


def test_the_file_names_torchs_version_without_its_build(exported: Any) -> None:
    model = onnx.load(exported("bert"), load_external_data=False)
    assert (model.producer_name, model.producer_version) == ("pytorch", torch.__version__.split("+")[0])


@pytest.mark.parametrize(("name", "outputs"), [("bert", ["logits"]), ("distilbert", ["start_logits", "end_logits"])])
def test_onnx_forward_gives_the_outputs_of_torch_forward_by_name(
    name: str, outputs: list[str], exported: Callable[[str], Path]
) -> None:
    inputs = batch(3, 11)
    expected, found = torch_forward(build(name))(inputs), onnx_forward(exported(name))(inputs)
    assert list(expected) == list(found) == outputs
    for output in outputs:
        assert expected[output].dtype == found[output].dtype == np.float32
        np.testing.assert_allclose(found[output], expected[output], rtol=0, atol=1e-5)


def test_token_types_are_an_input_where_features_have_them(exported: Callable[[str], Path], tmp_path: Path) -> None:
    ids = pa.list_(pa.int32())
    schema = pa.schema([("example", pa.int32()), ("input_ids", ids), ("token_type_ids", ids), ("labels", ids)])
    assert input_names(schema) == [*INPUTS, "token_type_ids"]
    assert input_names(schema.remove(2)) == INPUTS
    export_onnx(build("bert"), tmp_path / "pairs.onnx", input_names(schema))
    session = onnxruntime.InferenceSession(tmp_path / "pairs.onnx", providers=["CPUExecutionProvider"])
    assert [(given.name, given.shape) for given in session.get_inputs()] == [
        (name, ["batch_size", "sequence_length"]) for name in input_names(schema)
    ]
    for size, length in [(1, 5), (3, 40), (5, 5)]:
        inputs = batch(size, length)
        types = np.random.default_rng(0).integers(0, 2, (size, length))
        logits = [
            (torch_forward(build("bert"))(given)["logits"], onnx_forward(tmp_path / "pairs.onnx")(given)["logits"])
            for given in (inputs | {"token_type_ids": types}, inputs | {"token_type_ids": 0 * types})
        ]
        for expected, found in logits:
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        (typed, _), (untyped, _) = logits
        assert abs(typed - untyped).max() > 0.1
        np.testing.assert_allclose(onnx_forward(exported("bert"))(inputs)["logits"], untyped, rtol=0, atol=1e-5)


def test_each_is_one_file_with_no_trace_of_the_machine(exported: Callable[[str], Path], tmp_path: Path) -> None:
    fp32, int8 = exported("bert"), tmp_path / "int8.onnx"
    quantize_int8(fp32, int8)
    for path in (fp32, int8):
        assert [file.name for file in path.parent.iterdir()] == [path.name]
        places = (sys.prefix, tempfile.gettempdir(), str(Path.cwd()), "site-packages", ".py")
        assert not [text for text in places if text.encode() in path.read_bytes()]
    assert int8.stat().st_size < 0.5 * fp32.stat().st_size


def test_the_same_model_gives_the_same_bytes_and_no_warnings(
    exported: Callable[[str], Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = exported("electra")
    export_onnx(build("electra"), tmp_path / "model.onnx", INPUTS)
    assert (tmp_path / "model.onnx").read_bytes() == first.read_bytes()
    for name in ("a.onnx", "b.onnx"):
        quantize_int8(first, tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert logging.root.manager.disable == logging.NOTSET


def test_an_untraceable_architecture_is_refused_with_its_cause(tmp_path: Path) -> None:
    class Branching(BertForTokenClassification):
        def forward(self, input_ids: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
            if input_ids.sum() > 3:
                input_ids = input_ids + 1
            return super().forward(input_ids=input_ids, attention_mask=attention_mask, **kwargs)

    with pytest.raises(UserError, match=r"Branching does not convert to ONNX: .*data-dependent"):
        export_onnx(Branching(MODELS["bert"][1]), tmp_path / "model.onnx", INPUTS)
    assert not (tmp_path / "model.onnx").exists()
    assert logging.root.manager.disable == logging.NOTSET
