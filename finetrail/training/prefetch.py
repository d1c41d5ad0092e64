"""Makes batches ahead of their use, in a thread."""

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

# The number of batches that are ready or being made while training uses one.
AHEAD = 3
END = object()

T = TypeVar("T")


def prefetched(batches: Iterable[T]) -> Generator[T]:
    """Yield the batches. If a GPU computes, which would wait for them, a thread makes them ahead.

    Close the generator if not all batches are used: this ends the thread. On a CPU a thread would take cores from
    training.
    """
    if torch.cuda.is_available():
        yield from made_ahead(batches)
    else:
        yield from batches


def made_ahead(batches: Iterable[T]) -> Generator[T]:
    """Yield the batches in order. One thread makes at most AHEAD of them before their use; its errors are raised here.

    The thread ends with the generator, or when that is closed.
    """
    source = iter(batches)
    # A new thread uses the first GPU, where pinning memory would take memory for nothing.
    own = (torch.cuda.set_device, (torch.cuda.current_device(),)) if torch.cuda.is_available() else (None, ())
    with ThreadPoolExecutor(1, "batches", *own) as thread:
        waiting = deque(thread.submit(next, source, END) for _ in range(AHEAD))
        try:
            while (batch := waiting.popleft().result()) is not END:
                waiting.append(thread.submit(next, source, END))
                yield batch  # type: ignore[misc]
        finally:
            thread.shutdown(cancel_futures=True)
