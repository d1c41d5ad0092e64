"""Pushing an exported folder to the Hub, with the real client against a stand-in server."""

import subprocess
import sys

import pytest
from hub_server import StandInHub

PUSH = """
import sys
from pathlib import Path
from finetrail.exporting.hub import push
from finetrail.stage import run
run(lambda: print(push(Path(sys.argv[1]), sys.argv[2], private=sys.argv[3] == "private")))
"""
FILES = {
    "README.md": b"---\nlicense: mit\n---\n# A model\n",
    "config.json": b"{}",
    "model.safetensors": bytes(range(256)) * 40,
    "onnx/model.onnx": b"\x08\x07graph",
}


@pytest.fixture
def exported(tmp_path):
    for name, content in FILES.items():
        path = tmp_path / "exported" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "exported"


@pytest.fixture
def hub(tmp_path):
    with StandInHub(tmp_path / "hub") as server:
        yield server


def push(exported, environment, repo="me/model", visibility="private"):
    # HF_ENDPOINT is read when huggingface_hub is imported: a process of its own, as the export stage is.
    command = [sys.executable, "-W", "error", "-c", PUSH, str(exported), repo, visibility]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


@pytest.fixture
def environment(hub, tmp_path):
    return hub.env(tmp_path / "home") | {"HF_TOKEN": hub.token}


def test_push_creates_a_repository_that_holds_the_folder(hub, exported, environment):
    done = push(exported, environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{hub.url}/me/model/commit/{hub.commit('model', 'me/model')}"
    pushed = {name: path.read_bytes() for name, path in hub.files("model", "me/model").items()}
    assert pushed == FILES
    assert hub.private == {"me/model": True}


def test_push_again_replaces_what_changed(hub, exported, environment):
    first = push(exported, environment, visibility="public")
    (exported / "model.safetensors").write_bytes(b"other weights")
    second = push(exported, environment, visibility="public")
    assert second.returncode == 0, second.stderr
    assert first.stdout != second.stdout
    assert hub.files("model", "me/model")["model.safetensors"].read_bytes() == b"other weights"
    assert hub.private == {"me/model": False}


def test_push_without_a_token_says_how_to_log_in(hub, exported, environment):
    done = push(exported, environment | {"HF_TOKEN": "hf_wrong"})
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "push to me/model" in done.stderr and "hf auth login" in done.stderr
    assert not hub.folder("model", "me/model").exists()


def test_push_where_no_hub_answers_is_one_line(hub, exported, environment):
    done = push(exported, environment | {"HF_ENDPOINT": "http://127.0.0.1:9"})
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "push to me/model: http://127.0.0.1:9" in done.stderr and "refused" in done.stderr
