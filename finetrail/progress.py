"""Shows the progress of long work: a bar on a terminal, one line per minute elsewhere (CI, logs of a queue)."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from finetrail import stage

SECONDS = 60  # between two lines without a terminal


class Bar(tqdm):
    """tqdm's bar, removed when the work is done; without a terminal, one line per minute.

    Only the first of several processes shows it.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self.is_drawn = sys.stderr.isatty()
        options = {"leave": False} | options | {"disable": not stage.is_first_process()}
        if options.get("unit", "B") != "B":  # 2.8 updates/s, but 2.8MB/s
            options["unit"] = f" {options['unit']}"
        if not self.is_drawn:
            # miniters: by default tqdm checks the time less often the faster the work was so far.
            options |= {"delay": SECONDS, "mininterval": SECONDS, "maxinterval": SECONDS, "miniters": 1}
        super().__init__(*args, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        if self.is_drawn:
            return bool(super().display(msg, pos))
        if msg is None:  # "" removes the bar
            stage.log(line(self.format_dict))
        return False

    def clear(self, *args: Any, **options: Any) -> None:
        if self.is_drawn:
            super().clear(*args, **options)


# tqdm's default lock is also a lock between processes, for which Python starts another process.
Bar.set_lock(threading.RLock())


@contextmanager
def working(what: str, has_bar: bool = False) -> Iterator[None]:
    """Show the elapsed time of work without a known length: a clock, or one line per minute.

    has_bar: the library that does the work draws its own bars on a terminal.
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
    """Return the text of a bar, from its format_dict: progress, rate, and remaining time."""
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
