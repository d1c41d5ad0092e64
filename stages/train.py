"""Trains the base model on the features: data/trained, with curves in metrics/train.

1. `main` reads settings, target and features, and describes the run (`Run`), whose scratch folder is named by a hash.
2. `fit` builds the model (`build_model`), prepares it for how passes are executed (`executed`), and calls the engine.
   If memory runs out, it tries again with smaller micro-batches. If CUDA graphs fail, the stage starts again without.
3. Adapters are saved and merged. The main process writes the model, its record and the timings (`write`).
"""

import gc
import os
import platform
import resource
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import peft
import torch
import transformers
from datasets import Dataset, concatenate_datasets
from transformers import AutoTokenizer, PreTrainedModel

from finetrail import layout, numerics, params, schema, stage, tasks
from finetrail.errors import UserError
from finetrail.model import distillation
from finetrail.patches.speedups import speed_up
from finetrail.training import (
    adapters,
    batching,
    checkpoints,
    execution,
    graphs,
    loop,
    memory,
    mixing,
    packing,
    trackers,
    trainer,
)
from finetrail.training.determinism import make_deterministic
from finetrail.training.run import HISTORY, Run, effective_precision

if TYPE_CHECKING:
    from finetrail.tasks.contract import Modeling

# Files of scratch: what a run has found out, for when it is resumed.
MICRO_BATCH_SIZE, EXECUTION = "micro_batch_size.json", "execution.json"
ADAPTER = layout.TRAINED_ADAPTER.name
ENGINES = {"trainer": trainer.train, "accelerate": loop.train}


def main() -> None:
    """Train on the train split, and choose the checkpoint by the validation split."""
    declared = params.load("train")
    numerics.use(declared.numerics, declared.threads)
    task, scores = tasks.module(declared.task, "modeling"), tasks.module(declared.task, "validation")
    settings = declared.train
    target = stage.read_json(layout.TARGET)
    params.validate_with(target)
    tokenizer = AutoTokenizer.from_pretrained(layout.USED_TOKENIZER)
    taught = hasattr(settings, "distillation") and task.TEACHING is not None and task.TEACHING.taught is not None
    train, validation = load_features("train", taught), load_features("validation")
    # Similar lengths in a batch here too: the order does not matter, because validation is scored as a whole.
    validation = validation.select(batching.feature_lengths(validation).argsort(kind="stable")[::-1])
    notes = task.notes(layout.WEIGHTS)
    for note in notes:
        stage.log(f"train: {note}")
    run = Run(
        task=task,
        collator=distillation.collator(task.build_collator(tokenizer, settings)),
        train=select_columns(train, task.COLUMNS),
        validation=select_columns(validation, task.COLUMNS),
        validate=lambda reduced: scores.validate(reduced, validation.with_format("arrow")[:], target),
        lower_is_better=scores.LOWER_IS_BETTER,
        settings=settings,
        seed=declared.seed,
        scratch=scratch(declared),
        micro_batch_size=settings.micro_batch_size,
        mixture=mixture(train, settings, declared.seed),
        trackers=tracked(declared),
    )
    started = time.perf_counter()
    model, record = fit(lambda: build_model(task, target, settings, train, declared.seed), run)
    seconds = time.perf_counter() - started
    tokens = run.tokens(record["epochs_done"])
    if stage.is_first_process():
        machine = numerics.record(declared.numerics)
        settings_used = {"seed": declared.seed} | settings.model_dump() | record | {"machine": machine, "notes": notes}
        write(model, tokenizer, settings_used, run.scratch, timings(seconds, tokens))
        checkpoints.clear(run.scratch)
        used = f"{machine['device']} ({machine['instructions']}, {machine['threads']} threads)"
        stage.log(
            f"train: {record['updates']} updates in {record['precision']} on {used}, kept update "
            f"{record['best_update']} with {record['best_metric']} {record['best_value']:.4f} on validation"
        )


def tracked(declared: params.StageParams) -> trackers.Trackers:
    """Return the trackers that get the curves. No stage depends on them, because they change no output."""
    names = params.load_params().trackers or []
    settings = {"seed": declared.seed, "numerics": declared.numerics} | declared.train.model_dump(mode="json")
    return trackers.Trackers(names, declared.task, declared.recipe, settings)


def mixture(train: Dataset, settings: schema.Train, seed: int) -> mixing.Mixture | None:
    """Return the mixture, if the recipe gives the parts of train other shares of an epoch than those of their sizes."""
    if not isinstance(settings.batching, schema.MixedBatching):
        return None
    parts = train.with_format("arrow")[layout.PART][:].to_numpy()
    return mixing.Mixture(parts, settings.batching.mix, seed, settings.epochs)


def scratch(declared: params.StageParams) -> Path:
    """Return the folder of this run's checkpoints; runs with other settings, code, data or machines never use it."""
    processes, on_this_node = (os.environ.get(name, "1") for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    determined_by = {
        "seed": declared.seed,
        "train": declared.train.model_dump(),
        # All processes need the same key, and nodes may be of different kinds.
        "machine": numerics.record(declared.numerics) if processes == on_this_node else declared.numerics,
        "processes": processes,
        "spread": {name: os.environ[name] for name in os.environ if name.startswith(("ACCELERATE_USE_", "FSDP_"))},
        "versions": [platform.python_version(), *(module.__version__ for module in (torch, transformers, peft))],
    }
    return layout.SCRATCH / "train" / checkpoints.key(determined_by, params.declared_files("train"))


def build_model(task: "Modeling", target: object, settings: schema.Train, train: Dataset, seed: int) -> PreTrainedModel:
    """Build the model to train. New weights, adapters' too, are drawn from the seed."""
    make_deterministic(seed)
    model = task.build_model(layout.WEIGHTS, target, settings, train)
    model.config.use_cache = False  # it is for generation only; the Trainer sets this too
    if hasattr(settings, "distillation"):
        teach(model, task, target, settings)
    if settings.lora is not None:
        adapters.add(model, settings.lora)
    if settings.gradient_checkpointing:
        memory.checkpoint_gradients(model)
    return model


def teach(model: PreTrainedModel, task: "Modeling", target: object, settings: Any) -> None:
    """Add the teacher's logits to the loss: those of the features, or those for each batch if inputs change."""
    teaching, ask = task.TEACHING, None
    assert teaching is not None  # or the recipe could have no teacher
    if teaching.asking is not None:
        ask = teaching.asking(teaching.load_teacher(layout.TAUGHT_BY, target), effective_precision(settings.precision))
    distillation.teach(model, teaching.divergence, settings.distillation, ask)


def executed(model: PreTrainedModel, run: Run) -> Run:
    """Prepare the model for how the run's passes are executed, and return the run with that choice."""
    if not run.task.SEPARABLE:
        model.micro_batch_size = run.micro_batch_size  # type: ignore[assignment]
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    precision = effective_precision(run.settings.precision)
    way = execution.chosen(model, run.settings, precision, run.updates(processes)[1])
    compiles = way.execution == "compile"
    if way.padding == "none":
        packer = packing.use(model, rounds=way.execution == "graphs", compiles=compiles)
        run = replace(run, collator=packer.collator(run.collator))
    elif run.settings.speedups:
        speed_up(model, compiles)
    if compiles:
        model.compile(dynamic=True)  # in place: names and weights do not change
    return replace(run, execution=way)


def fit(build: Callable[[], PreTrainedModel], run: Run) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Train. If the device is out of memory, train again from the last checkpoint with micro-batches of half the size.

    Batches and their losses do not change. A killed run resumes with micro-batches of the reduced size.
    If CUDA graphs fail, which auto may have chosen, the stage starts again without them.
    """
    record = None
    size_file, execution_file = run.scratch / MICRO_BATCH_SIZE, run.scratch / EXECUTION
    if size_file.exists():
        run = replace(run, micro_batch_size=stage.read_json(size_file))
    if execution_file.exists():
        run = replace(run, settings=run.settings.model_copy(update={"execution": stage.read_json(execution_file)}))
    while record is None:
        prepared = run
        try:
            model = build()
            prepared = executed(model, run)
            lora, precision = run.settings.lora, effective_precision(run.settings.precision)
            whole = adapters.shrink(model, lora, precision) if lora is not None else {}
            model, record = ENGINES[run.settings.engine](model, prepared)
        except (graphs.Failed, torch.OutOfMemoryError) as error:
            if prepared.execution.execution == "graphs":
                start_without_graphs(run, str(error).splitlines()[0])
            several = int(os.environ.get("WORLD_SIZE", "1")) > 1  # the others would wait for this one forever
            if several or run.micro_batch_size == 1:
                raise UserError(
                    f"train: the device is out of memory with {run.micro_batch_size} features at once; expected a "
                    "smaller batch_size (and more train.gradient_accumulation), train.gradient_checkpointing, or a "
                    "smaller tokenize.max_length"
                ) from None
            run = replace(run, micro_batch_size=run.micro_batch_size // 2)
            run.scratch.mkdir(parents=True, exist_ok=True)
            with stage.output(size_file) as path:
                stage.write_json(path, run.micro_batch_size)
            stage.log(f"train: out of memory: trying again with at most {run.micro_batch_size} features at once")
        except Exception as error:
            execution.raise_compiler_error(error, prepared.execution)
            raise
        gc.collect()  # the Trainer and its callbacks refer to each other, and keep tensors on the device
    if run.task.finish is not None:  # before adapters are saved, because the head is saved with them
        run.task.finish(model)
    if run.settings.lora is not None:
        if run.settings.lora.keep and stage.is_first_process():
            adapters.save(model, run.settings.lora, run.scratch / ADAPTER)
        adapters.merge(model, whole)
    return model, record | {"parameters": model.num_parameters()}  # weights in 4 bits were not counted


def start_without_graphs(run: Run, reason: str) -> NoReturn:
    """Start the stage again, without CUDA graphs; UserError if the recipe asks for them.

    It needs another process, because torch (2.13) cannot continue after a recording that failed. It starts from the
    beginning, because the checkpoints are those of recorded passes.
    """
    if run.settings.execution == "graphs":
        raise UserError(f"train.execution: CUDA graphs fail here ({reason}); expected auto or eager")
    stage.remove(run.scratch)
    run.scratch.mkdir(parents=True)
    with stage.output(run.scratch / EXECUTION) as path:
        stage.write_json(path, "eager")
    stage.log(f"train: CUDA graphs fail here ({reason}): starting again without them")
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, sys.orig_argv)


def load_features(split: str, taught: bool = False) -> Dataset:
    """Map the features of a split that have labels into memory; taught: with their teacher's logits."""
    features = Dataset.from_file(str(layout.features_file(split)))
    if taught:
        features = concatenate_datasets([features, Dataset.from_file(str(layout.TAUGHT_LOGITS))], axis=1)
    labelled = batching.labelled(features)
    if not len(labelled):
        raise UserError(
            f"{layout.features_file(split)}: no feature has a label of the train split; expected at least one"
        )
    if left_out := len(features) - len(labelled):
        stage.log(f"train: {left_out:,} of {len(features):,} features of {split} have no label to learn from: left out")
    return labelled


def select_columns(features: Dataset, columns: tuple[str, ...]) -> Dataset:
    """Keep the columns that batches need; others would be read into memory with each row."""
    return features.select_columns([name for name in features.column_names if name in columns])


def write(model: PreTrainedModel, tokenizer: Any, record: dict[str, Any], scratch: Path, timed: dict[str, Any]) -> None:
    """Write the model with its tokenizer and record, its curves, and the timings in a file of their own."""
    written = stage.outputs(layout.TRAINED, layout.TRAIN_HISTORY, layout.TRAIN_TIMINGS)
    with written as [folder, history, timings_file]:
        if model.can_generate():  # generation stops at the token that ended texts in training
            model.generation_config.eos_token_id = tokenizer.eos_token_id
        model.save_pretrained(folder)
        # The files are copied, because save_pretrained() writes into them whether they were read offline.
        shutil.copytree(layout.USED_TOKENIZER, folder, copy_function=shutil.copyfile, dirs_exist_ok=True)
        if (scratch / ADAPTER).is_dir():
            shutil.copytree(scratch / ADAPTER, folder / ADAPTER)
        stage.write_json(folder / layout.TRAINING_RECORD.name, record)
        shutil.copytree(scratch / HISTORY, history)
        stage.write_json(timings_file, timed)


def timings(seconds: float, tokens: int) -> dict[str, Any]:
    """Return what differs between runs and machines; no other file has it."""
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
