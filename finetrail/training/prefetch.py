"""Turns batches that are made when they are asked for into batches that are made before."""

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

# So many batches stand ready, or are being made, while training has one.
AHEAD = 3
END = object()

T = TypeVar("T")


def prefetched(batches: Iterable[T]) -> Generator[T]:
    """Yield the batches; a thread makes them ahead where a GPU computes, which would wait for them.

    Close it where not all are taken: that ends the thread. On a CPU making them would take cores from training.
    """
    if torch.cuda.is_available():
        yield from made_ahead(batches)
    else:
        yield from batches


def made_ahead(batches: Iterable[T]) -> Generator[T]:
    """Yield the batches in their order, at most AHEAD of them made before by one thread; what it raises is raised here.

    The thread is gone when the generator has ended or is closed.
    """
    source = iter(batches)
    # A new thread uses the first GPU, where to pin memory would take some for nothing.
    own = (torch.cuda.set_device, (torch.cuda.current_device(),)) if torch.cuda.is_available() else (None, ())
    with ThreadPoolExecutor(1, "batches", *own) as thread:
        waiting = deque(thread.submit(next, source, END) for _ in range(AHEAD))
        try:
            while (batch := waiting.popleft().result()) is not END:
                waiting.append(thread.submit(next, source, END))
                yield batch  # type: ignore[misc]
        finally:
            thread.shutdown(cancel_futures=True)
