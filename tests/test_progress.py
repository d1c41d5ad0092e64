"""What long work shows: a bar on a terminal, a line a minute elsewhere, by a clock of the test's own."""

import io
import time
from contextlib import redirect_stderr
from pathlib import Path
from weakref import WeakSet

import pytest

from finetrail import progress
from finetrail.progress import Bar, line, working

ROOT = Path(__file__).parents[1]


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr("tqdm.std.time", found)
    monkeypatch.setattr(Bar, "_instances", WeakSet())  # bars that other tests left open would move these
    return found


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_there_is_a_line_a_minute(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in Bar(range(500), desc="train", unit="updates"):
        clock.now += 0.5
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "train: 120 of 500 updates, 2 a second, 03:10 left",
        "train: 240 of 500 updates, 2 a second, 02:10 left",
        "train: 360 of 500 updates, 2 a second, 01:10 left",
        "train: 480 of 500 updates, 2 a second, 00:10 left",
    ]


def test_work_of_less_than_a_minute_tells_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Bar(total=10) as bar:
        for _ in range(10):
            clock.now += 5.9
            bar.update()
            bar.clear()
    assert capsys.readouterr() == ("", "")


def test_fast_work_that_gets_slow_is_told_of_in_time(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Bar(total=100_000, unit="examples") as bar:
        for number in range(70_010):
            clock.now += 0.001 if number < 70_000 else 30
            bar.update()
    assert len(capsys.readouterr().err.splitlines()) == 1 + 5


def test_bytes_and_work_of_unknown_size_read_well(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Bar(total=3_000_000_000, initial=1_000_000_000, unit="B", unit_scale=True, desc="model") as bar:
        clock.now += 100
        bar.update(1_000_000_000)
    with Bar(desc="read", unit="examples") as bar:
        clock.now += 60
        bar.update(30)
    assert capsys.readouterr().err.splitlines() == [
        "model: 2.00G of 3.00GB, 10.0M a second, 01:40 left",
        "read: 30 examples, 0.5 a second",
    ]


def test_a_terminal_has_a_bar_that_goes_when_the_work_is_done(clock: Clock) -> None:
    with redirect_stderr(Terminal()) as terminal:
        for _ in Bar(range(4), desc="train", unit="updates"):
            clock.now += 1
    shown = terminal.getvalue()
    assert "train:  50%|" in shown and "2/4 [00:02<00:02,  1.00 updates/s]" in shown
    assert shown.split("\r")[-2].strip() == "" and "\n" not in shown


def test_only_the_first_process_shows_anything(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    for _ in Bar(range(5)):
        clock.now += 70
    assert capsys.readouterr() == ("", "")


def test_work_that_tells_no_share_shows_the_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SECONDS", 0.05)
    with pytest.raises(ZeroDivisionError), working("convert"):
        time.sleep(0.4)
        raise ZeroDivisionError
    lines = capsys.readouterr().err.splitlines()
    assert 1 < len(lines) < 9 and set(lines) == {"convert: 00:00 so far"}


def test_a_library_with_a_bar_draws_it_alone() -> None:
    with redirect_stderr(Terminal()) as terminal:
        with working("download", has_bar=True):
            assert terminal.getvalue() == ""
        with working("download"):
            assert "download: 00:00" in terminal.getvalue()


def test_a_line_needs_no_rate() -> None:
    known = {"prefix": "", "n": 0, "total": 5, "elapsed": 3661.0, "rate": None, "initial": 0, "unit": "x"}
    assert line(known) == "1:01:01 so far"


def test_no_other_module_draws_bars() -> None:
    """One drawn elsewhere would be silent in CI, or write its bar into a log."""
    files = [*ROOT.glob("stages/*.py"), *ROOT.glob("finetrail/**/*.py")]
    drawing = [file.name for file in files if "import tqdm" in file.read_text()]
    assert drawing == ["progress.py"]
