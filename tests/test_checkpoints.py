"""Checkpoints: only whole ones of this very run are found; when one is due."""

import shutil
from pathlib import Path

import pytest
from accelerate import Accelerator

from finetrail.training import checkpoints


def make(scratch: Path, update: int, sealed: bool = True, best: Path | None = None) -> Path:
    folder = checkpoints.folder(scratch, update)
    (folder / "inner").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights %d" % update)
    (folder / "inner/rng").write_bytes(b"state")
    if sealed:
        checkpoints.seal(folder, scratch, best)
    return folder


def test_the_newest_that_is_sealed_is_found(tmp_path: Path) -> None:
    assert checkpoints.newest(tmp_path) is None
    first = make(tmp_path, 9)
    assert checkpoints.newest(tmp_path) == first
    tenth = make(tmp_path, 10, best=first)
    assert checkpoints.newest(tmp_path) == tenth


def test_sealing_removes_the_older_ones_but_the_best(tmp_path: Path) -> None:
    best = make(tmp_path, 1)
    make(tmp_path, 2, best=best)
    last = make(tmp_path, 3, best=best)
    assert sorted(tmp_path.glob("checkpoint-*")) == [best, last]


@pytest.mark.parametrize("damage", ["unsealed", "cut", "changed", "missing", "seal", "empty seal", "no object"])
def test_a_damaged_one_is_skipped_with_a_warning(
    tmp_path: Path, damage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = make(tmp_path, 1)
    broken = make(tmp_path, 2, sealed=damage != "unsealed", best=whole)
    weights, seal = broken / "model.safetensors", broken / "complete.json"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif damage == "changed":
        weights.write_bytes(b"weights X")
    elif damage == "missing":
        (broken / "inner/rng").unlink()
    elif damage == "seal":
        seal.write_text("{")
    elif damage == "empty seal":
        seal.write_text("")
    elif damage == "no object":
        seal.write_text("[]")
    assert checkpoints.newest(tmp_path) == whole
    assert "train: checkpoint-2 is incomplete or damaged" in capfd.readouterr().err
    shutil.rmtree(whole)
    assert checkpoints.newest(tmp_path) is None


def test_one_whose_best_is_damaged_is_no_good_either(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    best = make(tmp_path, 1)
    last = make(tmp_path, 2, best=best)
    assert checkpoints.newest(tmp_path) == last
    (best / "model.safetensors").write_bytes(b"weights X")
    assert checkpoints.newest(tmp_path) is None
    assert "train: checkpoint-1 is incomplete or damaged" in capfd.readouterr().err


def test_a_key_is_that_of_settings_names_and_bytes(tmp_path: Path) -> None:
    folder, file = tmp_path / "data", tmp_path / "code.py"
    (folder / "__pycache__").mkdir(parents=True)
    (folder / "a").write_text("1")
    file.write_text("code")
    known = set()

    def changed() -> bool:
        key = checkpoints.key({"lr": 1}, [folder, file])
        assert key == checkpoints.key({"lr": 1}, [folder, file])
        new = key not in known
        known.add(key)
        return new

    assert changed()
    assert checkpoints.key({"lr": 2}, [folder, file]) not in known
    (folder / "__pycache__/a.pyc").write_text("compiled")
    assert not changed()
    (folder / "a").write_text("2")
    assert changed()
    (folder / "a").rename(folder / "b")
    assert changed()
    file.write_text("other code")
    assert changed()


def test_a_checkpoint_is_due_after_n_updates_at_a_curve_point() -> None:
    timer, accelerator = checkpoints.CheckpointTimer("5 updates", log_steps=3), Accelerator(cpu=True)
    found = []
    for update in range(1, 30):
        if timer.is_due(update, accelerator):
            found.append(update)
            timer.reset(update)
    assert found == [6, 12, 18, 24]
    assert not any(
        checkpoints.CheckpointTimer(None, log_steps=1).is_due(update, accelerator) for update in range(1, 99)
    )


def test_one_is_due_after_so_many_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    timer, accelerator = checkpoints.CheckpointTimer("2 minutes", log_steps=1), Accelerator(cpu=True)
    now[0] = 119.0
    assert not timer.is_due(1, accelerator)
    now[0] = 121.0
    assert timer.is_due(2, accelerator)
    timer.reset(2)
    assert not timer.is_due(3, accelerator)
