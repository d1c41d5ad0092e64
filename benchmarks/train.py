"""Compares updates of the plain Hugging Face Trainer with finetrail's: same model, features, batch size and settings.

python -m benchmarks.train [--updates N] [--rounds N] [TASK/RECIPE ...]

The plain Trainer is the one of Hugging Face's course: its collators, fp32, random batches, its default optimizer. Each
side of each round is a process of its own, in turn, with so many updates in a clone where `dvc repro tokenize` has run.
Useful tokens are those without padding. Both sides are measured from outside: from the end of one optimizer step to
the end of the next, without the first few, and without evaluations or checkpoints between. The start-up is that of the
train stage: from the start of its process until the first update is on its curves. On a shared machine an update counts
only if others used less than a tenth of a core meanwhile; the number of updates that counted is among the figures.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import torch
from datasets import Dataset
from ruamel.yaml import YAML
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.profiler import ProfilerActivity, profile
from transformers import (
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    logging,
    set_seed,
)

from benchmarks import ROOT, keep, machine
from finetrail import layout, numerics, params, stage, tasks
from finetrail.labels import IGNORE_INDEX

RECIPES = ["token_classification/wnut16", "text_classification/bbc-news", "masked_lm/bbc"]
SIDES = ("plain", "ours")
WARM_UP = 3
FEWEST_COUNTED = 15
MOST_OF_OTHERS = 0.1
TICK = 0.01  # by which processor times are counted
LOSSES_SHOWN = 5
PEAK_SIZE = 4096
FIRST_CURVE = f"{layout.SCRATCH}/train/*/history/plots/metrics/train/loss.tsv"
PRODUCTS = {"aten::mm": 0, "aten::addmm": 1, "aten::bmm": 0, "aten::baddbmm": 1}  # where the factors' shapes begin


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipes", nargs="*", metavar="TASK/RECIPE")
    parser.add_argument("--updates", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--side", choices=(*SIDES, "profile"), help="measure one side, here, and print it")
    chosen = parser.parse_args()
    if chosen.side:
        print(json.dumps(one_side(chosen.side, chosen.updates)))
        return
    result: dict[str, Any] = {name: getattr(chosen, name) for name in ("updates", "rounds")}
    for name in chosen.recipes or RECIPES:
        with tempfile.TemporaryDirectory() as folder:
            clone = prepared(name, Path(folder) / "clone")
            rounds = [{side: process(side, chosen.updates, clone) for side in SIDES} for _ in range(chosen.rounds)]
            result[name] = compared(rounds) | shares([process("profile", WARM_UP + 3, clone) for _ in rounds])
            result[name]["seconds_to_first_update"] = round(min(start_up(clone) for _ in range(3)), 2)
        print(json.dumps(result[name]), file=sys.stderr, flush=True)
    keep("train", result, machine())


def prepared(name: str, clone: Path) -> Path:
    """Make the features of a recipe, with fast numerics, in a clone of the last commit that shares the DVC cache."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    shown = subprocess.run(["dvc", "cache", "dir"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    subprocess.run(["dvc", "cache", "dir", "--local", str((ROOT / shown.strip()).resolve())], cwd=clone, check=True)
    yaml = YAML()
    declared = yaml.load(clone / layout.PARAMS)
    declared["task"], declared["recipe"] = name.split("/")
    yaml.dump(declared, clone / layout.PARAMS)
    recipe = yaml.load(clone / layout.recipe_file(*name.split("/")))
    recipe["numerics"] = "fast"
    yaml.dump(recipe, clone / layout.recipe_file(*name.split("/")))
    subprocess.run(["dvc", "repro", "--quiet", "tokenize"], cwd=clone, check=True, stdout=sys.stderr)
    return clone


def process(side: str, updates: int, clone: Path, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Measure one side in a process of its own, whose environment has these variables besides."""
    command = [sys.executable, "-m", "benchmarks.train", "--side", side, "--updates", str(updates)]
    variables = os.environ | dict(environment or {}) | {"PYTHONPATH": str(clone)}
    done = subprocess.run(command, cwd=clone, env=variables, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def one_side(side: str, updates: int) -> dict[str, Any]:
    """Train so many updates, and return their figures; side profile: ours, with the time of its matrix products."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    declared = params.load("train")
    rows = len(Dataset.from_file(str(layout.features_file("train"))))
    # A little less: epochs times the updates of an epoch is rounded up.
    epochs = (updates - 0.5) / -(-rows // declared.train.batch_size)
    settings = declared.train.model_copy(update={"epochs": epochs})
    seen = Seen()
    with tempfile.TemporaryDirectory() as folder:
        train = plain if side == "plain" else ours
        if side != "profile":
            train(declared, settings, Path(folder))
            return seen.figures()
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiled:
            train(declared, settings, Path(folder))
    return products(profiled) | {"peak": peak_of_products()}


def start_up(clone: Path) -> float:
    """Return the seconds until the train stage has the first update on its curves; it is ended then."""
    shutil.rmtree(clone / layout.SCRATCH, ignore_errors=True)
    start = time.perf_counter()
    command = [sys.executable, "-m", "stages.train"]
    with subprocess.Popen(command, cwd=clone, stderr=subprocess.DEVNULL) as stage_process:
        while not any(len(curve.read_text().splitlines()) > 1 for curve in clone.glob(FIRST_CURVE)):
            if stage_process.poll() is not None:
                sys.exit("benchmarks.train: the train stage ended before its first update; expected a curve")
            time.sleep(TICK)
        seconds = time.perf_counter() - start
        stage_process.kill()
    return seconds


class Seen:
    """What passes through models in training, and when optimizers have stepped."""

    def __init__(self) -> None:
        self.ends: list[tuple[float, float]] = []  # a step's time, and the processor seconds of others until then
        self.passes: list[list[tuple[int, int, int, float]]] = [[]]  # useful tokens, tokens, items, loss; by update
        torch.nn.modules.module.register_module_forward_hook(self.passed, with_kwargs=True)
        register_optimizer_step_post_hook(self.stepped)

    def passed(self, module: Any, args: Any, inputs: Any, output: Any) -> None:
        if not module.training or not isinstance(output, dict) or output.get("loss") is None:
            return
        mask, labels = inputs["attention_mask"], inputs["labels"]
        items = int((labels != IGNORE_INDEX).sum())
        self.passes[-1].append((int(mask.sum()), mask.numel(), items, float(output["loss"].detach())))

    def stepped(self, *args: Any) -> None:
        self.ends.append((time.perf_counter(), seconds_of_others()))
        self.passes.append([])

    def figures(self) -> dict[str, Any]:
        """Return each update that counts, and the losses of all."""
        updates = []
        for number in range(WARM_UP, len(self.ends)):
            (start, before), (end, after) = self.ends[number - 1 : number + 1]
            if after - before < MOST_OF_OTHERS * (end - start) + TICK:
                parts = [part[:2] for part in self.passes[number]]
                updates.append({"seconds": end - start, "passes": parts})
        losses = [
            sum(part[2] * part[3] for part in parts) / sum(part[2] for part in parts) for parts in self.passes[:-1]
        ]
        return {"updates": updates, "losses": thinned(losses)}


def seconds_of_others() -> float:
    """Return the processor seconds of all processes but this one."""
    own, whole = psutil.Process().cpu_times(), psutil.cpu_times()
    return float(sum(whole) - whole.idle - whole.iowait - whole.guest - whole.guest_nice - own.user - own.system)


def thinned(losses: list[float]) -> list[float]:
    """Return the means of LOSSES_SHOWN parts of a curve."""
    bounds = [len(losses) * part // LOSSES_SHOWN for part in range(LOSSES_SHOWN + 1)]
    return [round(sum(losses[i:j]) / (j - i), 3) for i, j in zip(bounds, bounds[1:], strict=False) if j > i]


def plain(declared: Any, settings: Any, scratch: Path) -> None:
    """Train as the course does."""
    task = tasks.module(declared.task, "modeling")
    tokenizer = AutoTokenizer.from_pretrained(layout.USED_TOKENIZER)
    train = Dataset.from_file(str(layout.features_file("train")))
    set_seed(declared.seed)
    model = task.build_model(layout.WEIGHTS, stage.read_json(layout.TARGET), settings, train)
    if declared.task == "masked_lm":
        train = train.select_columns(["input_ids"])
        collator: Any = DataCollatorForLanguageModeling(tokenizer, mlm_probability=settings.mask_probability)
    else:
        labels_are_padded = declared.task == "token_classification"
        collator = (DataCollatorForTokenClassification if labels_are_padded else DataCollatorWithPadding)(tokenizer)
    arguments = TrainingArguments(
        str(scratch), learning_rate=settings.lr, num_train_epochs=settings.epochs, weight_decay=settings.weight_decay,
        warmup_steps=settings.warmup, per_device_train_batch_size=settings.batch_size, use_cpu=True, report_to="none",
        save_strategy="no", eval_strategy="no", disable_tqdm=True, dataloader_pin_memory=False, seed=declared.seed,
    )  # fmt: skip
    Trainer(model, arguments, data_collator=collator, train_dataset=train).train()


def ours(declared: Any, settings: Any, scratch: Path) -> None:
    """Train as the train stage does."""
    from stages import train as train_stage

    numerics.use(declared.numerics, declared.threads)
    task, validation = (tasks.module(declared.task, part) for part in ("modeling", "validation"))
    target = stage.read_json(layout.TARGET)
    features = {split: train_stage.load_features(split) for split in ("train", "validation")}
    few = features["validation"].select(range(settings.eval_batch_size))  # what follows the last update is not timed
    run = train_stage.Run(
        task=task,
        collator=task.build_collator(AutoTokenizer.from_pretrained(layout.USED_TOKENIZER), settings),
        train=train_stage.select_columns(features["train"], task.COLUMNS),
        validation=train_stage.select_columns(few, task.COLUMNS),
        validate=lambda reduced: validation.validate(reduced, few.with_format("arrow")[:], target),
        lower_is_better=validation.LOWER_IS_BETTER,
        settings=settings,
        seed=declared.seed,
        scratch=scratch,
        micro_batch_size=settings.batch_size,
    )
    train_stage.fit(lambda: train_stage.build_model(task, target, settings, features["train"], declared.seed), run)


def compared(rounds: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """Put the updates of each side's rounds beside each other."""
    result: dict[str, Any] = {}
    for side in SIDES:
        counted = [update for round_ in rounds for update in round_[side]["updates"]]
        if len(counted) < FEWEST_COUNTED:
            sys.exit(
                f"benchmarks.train: {len(counted)} updates of {side} had the machine to themselves; expected at least "
                f"{FEWEST_COUNTED}: a quieter machine, or more --updates"
            )
        passes = [part for update in counted for part in update["passes"]]
        useful, allotted = (sum(part[which] for part in passes) for which in (0, 1))
        seconds = sum(update["seconds"] for update in counted)
        result[side] = {
            "updates_counted": len(counted),
            "useful_tokens_per_second": round(useful / seconds),
            "milliseconds_per_update": round(1000 * seconds / len(counted), 1),
            "padding": round(1 - useful / allotted, 4),
            "most_padding_of_a_pass": round(max(1 - part[0] / part[1] for part in passes), 4),
            "passes_per_update": round(len(passes) / len(counted), 2),
            "losses": rounds[0][side]["losses"],
        }
    speed = [result[side]["useful_tokens_per_second"] for side in SIDES]
    return result | {"ratio": round(speed[1] / speed[0], 2)}


def products(profiled: Any) -> dict[str, float]:
    """Return the operations and seconds of the matrix products of a profile, those with weights by themselves."""
    found = {"weights_operations": 0.0, "weights_seconds": 0.0, "attention_operations": 0.0, "attention_seconds": 0.0}
    for event in profiled.key_averages(group_by_input_shape=True):
        if event.key in PRODUCTS:
            one, other = event.input_shapes[PRODUCTS[event.key] :][:2]
            kind = "weights" if len(one) == 2 else "attention"
            found[f"{kind}_operations"] += 2 * torch.Size(one).numel() * other[-1] * event.count
            found[f"{kind}_seconds"] += event.self_cpu_time_total / 1e6
    return found


def shares(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Return which share of the peak products with weights, and all with attention's, reach; each at its fastest."""
    peak = max(found["peak"] for found in rounds)
    weights = max(found["weights_operations"] / found["weights_seconds"] for found in rounds) / 1e9
    both = max(
        (found["weights_operations"] + found["attention_operations"])
        / (found["weights_seconds"] + found["attention_seconds"])
        for found in rounds
    )
    return {
        "peak_gigaflops": round(peak),
        "share_of_peak_of_products_with_weights": round(weights / peak, 3),
        "share_of_peak_of_all_products": round(both / 1e9 / peak, 3),
    }


def peak_of_products() -> float:
    """Return the gigaflops of one large product, the fastest of several; in bf16 where the CPU multiplies that."""
    dtype = torch.bfloat16 if numerics.multiplies_bf16() else torch.float32
    one, other = (torch.randn(PEAK_SIZE, PEAK_SIZE).to(dtype) for _ in range(2))
    fastest = 0.0
    for _ in range(20):
        start = time.perf_counter()
        one @ other
        fastest = max(fastest, 2 * PEAK_SIZE**3 / (time.perf_counter() - start) / 1e9)
    return fastest


if __name__ == "__main__":
    main()
