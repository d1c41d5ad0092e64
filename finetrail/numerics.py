"""Turns the recipe's numerics into the threads and kernels of this process, and says what computed a result."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from joblib import cpu_count
from threadpoolctl import threadpool_info

from finetrail.environment import PORTABLE, PORTABLE_THREADS
from finetrail.errors import UserError
from finetrail.patches.products import use_portable_products

# torch drops the kernels of a library with the object.
_kept: list[torch.library.Library] = []


def use(numerics: str, threads: int | None) -> None:
    """Compute with these numerics from here on; set_environment() must have run before torch was imported.

    Raises UserError where portable numerics cannot be had here.
    """
    if numerics == "fast":
        if threads is not None:
            torch.set_num_threads(threads)
        return
    if wrong := _not_portable():
        raise UserError(
            f"numerics: portable: {wrong}; expected one process of `python -m stages.NAME`, with the packages of "
            "requirements.lock, or numerics: fast"
        )
    torch.set_num_threads(PORTABLE_THREADS)
    # That kernel of attention calls MKL itself, where ours cannot replace its products.
    torch.backends.cuda.enable_flash_sdp(False)
    _kept.append(use_portable_products(threads or cpu_count()))


def use_tf32(numerics: str) -> None:
    """Multiply fp32 as TF32, with 10 bits of mantissa, where numerics are fast and a GPU can; not for training."""
    if numerics == "fast" and torch.cuda.is_available() and torch.cuda.is_tf32_supported():
        # The other call for it, set_float32_matmul_precision, is an older one: torch (2.13) refuses a mixture.
        torch.backends.cuda.matmul.fp32_precision = "tf32"


def _not_portable() -> str | None:
    """Return why this process cannot compute portably, or None: the libraries must have read the environment."""
    if not PORTABLE.items() <= os.environ.items() or torch.backends.cpu.get_cpu_capability() != "AVX2":
        return "the environment was not set before torch was imported"
    if not any(pool.get("architecture") == "Haswell" for pool in threadpool_info()):
        return "numpy has no OpenBLAS that takes its kernels for Haswell"
    if torch.accelerator.is_available():
        return "torch finds an accelerator that is not CUDA's, and so cannot be hidden"
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return "several processes sum in an order of their own"
    return None


def record(numerics: str) -> dict[str, Any]:
    """Return what computed a result, as far as its bytes may depend on it: device, instructions, threads, versions.

    With portable numerics the bytes do not depend on the CPU's name, nor on how many cores it has.
    """
    computed: dict[str, Any] = {"numerics": numerics, "device": "cpu"}
    if torch.accelerator.is_available():
        device = torch.accelerator.current_accelerator()
        computed["device"] = device.type if device else "cpu"
    if torch.cuda.is_available():
        computed |= {"device_name": torch.cuda.get_device_name(), "cuda": torch.version.cuda, "driver": _driver()}
        if torch.backends.cuda.matmul.fp32_precision == "tf32":
            computed["tf32"] = True
    if numerics == "fast":
        computed["cpu"] = _cpu_name()
    computed |= {"instructions": instructions(), "threads": torch.get_num_threads()}
    # Without the build, such as +cpu: a wheel of another index has the same kernels for a CPU.
    return computed | {name: version(name).split("+")[0] for name in ("torch", "transformers")}


def instructions() -> str:
    """Return the best CPU instructions in use: amx_bf16, avx512_bf16, or what torch's own kernels are compiled for."""
    cap = os.environ.get("ONEDNN_MAX_CPU_ISA", "DEFAULT").upper()
    amx = cap in ("DEFAULT", "ALL") or "AMX" in cap
    bf16 = amx or cap.endswith(("BF16", "FP16")) or cap.startswith("AVX10")
    # No public call tells what the CPU has (torch 2.13).
    if amx and torch.cpu._is_amx_tile_supported():
        return "amx_bf16"
    if bf16 and torch.cpu._is_avx512_bf16_supported():
        return "avx512_bf16"
    return torch.backends.cpu.get_cpu_capability().lower()


def multiplies_bf16() -> bool:
    """Tell whether this CPU multiplies bf16 natively; another emulates it, slower than fp32."""
    return instructions().endswith("_bf16")


def _cpu_name() -> str:
    """Return the CPU's name as Linux gives it; elsewhere as Python does."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _driver() -> str | None:
    """Return the version of NVIDIA's driver; None where it cannot be read."""
    file = Path("/proc/driver/nvidia/version")  # NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue ...
    words = file.read_text().split("Kernel Module")[1].split() if file.exists() else []
    return next((word for word in words if word[0].isdigit()), None)
