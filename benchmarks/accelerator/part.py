"""What the process of a part is given, and how it keeps what it finds."""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

MOST_WORKERS = 6  # as many as there are tasks


@dataclass
class Part:
    """One part's run: its result, which is kept as it grows, so that what is measured before a crash stays."""

    name: str
    device: str
    tiny: bool
    output: Path
    deadline: float  # of time.time()
    rows: Callable[[dict[str, Any]], list[tuple[str, str]]]  # a result, also a part of one, in a few lines
    result: dict[str, Any] = field(default_factory=lambda: {"failures": []})

    def keep(self, **found: Any) -> None:
        """Take up what is found, and write all of it, with its rows as far as there are any."""
        self.result |= found
        with suppress(KeyError):
            self.result["rows"] = self.rows(self.result)
        beside = self.output / f".{self.name}.json"
        beside.write_text(json.dumps(self.result, indent=2) + "\n")
        os.replace(beside, result_file(self.output, self.name))

    def fail(self, what: str) -> None:
        """Note what is not as it should be, in one line."""
        self.result["failures"].append(what)
        self.keep()

    @property
    def seconds_left(self) -> float:
        """Return the time until the part is stopped."""
        return self.deadline - time.time()

    @property
    def workers(self) -> int:
        """Return how many processes may compute side by side where speed is not measured."""
        return max(1, min(MOST_WORKERS, (os.cpu_count() or 1) // 2))

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give a temporary folder."""
        with TemporaryDirectory(prefix=f"finetrail-{self.name}-", ignore_cleanup_errors=True) as folder:
            yield Path(folder).resolve()


def result_file(output: Path, name: str) -> Path:
    """Return where a part keeps its result."""
    return output / f"{name}.json"


def log_file(output: Path, name: str) -> Path:
    """Return where the output of a part's processes goes."""
    return output / f"{name}.log"
