"""`dvc repro`, killed at random moments and run again, ends with the bytes of a run that nobody disturbed."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from test_pipeline import run

from benchmarks.kills import results, survive, undisturbed


@pytest.mark.slow  # two pipelines and three kills
def test_a_pipeline_killed_three_times_ends_with_the_same_bytes(
    make_project: Callable[[Path], Path], tmp_path: Path
) -> None:
    projects = []
    for name in ("undisturbed", "killed"):
        project = make_project(tmp_path / name)
        recipe = project / "recipes/token_classification/toy.yaml"
        settings = YAML().load(recipe)
        settings["train"].update(checkpoint_every="1 updates", epochs=20.0)
        YAML().dump(settings, recipe)
        run(project, "git", "init", "--quiet", "--initial-branch=main")
        run(project, "git", "add", "--all")
        run(project, "git", "commit", "--quiet", "--message=before")
        projects.append(project)
    reference, killed = projects
    seconds = undisturbed(reference, tmp_path / "undisturbed.log")
    survive(killed, seconds, random.Random(1), ("tokenize", "train", "evaluate"))
    assert results(killed) == results(reference)
