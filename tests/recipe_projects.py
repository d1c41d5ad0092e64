"""Projects of shipped recipes: their files edited, and commands run there as a user with the environment activated."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import whole
from hub_server import StandInHub
from ruamel.yaml import YAML

from finetrail.stage import read_json
from stages import download_corpus, download_model


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


# One process for all that comes from the Hub: its libraries read the Hub's address when they are imported. It starts no
# other one for base models, as conftest.py has it.
DOWNLOAD = """
import os, sys
from finetrail.model.base import limits
from stages import download_corpus, download_model
limits.call = lambda function, *args, what: function(*args)
for place in sys.argv[1:]:
    folder, _, what = place.rpartition("=")
    os.chdir(folder)
    (download_corpus if what == "corpus" else download_model).main()
"""


def download_all(places: list[tuple[Path, str]], hub: StandInHub) -> None:
    """Run download@corpus or download@model in each of these projects, with a Hub."""
    run(places[0][0], "python", "-c", DOWNLOAD, *(f"{folder}={what}" for folder, what in places), hub=hub)


def download(folder: Path, *what: str, hub: StandInHub | None = None) -> Any:
    """Run download stages in a project; return the provenance that it records, or several."""
    if hub is None:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            for one in what:
                (download_corpus if one == "corpus" else download_model).main()
    else:
        download_all([(folder, one) for one in what], hub)
    found = [read_json(folder / f"data/{one}/provenance.json") for one in what]
    return found if len(found) > 1 else found[0]
