"""Sets the environment variables that torch, numpy and their libraries read when they are imported."""

import os
import platform
from pathlib import Path

from finetrail.errors import UserError

# With `numerics: portable`, torch's own kernels always divide their work by this number of threads: where a sum is
# divided changes its last bits.
PORTABLE_THREADS = 2

# One kernel of each library for every x86-64 CPU with AVX2, in place of the best kernel for this CPU.
PORTABLE = {
    "ATEN_CPU_CAPABILITY": "avx2",  # torch's own kernels
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # oneDNN, which torch uses for GELU
    "MKL_CBWR": "COMPATIBLE",  # MKL's other code paths differ between Intel and AMD, whatever the instructions
    "OPENBLAS_CORETYPE": "Haswell",  # matrix products of numpy and scipy
    "OPENBLAS_NUM_THREADS": "1",  # finetrail/patches/products.py divides them itself
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",  # exp, log and sums of numpy
    "OMP_NUM_THREADS": str(PORTABLE_THREADS),
    "OMP_DYNAMIC": "false",
    # Waiting threads of torch would otherwise busy a core that the products need. It changes no result.
    "GOMP_SPINCOUNT": "1000",
    "CUDA_VISIBLE_DEVICES": "",
}
# These would overrule the ones above.
CONTRARY = ("OMP_THREAD_LIMIT", "NPY_ENABLE_CPU_FEATURES")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def check(numerics: str, recipe: Path) -> None:
    """Raise UserError if this machine cannot compute with the numerics of a recipe."""
    info = Path("/proc/cpuinfo")
    has_avx2 = platform.machine() in ("x86_64", "AMD64") and (not info.exists() or " avx2 " in info.read_text())
    if numerics == "portable" and not has_avx2:
        raise UserError(
            f"{recipe}: numerics: portable needs an x86-64 CPU with AVX2, which this {platform.machine()} is not; "
            f"expected fast: dvc exp run -S '{recipe}:numerics=fast'"
        )


def set_environment(numerics: str, threads: int | None) -> None:
    """Set the numerics and threads of a stage; call it before torch and numpy are imported.

    numerics: "fast" or "portable", as in a recipe. threads: as in params.yaml; None keeps the machine's.
    """
    if numerics == "portable":
        os.environ |= PORTABLE
        for name in CONTRARY:
            os.environ.pop(name, None)
    elif threads is not None:
        os.environ |= dict.fromkeys(THREADS, str(threads))
