"""Watches a training: when it has been measured long enough, how fast it was, and how long the device was idle."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

WARM_UP_SECONDS = 2.0
LEAST_WARM_UP = 3
WINDOW_SECONDS, MOST_IN_WINDOW = 0.25, 16
LEAST_WINDOWS = 3
PROFILED = 10


class Length(NamedTuple):
    """How long is measured."""

    warm_up: int  # updates, unless they take more than WARM_UP_SECONDS
    seconds: float
    most_updates: int


LENGTH, LENGTH_TINY = Length(20, 1.5, 300), Length(LEAST_WARM_UP, 0.1, 8)


class Watch:
    """Times windows of updates; it waits for the device at their ends only, and in the warm-up after each update."""

    def __init__(self, device: str, length: Length, profiles: bool) -> None:
        self.device, self.length = device, length
        self.profiles = profiles and device == "cuda"
        self.started = time.perf_counter()
        self.first_update: float | None = None
        self.updates = 0
        self.ends: list[tuple[int, float]] = []  # of windows: the update, the time; the first is the warm-up's
        self.window = 1
        self.profile: Any = None
        self.busy: float | None = None  # the device's seconds an update, while it is profiled
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def updated(self) -> bool:
        """Count an update; return True if there have been enough."""
        self.updates += 1
        if self.profile is not None:
            return self._profiled()
        if not self.ends:
            self._warm_up()
        elif self.updates == self.ends[-1][0] + self.window:
            self.ends.append((self.updates, self._now()))
            if self._long_enough():
                return not self._begin_profile()
        return self.updates >= self.length.most_updates

    def _now(self) -> float:
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def _warm_up(self) -> None:
        now = self._now()
        if self.first_update is None:
            self.first_update = self.before = now
        warm = self.updates >= self.length.warm_up or now - self.first_update > WARM_UP_SECONDS
        if warm and self.updates >= LEAST_WARM_UP:
            an_update = now - self.before
            left = self.length.most_updates - self.updates
            self.window = max(1, min(MOST_IN_WINDOW, left // LEAST_WINDOWS, round(WINDOW_SECONDS / an_update)))
            self.ends.append((self.updates, now))
        self.before = now

    def _long_enough(self) -> bool:
        took = self.ends[-1][1] - self.ends[0][1]
        return took >= self.length.seconds and len(self.ends) > LEAST_WINDOWS

    def _begin_profile(self) -> bool:
        if not self.profiles or self.updates + PROFILED > self.length.most_updates:
            return False
        self.profile = profile(activities=[ProfilerActivity.CUDA])
        self.profile.start()
        return True

    def _profiled(self) -> bool:
        if self.updates < self.ends[-1][0] + PROFILED:
            return False
        self._now()
        self.profile.stop()
        spans: list[tuple[float, float]] = [
            (event.time_range.start, event.time_range.end)
            for event in self.profile.events()
            if event.device_type == DeviceType.CUDA and not getattr(event, "is_user_annotation", False)
        ]
        self.busy = union(spans) / 1e6 / PROFILED
        return True

    def figures(self, tokens: Callable[[int, int], dict[str, float]]) -> dict[str, Any]:
        """Return the speed; tokens(first, end) says what passes in the updates from first to before end, from 0.

        The median window's, for kernels and graphs are still made in some.
        """
        assert self.first_update is not None
        rates: dict[str, list[float]] = {}
        spans = list(zip(self.ends, self.ends[1:], strict=False))
        for (before, start), (update, end) in spans:
            for name, value in tokens(before, update).items():
                rates.setdefault(name, []).append(value / (end - start))
        whole = self.ends[-1][1] - self.ends[0][1]
        an_update = whole / (self.ends[-1][0] - self.ends[0][0])
        found = {
            "seconds_to_first_update": round(self.first_update - self.started, 2),
            "updates": self.ends[-1][0] - self.ends[0][0],
            "milliseconds_per_update": round(1000 * an_update, 2),
            "windows": [round(rate) for rate in rates["useful_tokens"]],
            "useful_tokens_per_second": round(median(rates["useful_tokens"])),
            "useful_teraflops": round(median(rates["operations"]) / 1e12, 4),
        }
        if self.device == "cuda":
            found["peak_memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        if self.busy is not None:
            # Measured in an update that is not profiled, because the profiler slows the host but not the device.
            found["device_busy_milliseconds"] = round(1000 * self.busy, 2)
            found["idle_share"] = round(max(0.0, 1 - self.busy / an_update), 3)
        return found


def union(spans: list[tuple[float, float]]) -> float:
    """Return how long at least one of the spans (start, end) lasts."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
