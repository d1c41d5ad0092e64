"""Batches made ahead: in order, a bounded number of them, errors where they are taken, and no thread is left over."""

import threading
from collections.abc import Iterator

import pytest
import torch

from finetrail.training.prefetch import AHEAD, made_ahead, prefetched


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("batches")]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert threads() == []


@pytest.mark.parametrize("count", [0, 1, AHEAD, AHEAD + 1, 50])
def test_batches_come_in_order_and_each_once(count: int) -> None:
    assert list(made_ahead(range(count))) == list(range(count))


def test_one_thread_makes_a_bounded_number_of_batches() -> None:
    made: list[int] = []
    makers = set()
    enough = threading.Event()

    def batches() -> Iterator[int]:
        for number in range(100):
            makers.add(threading.current_thread().name)
            made.append(number)
            if number == 1 + AHEAD:
                enough.set()
            yield number

    found = made_ahead(batches())
    assert [next(found), next(found)] == [0, 1]
    assert enough.wait(10)  # they are made although nobody asks for them
    assert len(made) == 2 + AHEAD
    assert threads() == list(makers) and len(makers) == 1
    found.close()
    assert len(made) == 2 + AHEAD


def test_an_error_is_raised_after_earlier_batches_unchanged() -> None:
    def batches() -> Iterator[int]:
        yield from range(2)
        raise KeyError("no such column")

    found, taken = made_ahead(batches()), []
    with pytest.raises(KeyError, match="no such column"):
        for batch in found:
            taken.append(batch)
    assert taken == [0, 1]


def test_an_error_of_who_takes_them_ends_the_thread() -> None:
    def take() -> None:
        for batch in made_ahead(range(100)):
            assert batch < 1, "enough"

    with pytest.raises(AssertionError, match="enough"):
        take()


def test_a_cpu_makes_its_batches_itself_and_a_gpu_gets_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = prefetched(range(3))
    assert next(found) == 0 and threads() == []
    found.close()
    used = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 5)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: used.append((threading.current_thread().name, device)))
    found = prefetched(range(3))
    assert next(found) == 0
    assert threads() == [name for name, _ in used] and [device for _, device in used] == [5]
    assert list(found) == [1, 2]
