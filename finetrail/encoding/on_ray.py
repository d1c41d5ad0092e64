"""An ordered map of a function over batches with Ray Data, on the cluster at RAY_ADDRESS."""

import logging
import os
import pickle
import socket
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data.block import BlockMetadata
from ray.exceptions import RayError, RayTaskError

import finetrail
from finetrail.encoding.engines import Batch, OrderedMap
from finetrail.errors import UserError

CONNECT_SECONDS = 5
RETRIES = 1  # of a batch whose worker or node died


@contextmanager
def ordered_map(num_proc: int) -> Iterator[OrderedMap]:
    """Yield a map with num_proc concurrent tasks, on the cluster at RAY_ADDRESS or, if unset, on a local one.

    Nodes need the packages of requirements.lock, and neither this project nor its data.
    """
    _connect(num_proc)
    try:
        # One copy for all tables: processes load it, and so the tokenizer, once.
        kept = cache(ray.put)
        yield lambda function, batches: _mapped(kept(function), batches, num_proc)
    finally:
        ray.shutdown()


def _connect(num_proc: int) -> None:
    address = os.environ.get("RAY_ADDRESS") or "local"
    if address not in ("auto", "local"):
        _check_that_it_answers(address)
    started_here: dict[str, Any] = {"num_cpus": num_proc, "include_dashboard": False} if address == "local" else {}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that starts here reports to nobody
    # A task has one CPU; the tokenizer would start threads for all of them.
    runtime = {
        "py_modules": [str(Path(*finetrail.__path__))],
        "env_vars": {"TOKENIZERS_PARALLELISM": "false"},
        "excludes": ["__pycache__"],
    }
    try:
        ray.init(address, runtime_env=runtime, log_to_driver=False, logging_level=logging.CRITICAL, **started_here)
    except (ConnectionError, RuntimeError, SystemExit) as error:  # ray 2.60 exits when it gives up waiting
        reason = (str(error).splitlines() or ["no answer"])[0]
        raise UserError(f"RAY_ADDRESS: {address}: {reason}; expected a running cluster, or none for one here") from None
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)


def _check_that_it_answers(address: str) -> None:
    """Raise UserError if nothing listens at HOST:PORT: Ray itself waits two minutes and prints more than one line."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise UserError(f"RAY_ADDRESS: {address!r}; expected HOST:PORT of the cluster's head, such as 10.0.0.1:6379")
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        raise UserError(
            f"RAY_ADDRESS: no Ray cluster answers at {address} ({error.strerror or error}); expected a running one "
            "(`ray start --head`), or no RAY_ADDRESS for one that is started here"
        ) from None


class Source(ray.data.Datasource):
    """Batches, one pickled row each, read sequentially by a process on this node, where the corpus is.

    They are opaque values, because Ray Data splits and joins tables, and the output depends on the borders of batches.
    """

    def __init__(self, batches: Iterable[Batch]) -> None:
        super().__init__()
        self.batches = batches

    @property
    def supports_distributed_reads(self) -> bool:
        return False

    def estimate_inmemory_data_size(self) -> None:
        """Return None: the size is unknown."""

    def get_read_tasks(self, *_: Any, **__: Any) -> list[ray.data.ReadTask]:
        """Return the one task that reads all."""
        batches = self.batches
        unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ray.data.ReadTask(lambda: map(_row, batches), unknown)]


def _mapped(function: Any, batches: Iterable[Batch], num_proc: int) -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Ray, about its own settings, and see max_retries
        rows = _rows(function, batches, num_proc)
    try:
        for row in rows.iter_rows():
            result = pickle.loads(row["pickled"])
            if isinstance(result, UserError):
                raise result
            yield result
    except RayTaskError:
        raise
    except RayError as error:
        raise UserError(
            f"tokenize: a process or node of the Ray cluster was lost ({type(error).__name__}): killed, out of memory, "
            "or too slow; expected it to finish: run the stage again, with a lower tokenize.num_proc if memory is "
            "short, or with engine: local for a more specific message"
        ) from None


def _rows(function: Any, batches: Iterable[Batch], num_proc: int) -> ray.data.Dataset:
    """Return the dataset of the pickled results, which is computed while it is read."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    context.target_max_block_size = 1  # a block, and so a task, for each batch; how many wait, the object store decides
    # No CPU for the reader, which waits for the others most of the time: a head node may have none to give.
    source = ray.data.read_datasource(Source(batches), override_num_blocks=1, num_cpus=0)
    return source.map_batches(
        _do,
        batch_size=1,
        batch_format="pyarrow",
        fn_kwargs={"function": [function]},  # in a list, or Ray would load it for each task
        compute=ray.data.TaskPoolStrategy(size=num_proc),
        # ray 2.60: without it, a batch whose worker dies is tried forever. Deprecated, with nothing in its place.
        ray_remote_args_fn=lambda: {"max_retries": RETRIES},
    )


def _row(value: Any) -> pa.Table:
    return pa.table({"pickled": pa.array([pickle.dumps(value)], pa.large_binary())})


def _do(row: pa.Table, function: list[Any]) -> pa.Table:
    try:
        return _row(_loaded(function[0])(pickle.loads(row["pickled"][0].as_py())))
    except UserError as error:  # as a result: raised, it would come back as the text of a traceback
        return _row(error)


@cache
def _loaded(function: ray.ObjectRef) -> Callable[[Batch], Any]:
    """Return the function of a reference, loaded once in each process."""
    return ray.get(function)
