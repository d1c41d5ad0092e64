"""The benchmark of faults: how it judges a trial, and a part of it on one task. And a Hub that stalls."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from benchmarks.faults.forked import Ended
from benchmarks.faults.outcomes import FAULT, LINE, SAME, judge, table
from finetrail import hub_errors
from finetrail.errors import UserError

WELL, KILLED, TOLD = (
    Ended(0, "done\n"),
    Ended(-9, "half a li"),
    Ended(1, "train: ...\nerror: no space left; free some\n"),
)
RAISED = Ended(1, "Traceback (most recent call last):\nerror: x\n")


@pytest.mark.parametrize(
    ("first", "again", "same", "kind", "said"),
    [
        (KILLED, WELL, True, SAME, ""),
        (WELL, None, True, SAME, ""),
        (TOLD, WELL, True, LINE, "error: no space left; free some"),
        (TOLD, WELL, False, FAULT, "other bytes"),
        (KILLED, TOLD, False, FAULT, "error: no space left; free some"),
        (RAISED, WELL, True, FAULT, "code 1: error: x"),
        (Ended(-6, "aborted"), WELL, True, FAULT, "code -6: aborted"),
    ],
)
def test_a_trial_is_judged(first: Ended, again: Ended | None, same: bool, kind: str, said: str) -> None:
    outcome = judge("a", "task", "train", first, again, same)
    assert (outcome.kind, outcome.said) == (kind, said)
    counted = table([outcome, outcome._replace(kind=SAME)])["a"]
    assert counted[SAME] + counted[LINE] + counted[FAULT] == 2
    assert counted["what was wrong"] == ([f"train: {said}"] if kind == FAULT else [])


@pytest.mark.slow  # a pipeline and a dozen trainings take a minute
def test_flipped_bits_in_checkpoints_change_no_byte(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "benchmarks.faults",
        "damage",
        "--tasks",
        "retrieval",
        "--keep",
        tmp_path / "f.json",
    ]
    subprocess.run(command, cwd=Path(__file__).parent.parent, check=True)
    [found] = json.loads((tmp_path / "f.json").read_text())["damage"]["retrieval"].values()
    assert found[SAME] > 0 and found[FAULT] == 0


def test_a_hub_that_never_answers_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_errors, "TIMEOUT", 0.1)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    huggingface_hub.close_session()
    silent = socket.create_server(("127.0.0.1", 0))
    api = huggingface_hub.HfApi(endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}")
    with (
        silent,
        pytest.raises(UserError, match="push: .*no answer within 0.1 s; expected a Hub that answers"),
        hub_errors.reported_as("push"),
    ):
        api.whoami(token="hf_x")
    huggingface_hub.close_session()
