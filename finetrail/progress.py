"""Shows how far long work is: as a bar on a terminal, and as a line a minute elsewhere (CI, a queue's log)."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from finetrail import stage

SECONDS = 60  # between two lines where there is no terminal


class Bar(tqdm):
    """tqdm's bar, gone when the work is done; without a terminal a line a minute, of work that takes so long.

    Of several processes only the first shows anything.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self.is_drawn = sys.stderr.isatty()
        options = {"leave": False} | options | {"disable": not stage.is_first_process()}
        if options.get("unit", "B") != "B":  # 2.8 updates/s, but 2.8MB/s
            options["unit"] = f" {options['unit']}"
        if not self.is_drawn:
            # miniters: else tqdm would ask for the time the less often, the faster the work was so far.
            options |= {"delay": SECONDS, "mininterval": SECONDS, "maxinterval": SECONDS, "miniters": 1}
        super().__init__(*args, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        if self.is_drawn:
            return bool(super().display(msg, pos))
        if msg is None:  # and not "", which removes the bar
            stage.log(line(self.format_dict))
        return False

    def clear(self, *args: Any, **options: Any) -> None:
        if self.is_drawn:
            super().clear(*args, **options)


# tqdm's own lock is also one of processes, for which Python starts another process.
Bar.set_lock(threading.RLock())


@contextmanager
def working(what: str, has_bar: bool = False) -> Iterator[None]:
    """Show for how long something goes on that does not tell how much of it is done: a clock, or a line a minute.

    has_bar: on a terminal, the library that does the work draws bars of its own.
    """
    if has_bar and sys.stderr.isatty():
        yield
        return
    done = threading.Event()
    with Bar(desc=what, bar_format="{desc}: {elapsed}") as bar:

        def tick() -> None:
            while not done.wait(1 if bar.is_drawn else SECONDS):
                bar.refresh()

        clock = threading.Thread(target=tick, daemon=True)
        clock.start()
        try:
            yield
        finally:
            done.set()
            clock.join()


def line(known: dict[str, Any]) -> str:
    """Return what a bar would show, from its format_dict: how much is done, how fast, and the time that is left."""
    done, total, elapsed = known["n"], known["total"], known["elapsed"]
    start = f"{known['prefix']}: " if known["prefix"] else ""
    if not done:
        return f"{start}{tqdm.format_interval(elapsed)} so far"
    of_all = f" of {_amount(total, known)}" if total else ""
    rate = known["rate"] or (done - known["initial"]) / elapsed
    left = f", {tqdm.format_interval((total - done) / rate)} left" if total and rate else ""
    return f"{start}{_amount(done, known)}{of_all}{known['unit']}, {_amount(rate, known)} a second{left}"


def _amount(value: float, known: dict[str, Any]) -> str:
    """Return a number as people read it: of bytes 1.5M, of other things 1,500."""
    if known["unit_scale"]:
        return str(tqdm.format_sizeof(value, divisor=known["unit_divisor"]))
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"
