"""Calls a function on foreign files in a process of its own, which may take so much time and memory and no more."""

import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from finetrail.errors import UserError

# Of computing, and not by the clock, so that a busy machine refuses nothing; importing torch takes 5 of it.
SECONDS = 120
GIB = 4


def call(function: Callable[..., None], *args: Any, what: str) -> None:
    """Call a function of a module with what pickles; UserError of its own, or one that begins with `what`."""
    # Not fork: the threads of Arrow and of downloads would not be in the child, but their locks would.
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
        raise RuntimeError(f"{function.__name__} failed, as stands above")
    if outcome is None:
        raise UserError(f"{what}; expected less than {SECONDS} seconds of computing and {GIB} GiB of memory")


def _call(sender: Connection, seconds: int, gib: int, function: Callable[..., None], args: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, whose daemon this is
    # No device and one thread: what is looked at needs neither, and both take memory.
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_CPU, seconds)  # the kernel ends what takes longer, whatever it is in
    _lower(resource.RLIMIT_DATA, gib << 30)
    try:
        function(*args)
    except UserError as error:
        sender.send(error)
    except MemoryError:
        os._exit(os.EX_TEMPFAIL)  # there is too little to tell it in
    else:
        sender.send(True)


def _lower(what: int, limit: int) -> None:
    """Set a limit of this process, unless it has a lower one."""
    most = resource.getrlimit(what)[1]
    resource.setrlimit(what, (limit if most == resource.RLIM_INFINITY else min(limit, most), most))
