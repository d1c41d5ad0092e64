"""Projects of shipped recipes: their files edited, and commands run there as a user with the environment activated."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from conftest import whole
from hub_server import StandInHub
from ruamel.yaml import YAML


def edit(path: Path, changes: dict[str, Any]) -> None:
    yaml = YAML()
    content = yaml.load(path if path.name == "params.yaml" else whole(path))
    for key, value in changes.items():
        *sections, last = key.split(".")
        section = content
        for name in sections:
            section = section[name]
        assert last in section, f"{path} has no {key}"
        section[last] = value
    yaml.dump(content, path)


def run(folder: Path, *command: str, hub: StandInHub | None = None) -> str:
    """Run a command as a user with the environment activated; return what it prints, stderr included."""
    home = folder.parent / "home"
    git = {f"GIT_{who}_{what}": "toy@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    settings = {f"DVC_{name}_DIR": str(home / name) for name in ("SITE_CACHE", "GLOBAL_CONFIG", "SYSTEM_CONFIG")}
    environment = git | settings | {"HOME": str(home), "GIT_CONFIG_GLOBAL": "/dev/null", "HF_HUB_OFFLINE": "1"}
    if hub is not None:
        environment |= hub.env(home / "hub") | {"HF_HUB_OFFLINE": "0"}
    environment |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": ""}
    done = subprocess.run(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
