"""Turns features and the base model into a trained model, data/trained, and its curves, metrics/train."""

import os
import platform
import resource
import shutil
import time
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import AutoTokenizer, PreTrainedModel

from finetrail import layout, params, stage, tasks
from finetrail.errors import UserError
from finetrail.training import trainer
from finetrail.training.determinism import make_deterministic


def main() -> None:
    """Train on the train split, and choose the checkpoint on the validation split."""
    declared = params.load("train")
    task, settings = tasks.module(declared.task, "modeling"), declared.train
    target = stage.read_json(layout.TARGET)
    tokenizer = AutoTokenizer.from_pretrained(layout.USED_TOKENIZER)
    train, validation = map(load_features, ("train", "validation"))
    # Similar lengths in a batch here too: validation is scored as a whole, in any order.
    validation = validation.select(trainer.feature_lengths(validation).argsort(kind="stable")[::-1])
    scratch = layout.SCRATCH / "train"
    shutil.rmtree(scratch, ignore_errors=True)
    notes = task.notes(layout.WEIGHTS)
    for note in notes:
        stage.log(f"train: {note}")
    make_deterministic(declared.seed)
    model = task.build_model(layout.WEIGHTS, target, settings)
    started = time.perf_counter()
    model, record = trainer.train(
        model,
        task.build_collator(tokenizer, settings),
        {"train": taken(train, task.COLUMNS), "validation": taken(validation, task.COLUMNS)},
        task.reduce,
        lambda reduced: task.validate(reduced, validation.with_format("arrow")[:], target),
        settings,
        declared.seed,
        scratch,
    )
    seconds = time.perf_counter() - started
    tokens = int(trainer.feature_lengths(train).sum() * record["epochs_done"])
    # Under torchrun and accelerate launch every process comes here, and one of them writes.
    if os.environ.get("RANK", "0") == "0":
        settings_used = {"seed": declared.seed} | settings.model_dump() | record | {"notes": notes}
        write(model, tokenizer, settings_used, scratch, timings(seconds, tokens))
        shutil.rmtree(scratch)
        stage.log(
            f"train: {record['updates']} updates in {record['precision']} on {record['device']}, kept update "
            f"{record['best_update']} with {record['best_metric']} {record['best_value']:.4f} on validation"
        )


def load_features(split: str) -> Dataset:
    """Map the features of a split into memory, those with labels."""
    features = Dataset.from_file(str(layout.features_file(split)))
    labelled = trainer.labelled(features)
    if not len(labelled):
        raise UserError(
            f"{layout.features_file(split)}: no feature has a label that train knows; expected at least one"
        )
    if left_out := len(features) - len(labelled):
        stage.log(f"train: {left_out:,} of {len(features):,} features of {split} have no label to learn from: left out")
    return labelled


def taken(features: Dataset, columns: tuple[str, ...]) -> Dataset:
    """Leave out the columns that no batch needs: Python would hold the whole of each row."""
    return features.select_columns([name for name in features.column_names if name in columns])


def write(model: PreTrainedModel, tokenizer: Any, record: dict[str, Any], scratch: Path, timed: dict[str, Any]) -> None:
    """Write the model with its tokenizer and record, its curves, and, in a file of their own, the timings."""
    with (
        stage.output(layout.TRAINED) as folder,
        stage.output(layout.TRAIN_HISTORY) as history,
        stage.output(layout.TRAIN_TIMINGS) as timings_file,
    ):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        stage.write_json(folder / layout.TRAINING_RECORD.name, record)
        shutil.copytree(scratch / trainer.HISTORY, history)
        stage.write_json(timings_file, timed)


def timings(seconds: float, tokens: int) -> dict[str, Any]:
    """Return what differs from run to run and machine to machine; in no other file."""
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": round(seconds, 1),
        "useful_tokens": tokens,
        "useful_tokens_per_second": round(tokens / seconds, 1),
        "peak_memory_mib": round(peak_kib / 1024, 1),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
    }


if __name__ == "__main__":
    stage.run(main)
