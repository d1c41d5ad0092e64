"""Ordered maps of a function over batches: in this process, in several processes, or on a Ray cluster."""

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
    """map(), or a map in other processes: the function must be pure, and picklable with its object."""

    def __call__(self, function: Callable[[Batch], Any], batches: Iterable[Batch], /) -> Iterator[Any]: ...


# Limit of a batch's CPU time: SECONDS, and one second per BYTES_A_SECOND. Tokenizers take a thirtieth of it. One whose
# patterns backtrack takes hours, inside Rust, where no exception reaches it.
SECONDS, BYTES_A_SECOND = 60.0, 50_000
UNTIMED = "untimed"
# A panic in Rust; no module exports this class. Other errors of tokenizers are plain instances of Exception.
PANIC = "PanicException"

# Batches in flight per process, which bounds memory.
WAITING = 2

# In a worker process, the function that is applied to a batch.
_work: Callable[[Batch], Any]


@contextmanager
def ordered_map(engine: str, num_proc: int) -> Iterator[OrderedMap]:
    """Yield the map of tokenize.engine and tokenize.num_proc; its processes end with the context.

    For Ray, batches must be picklable too. UserError if Ray or its cluster is missing, or a process was killed.
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
            # One pool for all tables, so that its processes load the function, with the tokenizer, once.
            pool = cache(lambda function: pools.enter_context(_pool(function, num_proc)))
            yield lambda function, batches: _in_order(pool(function), batches, WAITING * num_proc)


@dataclass(frozen=True)
class Limited:
    """A function of a batch that ends its process if a batch takes too long; UserError if the tokenizer fails.

    A method with the attribute `untimed` has no limit, because it does more than tokenize.
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
    """End this process after these seconds of CPU time, over all threads, unless `done` is set before."""
    start = time.process_time()
    while not done.wait(min(1.0, seconds)):
        if time.process_time() - start > seconds and not done.is_set():
            stage.end(
                f"{place}: more than {seconds:,.0f} seconds of CPU time; expected a tokenizer.json whose patterns "
                "do not backtrack on these texts, or shorter texts"
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
    # Not fork: a child would inherit the locks of the threads of tokenizers and Arrow, but not the threads.
    pool = ProcessPoolExecutor(
        num_proc, multiprocessing.get_context("spawn"), initializer=_start, initargs=(pickle.dumps(function),)
    )
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(pool: ProcessPoolExecutor, batches: Iterable[Batch], most: int) -> Iterator[Any]:
    """Yield the results in the order of the batches, with at most `most` batches in flight."""
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
            "tokenize: a worker process was killed, ran out of memory or, if a line above says so, took too long; "
            "expected it to finish: run the stage again, with a lower tokenize.num_proc if memory is short"
        ) from None


def _start(function: bytes) -> None:
    """Prepare a worker."""
    global _work
    # Each process has one core; otherwise each would start threads of the tokenizer for all cores.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and ends its workers
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
