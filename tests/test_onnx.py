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
    "gpt2": (GPT2LMHeadModel, GPT2Config(vocab_size=300, **GPT_SIZES)),
}


def build(name: str) -> Any:
    model_class, config = MODELS[name]
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
def test_every_output_is_that_of_torch_at_any_batch_size_and_length(
    name: str, exported: Callable[[str], Path], tmp_path: Path
) -> None:
    session = onnxruntime.InferenceSession(exported(name), providers=["CPUExecutionProvider"])
    quantize_int8(exported(name), tmp_path / "int8.onnx")
    int8 = onnxruntime.InferenceSession(tmp_path / "int8.onnx", providers=["CPUExecutionProvider"])
    assert [(given.name, given.shape) for given in session.get_inputs()] == [
        ("input_ids", ["batch", "length"]),
        ("attention_mask", ["batch", "length"]),
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


def test_token_types_are_an_input_where_the_features_have_them_and_zeros_where_not(
    exported: Callable[[str], Path], tmp_path: Path
) -> None:
    ids = pa.list_(pa.int32())
    schema = pa.schema([("example", pa.int32()), ("input_ids", ids), ("token_type_ids", ids), ("labels", ids)])
    assert input_names(schema) == [*INPUTS, "token_type_ids"]
    assert input_names(schema.remove(2)) == INPUTS
    export_onnx(build("bert"), tmp_path / "pairs.onnx", input_names(schema))
    session = onnxruntime.InferenceSession(tmp_path / "pairs.onnx", providers=["CPUExecutionProvider"])
    assert [(given.name, given.shape) for given in session.get_inputs()] == [
        (name, ["batch", "length"]) for name in input_names(schema)
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


def test_an_architecture_that_cannot_be_traced_is_told_with_its_cause(tmp_path: Path) -> None:
    class Branching(BertForTokenClassification):
        def forward(self, input_ids: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
            if input_ids.sum() > 3:
                input_ids = input_ids + 1
            return super().forward(input_ids=input_ids, attention_mask=attention_mask, **kwargs)

    with pytest.raises(UserError, match=r"Branching does not convert to ONNX: .*data-dependent"):
        export_onnx(Branching(MODELS["bert"][1]), tmp_path / "model.onnx", INPUTS)
    assert not (tmp_path / "model.onnx").exists()
    assert logging.root.manager.disable == logging.NOTSET
