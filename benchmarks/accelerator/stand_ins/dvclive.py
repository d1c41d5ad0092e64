"""Stands in for DVCLive where it is not installed, for it depends on DVC: the curves that training writes, no more."""

from pathlib import Path
from typing import Any


class Live:
    """Writes plots/metrics/NAME.tsv with the columns step and NAME's last part, as DVCLive does."""

    def __init__(self, folder: str, **options: Any) -> None:
        self.folder, self.step = Path(folder), 0
        self.begun: set[str] = set()

    def log_metric(self, name: str, value: float) -> None:
        path = self.folder / "plots" / "metrics" / f"{name}.tsv"
        if name not in self.begun:
            self.begun.add(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"step\t{path.stem}\n")
        with path.open("a") as lines:
            lines.write(f"{self.step}\t{value}\n")

    def end(self) -> None:
        """Nothing is kept open."""
