"""Turns a function of one batch into a map over batches, in order: here, on more processes, or on a Ray cluster."""

import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from finetrail import stage
from finetrail.errors import UserError

Batch = tuple[np.ndarray, pa.Table]  # row numbers in data/corpus, examples
Features = tuple[pa.Table, dict[str, int]]  # and their counts, which add up


class OrderedMap(Protocol):
    """The builtin map, or what calls the function elsewhere: it must be pure, and pickle with its object."""

    def __call__(self, function: Callable[[Batch], Any], batches: Iterable[Batch], /) -> Iterator[Any]: ...


# The computing that a batch may take: so many seconds, and one more for so many bytes. A tokenizer does a thirtieth of
# that; one whose patterns go back and forth in a text takes hours, inside Rust, where no exception reaches it.
SECONDS, BYTES_A_SECOND = 60.0, 50_000
UNTIMED = "untimed"
PANIC = "PanicException"  # of Rust; no module has the class. Errors of tokenizers are of the class Exception itself

# How many batches a process has waiting for it, or for the reader of its results: no more are in memory.
WAITING = 2

# In a worker: what it does with a batch.
_work: Callable[[Batch], Any]


@contextmanager
def ordered_map(engine: str, num_proc: int) -> Iterator[OrderedMap]:
    """Give the map of tokenize.engine and tokenize.num_proc; what it started ends with the context.

    For Ray, batches must pickle too. UserError where Ray or its cluster is missing, or a process was killed.
    """
    with _ordered_map(engine, num_proc) as mapped:
        yield lambda function, batches: mapped(Limited(function), batches)


@contextmanager
def _ordered_map(engine: str, num_proc: int) -> Iterator[OrderedMap]:
    if engine == "ray":
        with _on_ray().ordered_map(num_proc) as mapped:
            yield mapped
    elif num_proc == 1:
        yield map
    else:
        with ExitStack() as pools:
            # One pool for all tables: its processes get the function, and so the tokenizer, once.
            pool = cache(lambda function: pools.enter_context(_pool(function, num_proc)))
            yield lambda function, batches: _in_order(pool(function), batches, WAITING * num_proc)


@dataclass(frozen=True)
class Limited:
    """A function of a batch that ends its process where a batch takes too long; UserError where a tokenizer fails.

    A method with the attribute `untimed` does more than a tokenizer's work, and has no limit.
    """

    function: Callable[[Batch], Any]

    def __call__(self, batch: Batch) -> Any:
        rows, examples = batch
        place = f"tokenize: examples {rows[0]:,} to {rows[-1]:,}" if len(rows) else "tokenize"
        most = SECONDS + examples.nbytes / BYTES_A_SECOND
        done = threading.Event()
        if not hasattr(self.function, UNTIMED):
            threading.Thread(target=_end_after, args=(most, done, place), daemon=True).start()
        try:
            return self.function(batch)
        except BaseException as error:
            if type(error) is not Exception and type(error).__name__ != PANIC:
                raise
            raise UserError(
                f"{place}: the tokenizer fails ({error}); expected a tokenizer.json whose patterns and tokens fit "
                "these texts"
            ) from None
        finally:
            done.set()


def _end_after(seconds: float, done: threading.Event, place: str) -> None:
    """End this process after so many seconds of computing, by all of its threads, unless it is done."""
    start = time.process_time()
    while not done.wait(min(1.0, seconds)):
        if time.process_time() - start > seconds and not done.is_set():
            stage.end(
                f"{place}: more than {seconds:,.0f} seconds of computing; expected a tokenizer.json whose patterns "
                "find their way through these texts, or shorter texts"
            )


def _on_ray() -> Any:
    try:
        from finetrail.encoding import on_ray
    except ModuleNotFoundError as error:
        raise UserError(
            f"tokenize.engine: ray, but {error.name} is not installed; expected `pip install 'ray[data]'`, or local"
        ) from None
    return on_ray


@contextmanager
def _pool(function: Callable[[Batch], Any], num_proc: int) -> Iterator[ProcessPoolExecutor]:
    # Not fork: the threads of tokenizers and Arrow would not be in the child, but their locks would.
    pool = ProcessPoolExecutor(
        num_proc, multiprocessing.get_context("spawn"), initializer=_start, initargs=(pickle.dumps(function),)
    )
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(pool: ProcessPoolExecutor, batches: Iterable[Batch], most: int) -> Iterator[Any]:
    """Yield the result of each batch, in order, with at most so many batches begun and not yet yielded."""
    begun: deque[Future[Any]] = deque()
    try:
        for batch in batches:
            if len(begun) == most:
                yield begun.popleft().result()
            begun.append(pool.submit(_do, batch))
        while begun:
            yield begun.popleft().result()
    except BrokenProcessPool:
        raise UserError(
            "tokenize: a process that encodes was killed, ran out of memory or, as a line above says then, took too "
            "long; expected it to live: run it again, with a lower tokenize.num_proc where memory is short"
        ) from None


def _start(function: bytes) -> None:
    """Prepare a worker."""
    global _work
    # Each process has one core; without this, each would start the tokenizer's threads for all of them.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends its workers
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    _work = pickle.loads(function)


def _end_with_the_parent() -> None:
    # Python 3.11: workers of a killed parent wait for their next task forever, since they hold its queue open.
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _do(batch: Batch) -> Any:
    return _work(batch)
