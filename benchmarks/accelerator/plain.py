"""The plain Hugging Face Trainer: with its defaults, as the course has it, and with its own fastest switches."""

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from benchmarks.accelerator import ours
from benchmarks.accelerator.watch import Watch
from finetrail import layout, stage, tasks
from finetrail.training.batching import feature_lengths
from finetrail.training.run import effective_precision

WORKERS = 4
MAKES_LABELS = ("masked_lm", "text_generation")  # the course's collator does


class Watched(Trainer):
    """A Trainer that notes the lengths of what it trains on, on the device, and does not wait for it."""

    seen: list[torch.Tensor]  # by update: tokens, and the sum of their squares by feature
    losses: list[torch.Tensor]

    def training_step(self, model: Any, inputs: Any, *arguments: Any, **named: Any) -> torch.Tensor:
        lengths = inputs["attention_mask"].sum(-1)
        self.seen.append(torch.stack([lengths.sum(), lengths.square().sum()]))
        loss = super().training_step(model, inputs, *arguments, **named)
        self.losses.append(loss.detach())
        return loss


class Stop(TrainerCallback):
    """Ends a training that has been measured."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        control.should_training_stop = self.watch.updated()


def train(task_name: str, values: dict[str, Any], device: str, best: bool, compiles: bool, watch: Watch) -> Watched:
    """Train in the working folder's data/ until the watch has seen enough; return the Trainer."""
    task = tasks.module(task_name, "modeling")
    settings = tasks.module(task_name, "settings").Train(**values)
    tokenizer = AutoTokenizer.from_pretrained(layout.USED_TOKENIZER)
    features = Dataset.from_file(str(layout.features_file("train")))
    set_seed(0)
    with ours.drawn_on(device, task_name):
        model = task.build_model(layout.WEIGHTS, stage.read_json(layout.TARGET), settings, features)
        model.config.use_cache = False
        if settings.lora is not None:
            model = with_adapters(model, settings.lora)
    features = features.select_columns(["input_ids", *([] if task_name in MAKES_LABELS else ["labels"])])
    features = features.add_column("length", feature_lengths(features))
    trainer = Watched(
        model,
        arguments(values, device, best, compiles),
        data_collator=collator(task_name, tokenizer, values),
        train_dataset=features,
        callbacks=[Stop(watch)],
    )
    trainer.seen, trainer.losses = [], []
    trainer.train()
    return trainer


def arguments(values: dict[str, Any], device: str, best: bool, compiles: bool) -> TrainingArguments:
    """Return the Trainer's settings: its defaults, or what it has to be fast."""
    fast: dict[str, Any] = {}
    if best:
        fast = {
            "bf16": effective_precision("auto") == "bf16",
            "tf32": True if device == "cuda" else None,
            "optim": "adamw_torch_fused",
            "train_sampling_strategy": "group_by_length",
            "dataloader_num_workers": WORKERS if device == "cuda" else 0,
            "torch_compile": compiles,
        }
    return TrainingArguments(
        str(Path("plain").absolute()), learning_rate=values["lr"], num_train_epochs=1,
        weight_decay=values["weight_decay"], warmup_steps=values["warmup"],
        per_device_train_batch_size=values["batch_size"], use_cpu=device == "cpu", report_to="none",
        save_strategy="no", eval_strategy="no", disable_tqdm=True, dataloader_pin_memory=device == "cuda", seed=0,
        **fast,
    )  # fmt: skip


def collator(task_name: str, tokenizer: Any, values: dict[str, Any]) -> Any:
    """Return the course's collator of a task."""
    if task_name == "masked_lm":
        return DataCollatorForLanguageModeling(tokenizer, mlm_probability=values["mask_probability"])
    if task_name == "text_generation":
        return DataCollatorForLanguageModeling(tokenizer, mlm=False)
    labels_are_padded = task_name == "token_classification"
    return (DataCollatorForTokenClassification if labels_are_padded else DataCollatorWithPadding)(tokenizer)


def with_adapters(model: Any, lora: Any) -> Any:
    """Wrap the model as PEFT's users do."""
    from peft import LoraConfig, get_peft_model

    return get_peft_model(
        model,
        LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules="all-linear"),
    )
