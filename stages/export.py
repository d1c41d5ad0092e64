"""Turns the trained model into a self-contained folder, whose ONNX agrees with torch: data/exported."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from peft.utils import CONFIG_NAME
from transformers import AutoTokenizer, PreTrainedModel

from finetrail import layout, numerics, params, stage, tasks
from finetrail.errors import UserError
from finetrail.evaluation import inference, splits
from finetrail.evaluation.inference import Forward, onnx_forward
from finetrail.evaluation.splits import Encoded
from finetrail.exporting import configs, hub
from finetrail.exporting.card import model_card
from finetrail.exporting.forms import ONNX_FILES
from finetrail.exporting.onnx import export_onnx, quantize_int8
from finetrail.exporting.parity import compare, continued
from finetrail.exporting.sizes import mib
from finetrail.schema import Evaluate
from finetrail.upgrades import SCHEMA_VERSION, VERSION

if TYPE_CHECKING:
    from finetrail.tasks.contract import Loading, Scoring

SPLIT = "test"
PARTS = "parts"
# A decoder's cache is checked on the beginnings of PROMPTS features, which are continued by at most NEW_TOKENS tokens.
PROMPTS, NEW_TOKENS = 4, 16

# An ONNX file's record for metrics/export.json, and the examples whose predictions differ from torch's.
Measured = tuple[dict[str, Any], list[str]]


def main() -> None:
    """Write weights, tokenizer, ONNX, settings and model card, and push them if the recipe says so."""
    declared = params.load("export")
    numerics.use(declared.numerics, declared.threads)
    hub_repo, records, target = declared.export.hub_repo, read_records(declared.task), stage.read_json(layout.TARGET)
    loading, scoring = tasks.module(declared.task, "loading"), tasks.module(declared.task, "scoring")
    with stage.outputs(layout.EXPORTED, layout.EXPORT_METRICS) as [folder, metrics_file]:
        model, encoded = copy_trained(folder, loading), splits.load(SPLIT)
        stage.log(f"export: {type(model).__name__}, {model.num_parameters():,} parameters")
        name_base_model(folder / layout.EXPORTED_ADAPTER.name, records["base_model"]["name"])
        expected = reference(loading, predictor(scoring, encoded, target, folder, settled(declared, records)))
        metrics = write(folder, model, encoded, expected, target, records, declared, hub_repo)
        # For a model with several heads, also each head as a model of its own.
        for name, (of_head, own) in (loading.models(model, target) if loading.models else {}).items():
            assert scoring.alone is not None  # goes with loading.models
            beside = folder / PARTS / name
            save(of_head, beside)
            examples, features = splits.parts(encoded)[name]
            alone = Encoded(scoring.alone(examples, name, target), features)
            predicted = scoring.alone(splits.of_part(expected, name), name, target)
            stage.log(f"export: {PARTS}/{name}: {', '.join(own['label_names'])}")
            found = write(
                beside, loading.load_model(beside), alone, predicted, own, of_part(records, name), declared, None
            )
            metrics |= {f"{PARTS}/{name}/{file}": record for file, record in found.items()}
        stage.write_json(metrics_file, metrics)
    headline = records["evaluation"]["headline"]
    stage.log(f"export: README.md: {headline} {records['evaluation'][SPLIT][headline]:.4f} on {SPLIT}")
    if hub_repo is not None:
        url = hub.push(layout.EXPORTED, hub_repo, declared.export.hub_private)
        stage.log(f"export: pushed as {url}")


def write(
    folder: Path,
    model: PreTrainedModel,
    encoded: Encoded,
    expected: pa.Table,
    target: object,
    records: dict[str, Any],
    declared: params.StageParams,
    hub_repo: str | None,
) -> dict[str, Any]:
    """Write the other files of an exported folder; return the records of its weights and ONNX files.

    expected: torch's predictions of the encoded split, which ONNX must reproduce.
    """
    configs.open_everywhere(folder, model)
    settings, evaluation, evaluate = declared.export, records["evaluation"], settled(declared, records)
    scoring, card = tasks.module(declared.task, "scoring"), tasks.module(declared.task, "card")
    headline = evaluation["headline"]
    stage.write_json(folder / layout.EXPORT_SETTINGS.name, inference_settings(declared.task, records, target, evaluate))

    def score(predictions: pa.Table) -> float:
        return scoring.score(predictions, target, evaluate)[headline]

    predict = predictor(scoring, encoded, target, folder, evaluate)
    measure = measurer(predict, score, headline, expected, declared.threads)
    fp32, int8 = (folder / ONNX_FILES[name] for name in ("onnx", "onnx_int8"))
    metrics = {"torch": {headline: evaluation[SPLIT][headline], "mib": mib(folder, "*.safetensors")}}
    metrics |= {"onnx_fp32": write_fp32(model, fp32, inference.input_names(encoded.features.schema), measure)}
    metrics["onnx_fp32"] |= check_memory(model, fp32, encoded.features, declared.threads)
    if settings.int8:
        metrics["onnx_int8"] = write_int8(fp32, int8, measure, evaluation, settings.max_metric_drop)
    text = model_card(
        **records,
        export=metrics,
        label_names=card.labels(target),
        library=card.LIBRARY,
        pipeline_tag=card.PIPELINE_TAG,
        usage=card.usage(hub_repo or "path/to/this/folder", target),
        onnx_usage=card.onnx_usage(target),
        hub_repo=hub_repo,
        folders=card.folders(target) if card.folders else [],
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
    return metrics


def settled(declared: params.StageParams, records: dict[str, Any]) -> Evaluate:
    """Return the settings of evaluation, with the choices that it made on train and validation."""
    settings: Evaluate = declared.evaluate
    return settings.model_copy(update=records["evaluation"].get("settled", {}))


def predictor(
    scoring: "Scoring", encoded: Encoded, target: object, folder: Path, evaluate: Evaluate
) -> Callable[[Forward], pa.Table]:
    """Return the function from a Forward to its predictions of a split."""
    shared, tokenizer = splits.load_shared(), AutoTokenizer.from_pretrained(folder)

    def predict(forward: Forward) -> pa.Table:
        return splits.predict(
            encoded, lambda split: scoring.predict(split, shared, target, forward, tokenizer, evaluate)
        )

    return predict


def save(model: PreTrainedModel, folder: Path) -> None:
    """Write a model of one head, with the tokenizer of the whole model."""
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    shutil.copytree(layout.USED_TOKENIZER, folder, copy_function=shutil.copyfile, dirs_exist_ok=True)


def of_part(records: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the records for the model card of one part: its corpus and its own scores."""
    evaluation = {key: value for key, value in records["evaluation"].items() if key != "parts"}
    return records | {
        "corpus": records["corpus"]["parts"][name],
        "evaluation": evaluation | records["evaluation"]["parts"][name],
        "training": records["training"] | {"lora": None},  # kept adapters are the whole model's
    }


def read_records(task: str) -> dict[str, Any]:
    """Read the records of earlier stages for the model card."""
    concerns = tasks.module(task, "concerns")
    checks, counts = stage.read_json(layout.CORPUS_CHECKS), stage.read_json(layout.TOKENIZED_COUNTS)
    return {
        "corpus": stage.read_json(layout.CORPUS_PROVENANCE),
        "base_model": stage.read_json(layout.MODEL_PROVENANCE),
        "tokenized": counts,
        "training": stage.read_json(layout.TRAINING_RECORD),
        "evaluation": stage.read_json(layout.EVALUATION_METRICS),
        "concerns": [*concerns.of_corpus(checks), *concerns.of_features(counts["splits"])],
    }


def inference_settings(task: str, records: dict[str, Any], target: object, evaluate: Evaluate) -> dict[str, Any]:
    """Return the settings by which finetrail.inference encodes and decodes as evaluation did."""
    return {
        SCHEMA_VERSION: VERSION,
        "task": task,
        "target": target,
        "tokenize": records["tokenized"]["settings"],
        "evaluate": evaluate.model_dump(),
    }


def copy_trained(folder: Path, loading: "Loading") -> PreTrainedModel:
    """Copy weights, config and tokenizer unchanged, and return the model loaded from the copy."""
    shutil.copytree(layout.TRAINED, folder, ignore=shutil.ignore_patterns(layout.TRAINING_RECORD.name))
    return loading.load_model(folder)


def name_base_model(adapter: Path, name: str) -> None:
    """Write the base model's name into the adapter's configuration, if there is one; train does not know the name."""
    file = adapter / CONFIG_NAME
    if file.is_file():
        stage.write_json(file, stage.read_json(file) | {"base_model_name_or_path": name})


def reference(loading: "Loading", predict: Callable[[Forward], pa.Table]) -> pa.Table:
    """Return torch's predictions on the CPU with data/trained; not with the copy, which is being checked."""
    if inference.device() == "cpu":
        return pq.read_table(layout.PREDICTIONS, filters=[("split", "=", SPLIT)])
    # evaluate ran on the accelerator, which sums in another order and may decide near ties differently.
    return predict(inference.torch_forward(loading.load_model(layout.TRAINED)))


def measurer(
    predict: Callable[[Forward], pa.Table],
    score: Callable[[pa.Table], float],
    headline: str,
    expected: pa.Table,
    threads: int | None,
) -> Callable[[Path], Measured]:
    """Return the function that runs an ONNX file over the whole split and compares it with torch's predictions."""

    def measure(path: Path) -> Measured:
        found = predict(onnx_forward(path, threads))
        compared = compare(expected, found)
        record = {headline: score(found), "predictions": compared.total, "disagreements": len(compared.differ)}
        return record | {"near_ties": compared.near_ties, "mib": mib(path.parent, f"{path.name}*")}, compared.differ

    return measure


def write_fp32(
    model: PreTrainedModel, path: Path, inputs: list[str], measure: Callable[[Path], Measured]
) -> dict[str, Any]:
    """Write the ONNX model; UserError if a prediction differs from torch's."""
    path.parent.mkdir()
    export_onnx(model, path, inputs)
    record, differ = measure(path)
    if differ:
        raise UserError(
            f"export: onnx/{path.name} differs from torch in {len(differ):,} of {record['predictions']:,} predictions "
            f"on {SPLIT}, the first in example {differ[0]!r}; expected none"
        )
    ties = f" (near ties apart: {record['near_ties']})" if record["near_ties"] else ""
    stage.log(
        f"export: onnx/{path.name}: {record['mib']} MiB, agrees with torch in all {record['predictions']:,} "
        f"predictions on {SPLIT}{ties}"
    )
    return record


def check_memory(model: PreTrainedModel, path: Path, features: pa.Table, threads: int | None) -> dict[str, Any]:
    """Return the number of tokens by which a decoder's ONNX model continued texts as torch does; {} for other models.

    Each token is read once, and earlier tokens are in keys and values. UserError if a token differs.
    """
    forward = onnx_forward(path, threads)
    if not hasattr(forward, "read"):
        if model.can_generate():
            raise UserError(
                f"export: {model.config.model_type} does not cache keys and values, and the ONNX file supports no "
                "other cache; expected another architecture as the base model"
            )
        return {}
    beginnings = [ids[: max(len(ids) // 2, 1)] for ids in features["input_ids"][:PROMPTS].to_pylist()]
    longest = max(map(len, beginnings))  # twice this length is within what the model was trained on
    prompts = {str(number): ids for number, ids in enumerate(beginnings)}
    found = continued(inference.torch_forward(model).read, forward.read, prompts, min(longest, NEW_TOKENS))  # type: ignore[attr-defined]
    if found.differ:
        raise UserError(
            f"export: onnx/{path.name} continues the beginning of feature {found.differ[0]} of {SPLIT} differently "
            f"from torch: {len(found.differ):,} of {found.total:,} tokens differ; expected none"
        )
    stage.log(f"export: onnx/{path.name}: with its cache it continues {len(prompts)} texts as torch does")
    return {"continued_tokens": found.total}


def write_int8(
    fp32: Path,
    path: Path,
    measure: Callable[[Path], Measured],
    evaluation: dict[str, Any],
    max_drop: float,
) -> dict[str, Any]:
    """Write the quantized model, and remove it if its headline score drops by more than max_drop."""
    quantize_int8(fp32, path)
    record, _ = measure(path)
    headline = evaluation["headline"]
    gain = record[headline] - evaluation[SPLIT][headline]
    drop = gain if headline in evaluation["lower_is_better"] else -gain
    kept = drop <= max_drop
    if not kept:
        path.unlink()
    stage.log(
        f"export: onnx/{path.name}: {record['mib']} MiB, {headline} {record[headline]:.4f} ({gain:+.4f}), "
        f"differs from torch in {record['disagreements']:,} of {record['predictions']:,} predictions: "
        + ("kept" if kept else f"removed, export.max_metric_drop is {max_drop}")
    )
    return record | {f"{headline}_drop": drop, "kept": kept}


if __name__ == "__main__":
    stage.run(main)
