"""Turns features and the base model into a trained model, data/trained, and its curves, metrics/train."""

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
from types import ModuleType
from typing import Any, NoReturn

import peft
import torch
import transformers
from datasets import Dataset, concatenate_datasets
from transformers import AutoTokenizer, PreTrainedModel

from finetrail import layout, numerics, params, schema, stage, tasks
from finetrail.errors import UserError
from finetrail.model import distillation
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
from finetrail.training.speed import speed_up

# Files of scratch: what a run has found out, for when it goes on.
PIECE_SIZE, EXECUTION = "piece_size.json", "execution.json"
ADAPTER = layout.TRAINED_ADAPTER.name
ENGINES = {"trainer": trainer.train, "accelerate": loop.train}


def main() -> None:
    """Train on the train split, and choose the checkpoint on the validation split."""
    declared = params.load("train")
    numerics.use(declared.numerics, declared.threads)
    task, scores = (tasks.module(declared.task, part) for part in ("modeling", "validation"))
    settings = declared.train
    target = stage.read_json(layout.TARGET)
    params.validate_with(target)
    tokenizer = AutoTokenizer.from_pretrained(layout.USED_TOKENIZER)
    taught = hasattr(settings, "distillation") and task.INPUTS_STAY
    train, validation = load_features("train", taught), load_features("validation")
    # Similar lengths in a batch here too: validation is scored as a whole, in any order.
    validation = validation.select(batching.feature_lengths(validation).argsort(kind="stable")[::-1])
    notes = task.notes(layout.WEIGHTS)
    for note in notes:
        stage.log(f"train: {note}")
    run = Run(
        task=task,
        collator=distillation.collator(task.build_collator(tokenizer, settings)),
        train=taken(train, task.COLUMNS),
        validation=taken(validation, task.COLUMNS),
        validate=lambda reduced: scores.validate(reduced, validation.with_format("arrow")[:], target),
        lower_is_better=scores.LOWER_IS_BETTER,
        settings=settings,
        seed=declared.seed,
        scratch=scratch(declared),
        piece_size=settings.piece_size,
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


def tracked(declared: params.Declared) -> trackers.Trackers:
    """Return what curves are sent to, which no stage depends on: it changes no output."""
    names = params.load_params().trackers or []
    settings = {"seed": declared.seed, "numerics": declared.numerics} | declared.train.model_dump(mode="json")
    return trackers.Trackers(names, declared.task, declared.recipe, settings)


def mixture(train: Dataset, settings: Any, seed: int) -> mixing.Mixture | None:
    """Return what each epoch takes of the parts of train, where the recipe gives them other shares than their sizes."""
    if not isinstance(settings.batching, schema.MixedBatching):
        return None
    parts = train.with_format("arrow")[layout.PART][:].to_numpy()
    return mixing.Mixture(parts, settings.batching.mix, seed, settings.epochs)


def scratch(declared: params.Declared) -> Path:
    """Return where this very run keeps its checkpoints: other settings, code, data or machines never use them."""
    processes, on_this_node = (os.environ.get(name, "1") for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    determined_by = {
        "seed": declared.seed,
        "train": declared.train.model_dump(),
        # All processes need one key, and several nodes may be of several kinds.
        "machine": numerics.record(declared.numerics) if processes == on_this_node else declared.numerics,
        "processes": processes,
        "spread": {name: os.environ[name] for name in os.environ if name.startswith(("ACCELERATE_USE_", "FSDP_"))},
        "versions": [platform.python_version(), *(module.__version__ for module in (torch, transformers, peft))],
    }
    return layout.SCRATCH / "train" / checkpoints.key(determined_by, params.declared_files("train"))


def build_model(task: ModuleType, target: Any, settings: Any, train: Dataset, seed: int) -> PreTrainedModel:
    """Make the model that trains: with its new weights, those of adapters too, drawn from the seed."""
    make_deterministic(seed)
    model = task.build_model(layout.WEIGHTS, target, settings, train)
    model.config.use_cache = False  # for generation only; the Trainer would do so too
    if hasattr(settings, "distillation"):
        teach(model, task, target, settings)
    if settings.lora is not None:
        adapters.add(model, settings.lora)
    if settings.gradient_checkpointing:
        memory.checkpoint_gradients(model)
    return model


def teach(model: PreTrainedModel, task: ModuleType, target: Any, settings: Any) -> None:
    """Let the model learn from what its teacher said of the features, or says of each batch where inputs change."""
    ask = None
    if not task.INPUTS_STAY:
        ask = task.asking(task.load_teacher(layout.TAUGHT_BY, target), effective_precision(settings.precision))
    distillation.teach(model, task.divergence, settings.distillation, ask)


def executed(model: PreTrainedModel, run: Run) -> Run:
    """Prepare the model for how the run executes its passes, and return the run with that."""
    if not run.task.SEPARABLE:
        model.piece_size = run.piece_size  # type: ignore[assignment]
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    precision = effective_precision(run.settings.precision)
    way = execution.chosen(model, run.settings, precision, run.updates(processes)[1])
    compiles = way.execution == "compile"
    if way.padding == "none":
        packer = packing.use(model, rounds=way.execution == "graphs", compiles=compiles)
        run = replace(run, collator=packer.collator(run.collator))
    else:
        speed_up(model, compiles)
    if compiles:
        model.compile(dynamic=True)  # in place: names and weights stay what they are
    return replace(run, execution=way)


def fit(build: Callable[[], PreTrainedModel], run: Run) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Train; where the device is out of memory, again from the last checkpoint with batches in pieces half as large.

    The batches stay what they are, and their loss too. A run that was killed then goes on in pieces of that size.
    Where CUDA graphs fail, which auto may have chosen, the stage starts anew without them.
    """
    record = None
    piece_size, execution_file = run.scratch / PIECE_SIZE, run.scratch / EXECUTION
    if piece_size.exists():
        run = replace(run, piece_size=stage.read_json(piece_size))
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
            several = int(os.environ.get("WORLD_SIZE", "1")) > 1  # the others wait for this one, and would for ever
            if several or run.piece_size == 1:
                raise UserError(
                    f"train: the device is out of memory with {run.piece_size} features at once; expected a smaller "
                    "batch_size (and more train.gradient_accumulation), train.gradient_checkpointing, or a smaller "
                    "tokenize.max_length"
                ) from None
            run = replace(run, piece_size=run.piece_size // 2)
            run.scratch.mkdir(parents=True, exist_ok=True)
            with stage.output(piece_size) as path:
                stage.write_json(path, run.piece_size)
            stage.log(f"train: out of memory: again, with at most {run.piece_size} features at once")
        except Exception as error:
            execution.tell_of_compiler(error, prepared.execution)
            raise
        gc.collect()  # the Trainer and its callbacks hold each other, and with them what the device holds
    if hasattr(run.task, "finish"):  # before adapters are kept, for they are kept with the head
        run.task.finish(model)
    if run.settings.lora is not None:
        if run.settings.lora.keep and stage.is_first_process():
            adapters.save(model, run.settings.lora, run.scratch / ADAPTER)
        adapters.merge(model, whole)
    return model, record | {"parameters": model.num_parameters()}  # those in 4 bits did not count


def start_without_graphs(run: Run, reason: str) -> NoReturn:
    """Start the stage anew, without CUDA graphs; UserError where the recipe asks for them.

    In another process: after a recording that failed, torch (2.13) is in no state to go on. And from the beginning, for
    the checkpoints are those of passes that were recorded.
    """
    if run.settings.execution == "graphs":
        raise UserError(f"train.execution: CUDA graphs fail here ({reason}); expected auto or eager")
    stage.remove(run.scratch)
    run.scratch.mkdir(parents=True)
    with stage.output(run.scratch / EXECUTION) as path:
        stage.write_json(path, "eager")
    stage.log(f"train: CUDA graphs fail here ({reason}): from the beginning, without them")
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, sys.orig_argv)


def load_features(split: str, taught: bool = False) -> Dataset:
    """Map the features of a split into memory, those with labels; taught: with what a teacher said of them."""
    features = Dataset.from_file(str(layout.features_file(split)))
    if taught:
        features = concatenate_datasets([features, Dataset.from_file(str(layout.TAUGHT_LOGITS))], axis=1)
    labelled = batching.labelled(features)
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
    written = stage.outputs(layout.TRAINED, layout.TRAIN_HISTORY, layout.TRAIN_TIMINGS)
    with written as [folder, history, timings_file]:
        if model.can_generate():  # it stops where training ended a text
            model.generation_config.eos_token_id = tokenizer.eos_token_id
        model.save_pretrained(folder)
        # Its files, because save_pretrained() writes into them whether the Hub was to be asked when they were read.
        shutil.copytree(layout.USED_TOKENIZER, folder, copy_function=shutil.copyfile, dirs_exist_ok=True)
        if (scratch / ADAPTER).is_dir():
            shutil.copytree(scratch / ADAPTER, folder / ADAPTER)
        stage.write_json(folder / layout.TRAINING_RECORD.name, record)
        shutil.copytree(scratch / HISTORY, history)
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
