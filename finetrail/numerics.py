"""Sets the threads and kernels of this process as the recipe's numerics ask, and records what computed a result."""

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

# torch removes a library's kernels when the object is deleted.
_kept: list[torch.library.Library] = []


def use(numerics: str, threads: int | None) -> None:
    """Use these numerics in this process; set_environment() must have run before torch was imported.

    Raises UserError if portable numerics are not possible here.
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
    # This attention kernel calls MKL directly, so that its products cannot be replaced.
    torch.backends.cuda.enable_flash_sdp(False)
    _kept.append(use_portable_products(threads or cpu_count()))


def use_tf32(numerics: str) -> None:
    """Multiply fp32 as TF32, with 10 bits of mantissa, if numerics are fast and the GPU can; not for training."""
    if numerics == "fast" and torch.cuda.is_available() and torch.cuda.is_tf32_supported():
        # torch (2.13) does not allow mixing this with the older set_float32_matmul_precision.
        torch.backends.cuda.matmul.fp32_precision = "tf32"


def _not_portable() -> str | None:
    """Return why this process cannot compute portably, or None. The libraries must have read the environment."""
    if not PORTABLE.items() <= os.environ.items() or torch.backends.cpu.get_cpu_capability() != "AVX2":
        return "the environment was not set before torch was imported"
    if not any(pool.get("architecture") == "Haswell" for pool in threadpool_info()):
        return "numpy has no OpenBLAS that uses its kernels for Haswell"
    if torch.accelerator.is_available():
        return "torch finds an accelerator other than CUDA, which cannot be hidden"
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return "several processes sum in another order"
    return None


def record(numerics: str) -> dict[str, Any]:
    """Return the properties on which a result's bytes may depend: device, instructions, threads, versions.

    With portable numerics they do not depend on the CPU's name or its number of cores.
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
    # Without the build, such as +cpu: wheels of other indices have the same kernels for a CPU.
    return computed | {name: version(name).split("+")[0] for name in ("torch", "transformers")}


def instructions() -> str:
    """Return the best CPU instructions in use: amx_bf16, avx512_bf16, or the target of torch's own kernels."""
    cap = os.environ.get("ONEDNN_MAX_CPU_ISA", "DEFAULT").upper()
    amx = cap in ("DEFAULT", "ALL") or "AMX" in cap
    bf16 = amx or cap.endswith(("BF16", "FP16")) or cap.startswith("AVX10")
    # Private names, which torch 2.11 to 2.13 have. They read what the CPU supports, and replace nothing.
    if amx and torch.cpu._is_amx_tile_supported():
        return "amx_bf16"
    if bf16 and torch.cpu._is_avx512_bf16_supported():
        return "avx512_bf16"
    return torch.backends.cpu.get_cpu_capability().lower()


def multiplies_bf16() -> bool:
    """Return True if this CPU multiplies bf16 natively; others emulate it, slower than fp32."""
    return instructions().endswith("_bf16")


def _cpu_name() -> str:
    """Return the CPU's name from Linux; on other systems from Python."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _driver() -> str | None:
    """Return the version of NVIDIA's driver; None if it cannot be read."""
    file = Path("/proc/driver/nvidia/version")  # NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue ...
    words = file.read_text().split("Kernel Module")[1].split() if file.exists() else []
    return next((word for word in words if word[0].isdigit()), None)
