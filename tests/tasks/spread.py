"""Training spread by FSDP over two processes (gloo, CPU), for its tests; a toy project whose model drops nothing."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from safetensors.numpy import load_file
from toys import projects

from finetrail import layout
from stages import download_corpus, download_model, tokenize

TORCHRUN = ("-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d", "--rdzv_endpoint")
# Accelerate (1.15) starts FSDP on accelerators only. This starts it on CPUs too, as it does there.
SPREAD = """
import runpy
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

made = AcceleratorState.__init__

def spread(self, *arguments, fsdp_plugin=None, **named):
    made(self, *arguments, fsdp_plugin=fsdp_plugin, **named)
    if fsdp_plugin is not None:
        if self.mixed_precision != "no":
            fsdp_plugin.set_mixed_precision(self.mixed_precision)
        self.fsdp_plugin = fsdp_plugin
        self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP

AcceleratorState.__init__ = spread
runpy.run_module("stages.train", run_name="__main__")
"""
DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "resid_pdrop", "embd_pdrop", "attn_pdrop")
# As accelerate launch would set it.
FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
}


@pytest.fixture(scope="module")
def tokenized(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Path]]:
    """Return the function that enters the project of a task, with features, whose model draws no dropout."""
    with projects(
        request, download_corpus, download_model, tokenize, checkpoint_every="2 updates", epochs=2.0
    ) as enter:

        def entered(task: str) -> Path:
            folder = enter(task)
            config = Path("data/model/weights/config.json")
            values = json.loads(config.read_text())
            config.write_text(json.dumps(values | dict.fromkeys(DROPOUTS, 0.0)))
            return folder

        yield entered


def trained(task: str, *program: str, succeeds: bool = True, **changes: Any) -> str:
    """Run the stage with changes to the recipe's section train, spread where it is a program of its own."""
    path = layout.recipe_file(task, "toy")
    yaml = YAML()
    recipe = yaml.load(path)
    recipe["train"].update(changes)
    yaml.dump(recipe, path)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())} | (FSDP if program else {})
    arguments: tuple[str, ...] = ("-m", "stages.train")
    if program:
        Path("spread.py").write_text("".join(program))
        arguments = (*TORCHRUN, "127.0.0.1:0", "spread.py")
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode == 0) == succeeds, done.stderr
    return done.stderr


def result() -> tuple[dict[str, Any], dict[str, Any], list[float]]:
    """Return the weights, the record and the loss curve."""
    lines = Path("metrics/train/plots/metrics/train/loss.tsv").read_text().splitlines()[1:]
    record = json.loads(Path("data/trained/training.json").read_text())
    return load_file("data/trained/model.safetensors"), record, [float(line.split("\t")[1]) for line in lines]
