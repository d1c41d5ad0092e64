"""Training on the features of data/tokenized: the plain Hugging Face Trainer beside ours, same hyper-parameters.

python -m benchmarks.train [EPOCHS]    (needs data/tokenized, data/model and data/corpus: run `dvc repro` before)

The plain Trainer is the course's: fp32, random batches, its default AdamW; both evaluate and save at each epoch.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import AutoTokenizer, Trainer, TrainingArguments, logging, set_seed

from benchmarks import keep
from finetrail import layout, params, stage
from finetrail.evaluation import bootstrap, inference, splits
from finetrail.tasks.token_classification import modeling, scoring
from finetrail.training import trainer
from finetrail.training.determinism import make_deterministic
from stages.train import taken


def plain(model: Any, collator: Any, train: Dataset, validation: Dataset, settings: Any, folder: str) -> None:
    """Train as the course does."""
    arguments = TrainingArguments(
        folder, eval_strategy="epoch", save_strategy="epoch", learning_rate=settings.lr, use_cpu=True,
        num_train_epochs=settings.epochs, weight_decay=settings.weight_decay, warmup_steps=settings.warmup,
        per_device_train_batch_size=settings.batch_size, per_device_eval_batch_size=settings.eval_batch_size,
        report_to="none", disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    Trainer(model, arguments, data_collator=collator, train_dataset=train, eval_dataset=validation).train()


def test_f1(model: Any, tokenizer: Any, settings: Any, label_names: list[str]) -> dict[str, float]:
    """Score the test split in fp32, with its interval."""
    forward = inference.torch_forward(model)
    predicted = scoring.predict(splits.load("test"), {}, label_names, forward, tokenizer, settings)
    units, to_scores = scoring.statistics(predicted, label_names, settings)
    low, high = bootstrap.intervals(units, to_scores, settings.bootstrap)["f1"]
    return {"f1": scoring.score(predicted, label_names, settings)["f1"], "f1_low": low, "f1_high": high}


def main(epochs: float | None) -> None:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    declared = params.load("train")
    recipe = params.load_recipe(declared.task, declared.recipe)
    epochs = epochs or recipe.train.epochs
    settings = recipe.train.model_copy(update={"epochs": epochs})
    label_names = stage.read_json(layout.TARGET)
    tokenizer = AutoTokenizer.from_pretrained(layout.USED_TOKENIZER)
    collator = modeling.build_collator(tokenizer, settings)
    train, validation = (Dataset.from_file(str(layout.features_file(split))) for split in ("train", "validation"))
    tokens = int(trainer.feature_lengths(train).sum() * epochs)
    result: dict[str, Any] = {"recipe": declared.recipe, "epochs": epochs, "useful_tokens": tokens}
    for who in ("plain", "ours"):
        with tempfile.TemporaryDirectory() as folder:
            (set_seed if who == "plain" else make_deterministic)(declared.seed)
            model = modeling.build_model(layout.WEIGHTS, label_names, settings, train)
            started = time.perf_counter()
            if who == "plain":
                plain(model, collator, train, validation, settings, folder)
            else:
                ordered = validation.select(trainer.feature_lengths(validation).argsort(kind="stable")[::-1])
                table = ordered.with_format("arrow")[:]
                features = {"train": train, "validation": ordered}
                trainer.train(
                    model, collator, {split: taken(given, modeling.COLUMNS) for split, given in features.items()},
                    modeling.reduce, lambda ids: modeling.validate(ids, table, label_names),  # noqa: B023
                    settings, declared.seed, Path(folder),
                )  # fmt: skip
            seconds = time.perf_counter() - started
        scores = test_f1(model, tokenizer, recipe.evaluate, label_names)
        result[who] = {"seconds": round(seconds, 1), "useful_tokens_per_second": round(tokens / seconds)} | scores
    result["ratio"] = round(result["plain"]["seconds"] / result["ours"]["seconds"], 2)
    result["ours_f1_inside_plain_interval"] = (
        result["plain"]["f1_low"] <= result["ours"]["f1"] <= result["plain"]["f1_high"]
    )
    keep("train", result)


if __name__ == "__main__":
    main(float(sys.argv[1]) if sys.argv[1:] else None)
