"""Training whose weights FSDP spreads over two processes (gloo, CPU): killed, it resumes to the same bytes."""

from collections.abc import Callable
from pathlib import Path

import pytest
from spread import SPREAD, tokenized, trained

__all__ = ["tokenized"]  # a fixture
pytestmark = pytest.mark.slow  # six processes each
KILLED_IN_TRAINING = """
import os, signal
from finetrail.training.logger import TrainingLogger
updated = TrainingLogger.updated

def die(self, update):
    updated(self, update)
    if update == 5:
        os.kill(os.getpid(), signal.SIGKILL)

TrainingLogger.updated = die
"""
KILLED_BEHIND_IT = """
import os, signal
from finetrail.training import fsdp
fsdp.gather = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    ("engine", "killed", "update"),
    [
        ("trainer", KILLED_IN_TRAINING, 3),
        ("accelerate", KILLED_IN_TRAINING, 3),
        ("trainer", KILLED_BEHIND_IT, 6),
    ],
)
def test_a_spread_run_that_is_killed_goes_on_to_the_same_bytes(
    engine: str, killed: str, update: int, tokenized: Callable[[str], Path]
) -> None:
    tokenized("token_classification")
    trained("token_classification", killed, SPREAD, succeeds=False, engine=engine)
    printed = trained("token_classification", SPREAD)
    assert f"resumes from the checkpoint after update {update} of 6" in printed
    resumed = Path("data/trained/model.safetensors").read_bytes()
    trained("token_classification", SPREAD)
    assert Path("data/trained/model.safetensors").read_bytes() == resumed
