"""Turns the trained model into a self-contained folder, whose ONNX agrees with torch: data/exported."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from transformers import AutoTokenizer, PreTrainedModel

from finetrail import layout, params, stage, tasks
from finetrail.errors import UserError
from finetrail.evaluation import inference, splits
from finetrail.evaluation.inference import Forward
from finetrail.exporting import hub
from finetrail.exporting.card import model_card
from finetrail.exporting.onnx import export_onnx, onnx_forward, quantize_int8
from finetrail.exporting.parity import disagreements

SPLIT = "test"

# An ONNX file's record for metrics/export.json, and the example of each word that it labels unlike torch.
Measured = tuple[dict[str, Any], list[str]]


def main() -> None:
    """Write weights, tokenizer, ONNX and model card, and push them where the recipe says so."""
    declared = params.load("export")
    settings = declared.export
    modeling, scoring, card = (tasks.module(declared.task, part) for part in ("modeling", "scoring", "card"))
    records = read_records()
    evaluation, headline = records["evaluation"], records["evaluation"]["headline"]
    if settings.hub_repo is not None and records["tokenized"]["settings"].get("limit") is not None:
        raise UserError("export.hub_repo: the model saw only a part of its corpus; expected limit null for a push")
    with stage.output(layout.EXPORTED) as folder, stage.output(layout.EXPORT_METRICS) as metrics_file:
        model = copy_trained(folder, modeling)
        pad_token_id = AutoTokenizer.from_pretrained(folder).pad_token_id
        stage.log(f"export: {type(model).__name__}, {model.num_parameters():,} parameters")
        predict = predictor(scoring, records["label_names"], pad_token_id, declared.evaluate.batch_size)
        measure = measurer(scoring, records["label_names"], headline, predict, reference(modeling, predict))
        fp32 = folder / "onnx" / "model.onnx"
        metrics = {"onnx_fp32": write_fp32(model, fp32, measure)}
        if settings.int8:
            metrics["onnx_int8"] = write_int8(fp32, measure, headline, evaluation[SPLIT], settings.max_metric_drop)
        text = model_card(
            **records,
            export=metrics,
            pipeline_tag=modeling.PIPELINE_TAG,
            usage=card.usage(settings.hub_repo or "path/to/this/folder"),
            hub_repo=settings.hub_repo,
        )
        (folder / "README.md").write_text(text, encoding="utf-8")
        stage.write_json(metrics_file, metrics)
    stage.log(f"export: README.md: {headline} {evaluation[SPLIT][headline]:.4f} on {SPLIT}")
    if settings.hub_repo is not None:
        url = hub.push(layout.EXPORTED, settings.hub_repo, settings.hub_private)
        stage.log(f"export: pushed as {url}")


def read_records() -> dict[str, Any]:
    """Read what the model card tells of earlier stages."""
    return {
        "corpus": stage.read_json(layout.CORPUS_PROVENANCE),
        "base_model": stage.read_json(layout.MODEL_PROVENANCE),
        "tokenized": stage.read_json(layout.TOKENIZED_COUNTS),
        "training": stage.read_json(layout.TRAINING_RECORD),
        "evaluation": stage.read_json(layout.EVALUATION_METRICS),
        "label_names": stage.read_json(layout.LABEL_NAMES),
    }


def copy_trained(folder: Path, modeling: ModuleType) -> PreTrainedModel:
    """Copy weights, config and tokenizer as they are, and return the model loaded from the copy."""
    shutil.copytree(layout.TRAINED, folder, ignore=shutil.ignore_patterns(layout.TRAINING_RECORD.name))
    return modeling.load_model(folder)


def predictor(
    scoring: ModuleType, label_names: list[str], pad_token_id: int, batch_size: int
) -> Callable[[Forward], pa.Table]:
    """Return the function that predicts the whole split, whatever runs the model."""
    examples, features = splits.load(SPLIT)
    return lambda forward: scoring.predict(examples, features, label_names, forward, pad_token_id, batch_size)


def reference(modeling: ModuleType, predict: Callable[[Forward], pa.Table]) -> pa.Table:
    """Return what torch predicts on the CPU with data/trained: never with the copy, which is what is checked."""
    if inference.device() == "cpu":
        return pq.read_table(layout.PREDICTIONS, filters=[("split", "=", SPLIT)])
    # evaluate ran on the accelerator, which sums in another order: a near tie may fall otherwise there.
    return predict(inference.torch_forward(modeling.load_model(layout.TRAINED)))


def measurer(
    scoring: ModuleType,
    label_names: list[str],
    headline: str,
    predict: Callable[[Forward], pa.Table],
    expected: pa.Table,
) -> Callable[[Path], Measured]:
    """Return the function that runs an ONNX file over the whole split and compares it with torch's predictions."""

    def measure(path: Path) -> Measured:
        found = predict(onnx_forward(path))
        differ = disagreements(expected, found)
        score = scoring.score(found, label_names)[headline]
        size = sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))  # with weights beside it
        return {headline: score, "disagreements": len(differ), "mib": round(size / 2**20, 2)}, differ

    return measure


def write_fp32(model: PreTrainedModel, path: Path, measure: Callable[[Path], Measured]) -> dict[str, Any]:
    """Write the ONNX model; UserError unless it agrees with torch in every word."""
    path.parent.mkdir()
    export_onnx(model, path)
    record, differ = measure(path)
    if differ:
        raise UserError(
            f"export: onnx/{path.name} differs from torch in {len(differ)} words of {SPLIT}, "
            f"the first in example {differ[0]!r}; expected none"
        )
    stage.log(f"export: onnx/{path.name}: {record['mib']} MiB, agrees with torch in every word of {SPLIT}")
    return record


def write_int8(
    fp32: Path, measure: Callable[[Path], Measured], headline: str, torch_scores: dict[str, float], max_drop: float
) -> dict[str, Any]:
    """Write the quantized model beside the other, and remove it if it loses more of the headline than max_drop."""
    path = fp32.with_name("model_int8.onnx")
    quantize_int8(fp32, path)
    record, _ = measure(path)
    drop, gain = torch_scores[headline] - record[headline], record[headline] - torch_scores[headline]
    kept = drop <= max_drop
    if not kept:
        path.unlink()
    stage.log(
        f"export: onnx/{path.name}: {record['mib']} MiB, {headline} {record[headline]:.4f} ({gain:+.4f}), "
        f"differs from torch in {record['disagreements']} words of {SPLIT}: "
        + ("kept" if kept else f"removed, export.max_metric_drop is {max_drop}")
    )
    return record | {f"{headline}_drop": drop, "kept": kept}


if __name__ == "__main__":
    stage.run(main)
