"""With no network at all, every task goes through all stages, and what is exported answers; no host is tried."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# All stages of each task, and then: predict, the timings of the export, the folder alone, the service.
CHOSEN = "headline_has or exactly_the_predictions or is_measured or stands_alone or soon_ready"


@pytest.mark.slow  # six pipelines take a minute
def test_every_task_runs_in_a_namespace_without_a_network(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode:
        pytest.skip("this machine makes no network namespace")
    hosts = tmp_path / "hosts"
    hosts.touch()
    cut_off = {"PYTHONPATH": str(TESTS / "no_network"), "HOSTS_TRIED": str(hosts), "HF_HUB_OFFLINE": "0"}

    done = subprocess.run(
        ["unshare", "-rn", sys.executable, TESTS / "no_network/loopback.py",
         *(sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"),
         "tests/tasks/test_contract.py", "-k", CHOSEN],
        cwd=TESTS.parent, env=os.environ | cut_off, capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-4000:]
    assert hosts.read_text() == ""
