"""The card, its driver and the versions; the bandwidth of a copy and the peak of a matrix product, both measured."""

import statistics
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from benchmarks.accelerator.part import Part
from finetrail import numerics

PACKAGES = ("accelerate", "datasets", "numpy", "peft", "pyarrow", "sentence-transformers", "transformers")
ROUNDS = 20
PRODUCT, PRODUCT_TINY = 8192, 256
COPIED, COPIED_TINY = 2**31, 2**22  # bytes: far more than a cache holds


def run(part: Part) -> None:
    record = numerics.record("fast")
    card = record.get("device_name", record["cpu"]) if part.device == "cuda" else record["cpu"]
    part.keep(card=card, record=record, torch=torch.__version__, packages=versions())
    if part.device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        part.keep(memory_gib=round(properties.total_memory / 2**30, 1), processors=properties.multi_processor_count)
    part.keep(peak_teraflops=round(peak(part.device, part.tiny) / 1e12, 2))
    part.keep(copy_gigabytes_per_second=round(copied(part.device, part.tiny) / 1e9, 1))


def rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (result["card"], f"driver {result['record'].get('driver')}, torch {result['torch']}"),
        ("bf16 product", f"{result['peak_teraflops']:,} TFLOP/s"),
        ("copy", f"{result['copy_gigabytes_per_second']:,} GB/s"),
    ]


def versions() -> dict[str, str]:
    """Return the versions of the packages that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def peak(device: str, tiny: bool) -> float:
    """Return the operations a second of one large bf16 product of random numbers; the median of several."""
    size = PRODUCT_TINY if tiny else PRODUCT
    one, other = (torch.randn(size, size, device=device).to(torch.bfloat16) for _ in range(2))
    return 2 * size**3 / seconds(lambda: one @ other, device)


def copied(device: str, tiny: bool) -> float:
    """Return the bytes a second, read and written, of a copy within the device's memory."""
    size = COPIED_TINY if tiny else COPIED
    one, other = (torch.empty(size, dtype=torch.uint8, device=device).random_() for _ in range(2))
    return 2 * size / seconds(lambda: other.copy_(one), device)


def seconds(work: Callable[[], Any], device: str) -> float:
    """Return the median time of some work, by the device's clock where it has one."""
    for _ in range(3):
        work()
    if device == "cpu":
        times = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            work()
            times.append(time.perf_counter() - started)
        return statistics.median(times)
    events = [torch.cuda.Event(enable_timing=True) for _ in range(ROUNDS + 1)]
    events[0].record()
    for event in events[1:]:
        work()
        event.record()
    torch.cuda.synchronize()
    return statistics.median(one.elapsed_time(other) for one, other in zip(events, events[1:], strict=False)) / 1000
