"""Functions of a batch for tests/tasks/test_encoding_engines.py: apart, since other processes import them."""

import os
import signal
import time

from finetrail.encoding.engines import Batch
from finetrail.errors import UserError


def row(batch: Batch) -> int:
    return int(batch[0][0])


def slower_first(batch: Batch) -> tuple[int, int]:
    """Return the row and the process; earlier rows take longer."""
    time.sleep(0.02 * (10 - row(batch)))
    return row(batch), os.getpid()


def process(batch: Batch) -> int:
    time.sleep(0.5)
    return os.getpid()


def node(batch: Batch) -> str:
    import ray

    time.sleep(0.2)
    return str(ray.get_runtime_context().get_node_id())


def refuse(batch: Batch) -> int:
    if row(batch) == 3:
        raise UserError("row 3: no good; expected good")
    return row(batch)


def fail(batch: Batch) -> int:
    raise ZeroDivisionError("a bug")


def die(batch: Batch) -> int:
    if row(batch) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return row(batch)
