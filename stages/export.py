"""Turns the trained model into a self-contained folder, checked by reloading and against torch: data/exported."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from transformers import AutoTokenizer, PreTrainedModel

from finetrail import layout, params, stage, tasks
from finetrail.errors import UserError
from finetrail.evaluation import splits
from finetrail.evaluation.inference import torch_forward
from finetrail.exporting import hub
from finetrail.exporting.card import model_card
from finetrail.exporting.onnx import export_onnx, onnx_forward, quantize_int8
from finetrail.exporting.parity import disagreements

SPLIT = "test"
RELOAD_CHECKS = 4  # features

# An ONNX file's record for metrics/export.json, and the example of each word that it labels unlike torch.
Measured = tuple[dict[str, Any], list[str]]


def main() -> None:
    """Write weights, tokenizer, ONNX and model card, and push them where the recipe says so."""
    declared = params.load("export")
    settings = declared.export
    modeling, scoring, card = (tasks.module(declared.task, part) for part in ("modeling", "scoring", "card"))
    records = read_records()
    evaluation, headline = records["evaluation"], records["evaluation"]["headline"]
    with stage.output(layout.EXPORTED) as folder, stage.output(layout.EXPORT_METRICS) as metrics_file:
        model = copy_trained(folder, modeling)
        pad_token_id = AutoTokenizer.from_pretrained(folder).pad_token_id
        stage.log(f"export: {type(model).__name__}, {model.num_parameters():,} parameters; reloads with equal logits")
        measure = measurer(scoring, records["label_names"], headline, pad_token_id, declared.evaluate.batch_size)
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
    return dict(
        corpus=stage.read_json(layout.CORPUS_PROVENANCE),
        base_model=stage.read_json(layout.MODEL_PROVENANCE),
        training=stage.read_json(layout.TRAINING_RECORD),
        evaluation=stage.read_json(layout.EVALUATION_METRICS),
        label_names=stage.read_json(layout.LABEL_NAMES),
    )


def copy_trained(folder: Path, modeling: ModuleType) -> PreTrainedModel:
    """Copy weights, config and tokenizer as they are, and return the model loaded from the copy.

    Raises UserError where the copy's logits are not those of the trained model.
    """
    shutil.copytree(layout.TRAINED, folder, ignore=shutil.ignore_patterns(layout.TRAINING_RECORD.name))
    model = modeling.load_model(folder)
    before, after = torch_forward(modeling.load_model(layout.TRAINED)), torch_forward(model)
    for ids in splits.load(SPLIT)[1]["input_ids"].slice(0, RELOAD_CHECKS).to_pylist():
        batch = np.array([ids])
        if not np.array_equal(before(batch, np.ones_like(batch)), after(batch, np.ones_like(batch))):
            raise UserError(f"{layout.EXPORTED}: reloaded, the model gives other logits than that of {layout.TRAINED}")
    return model


def measurer(
    scoring: ModuleType, label_names: list[str], headline: str, pad_token_id: int, batch_size: int
) -> Callable[[Path], Measured]:
    """Return the function that runs an ONNX file over the whole split and compares it with torch's predictions."""
    examples, features = splits.load(SPLIT)
    expected = pq.read_table(layout.PREDICTIONS, filters=[("split", "=", SPLIT)])

    def measure(path: Path) -> Measured:
        found = scoring.predict(examples, features, label_names, onnx_forward(path), pad_token_id, batch_size)
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
    drop = torch_scores[headline] - record[headline]
    kept = drop <= max_drop
    if not kept:
        path.unlink()
    stage.log(
        f"export: onnx/{path.name}: {record['mib']} MiB, {headline} {record[headline]:.4f} ({-drop:+.4f}), "
        f"differs from torch in {record['disagreements']} words of {SPLIT}: "
        + ("kept" if kept else f"removed, export.max_metric_drop is {max_drop}")
    )
    return record | {f"{headline}_drop": drop, "kept": kept}


if __name__ == "__main__":
    stage.run(main)
