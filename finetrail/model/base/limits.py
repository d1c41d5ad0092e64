"""Calls a function on foreign files in a process of its own, with limits of time and memory."""

import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from finetrail.errors import UserError

# CPU time and not elapsed time, so that a busy machine refuses nothing; importing torch takes 5 of them.
SECONDS = 120
GIB = 4


def call(function: Callable[..., None], *args: Any, what: str) -> None:
    """Call a module's function with arguments that pickle.

    UserError if the function raises one, or, beginning with `what`, if it exceeds the limits.
    """
    # Not fork: a child would inherit the locks of Arrow's and the downloads' threads, without the threads.
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(sender, SECONDS, GIB, function, args), daemon=True)
    process.start()
    sender.close()
    try:
        outcome = receiver.recv()
    except EOFError:
        outcome = None
    process.join()
    if isinstance(outcome, UserError):
        raise outcome
    if outcome is None and process.exitcode == 1:
        raise RuntimeError(f"{function.__name__} failed, see above")
    if outcome is None:
        raise UserError(f"{what}; expected less than {SECONDS} seconds of computing and {GIB} GiB of memory")


def _call(sender: Connection, seconds: int, gib: int, function: Callable[..., None], args: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the parent, which ends its daemons
    # No device and one thread: neither is needed, and both take memory.
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_CPU, seconds)  # the kernel ends the process when it takes longer
    _lower(resource.RLIMIT_DATA, gib << 30)
    try:
        function(*args)
    except UserError as error:
        sender.send(error)
    except MemoryError:
        os._exit(os.EX_TEMPFAIL)  # too little memory to report it
    else:
        sender.send(True)


def _lower(what: int, limit: int) -> None:
    """Set a limit of this process, unless it has a lower one."""
    most = resource.getrlimit(what)[1]
    resource.setrlimit(what, (limit if most == resource.RLIM_INFINITY else min(limit, most), most))
