"""Bytes of a trained model by machine, with fast and with portable numerics; and what portable numerics cost.

python -m benchmarks.portable [--emulate CPU ...]

Machines are emulated: by their number of cores and threads, by the caps that torch's libraries know, and, with
--emulate, by QEMU's user-mode emulation of another CPU (Debian's package qemu-user; `qemu-x86_64 -cpu help` lists
them), which also is of another vendor. Each trains wnut16 on 60 examples of each split for one epoch, and evaluates.
The cost is the time of an update on the whole train split.
"""

import argparse
import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from benchmarks import keep, machine
from benchmarks.train import prepared, process
from finetrail import layout
from finetrail.environment import PORTABLE

RECIPE = "token_classification/wnut16"
UPDATES = 40
AVX512_CORE, AVX2 = "AVX512_CORE", "AVX2"
# Environment and, if not all, the cores of a machine.
MACHINES: dict[str, tuple[dict[str, str], str | None]] = {
    "2 threads": ({"OMP_NUM_THREADS": "2"}, None),
    "1 thread": ({"OMP_NUM_THREADS": "1"}, None),
    "1 core": ({}, "0"),
    "AVX-512 without bf16": ({"ONEDNN_MAX_CPU_ISA": AVX512_CORE}, None),
    "AVX2": ({"ONEDNN_MAX_CPU_ISA": AVX2, "ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": AVX2}, None),
    "AVX2, 1 thread": (
        {"ONEDNN_MAX_CPU_ISA": AVX2, "ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": AVX2, "OMP_NUM_THREADS": "1"},
        None,
    ),
}
COMPUTED = (layout.TRAINED / "model.safetensors", layout.PREDICTIONS, layout.EVALUATION_METRICS)

# File -> the first digits of its sha256.
Hashes = dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--emulate", nargs="*", default=[], metavar="CPU", help="CPUs of qemu-x86_64, such as Haswell-v4"
    )
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clone = prepared(RECIPE, Path(folder) / "clone")
        result: dict[str, Any] = {"machine": machine(), "milliseconds_per_update": cost(clone)}
        edit(clone / layout.PARAMS, limit=60, epochs=1.0)
        run(clone, "tokenize", {}, [])
        result["fast"] = hashes(clone, "fast", [])
        result["portable"] = hashes(clone, "portable", chosen.emulate)
    keep("portable", result)


def cost(clone: Path) -> dict[str, float]:
    """Return the milliseconds of an update: what `auto` gives here, fp32, and portable."""
    found = {}
    recipe = clone / layout.recipe_file(*RECIPE.split("/"))
    for name, environment in {"fast, auto": {}, "fast, fp32": {}, "portable": PORTABLE}.items():
        numerics, _, precision = name.partition(", ")
        edit(recipe, numerics=numerics, train={"precision": precision or "auto"})
        seconds = [update["seconds"] for update in process("ours", UPDATES, clone, environment)["updates"]]
        found[name] = round(1000 * statistics.mean(seconds), 1)
    return found


def hashes(clone: Path, numerics: str, cpus: list[str]) -> dict[str, Hashes]:
    """Return what each machine computes."""
    edit(clone / layout.recipe_file(*RECIPE.split("/")), numerics=numerics, train={"precision": "auto"})
    found = {}
    for name, (environment, core) in MACHINES.items():
        found[name] = computed(clone, environment, ["taskset", "--cpu-list", core] if core else [])
    for cpu in cpus:
        found[f"QEMU's {cpu}"] = computed(clone, {}, ["qemu-x86_64", "-cpu", cpu])
    return found


def computed(clone: Path, environment: dict[str, str], before: list[str]) -> Hashes:
    """Train and evaluate; `before` is a command that runs another."""
    shutil.rmtree(clone / layout.SCRATCH, ignore_errors=True)
    for stage in ("train", "evaluate"):
        run(clone, stage, environment, before)
    found = {file.name: hashlib.sha256((clone / file).read_bytes()).hexdigest()[:12] for file in COMPUTED}
    print(" ".join(before), environment, found, file=sys.stderr, flush=True)
    return found


def run(clone: Path, stage: str, environment: dict[str, str], before: list[str]) -> None:
    command = [*before, sys.executable, "-m", f"stages.{stage}"]
    subprocess.run(command, cwd=clone, env=os.environ | environment, check=True, stdout=sys.stderr)


def edit(path: Path, **values: Any) -> None:
    """Set keys of a YAML file; a mapping sets keys of a section."""
    yaml = YAML()
    content = yaml.load(path)
    for key, value in values.items():
        if isinstance(value, dict):
            content[key].update(value)
        else:
            content[key] = value
    yaml.dump(content, path)


if __name__ == "__main__":
    main()
