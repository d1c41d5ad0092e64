"""Computes torch's float32 matrix products on a CPU by numpy. For equal bytes (`numerics: portable`), not for speed.

Library: torch 2.13, the CPU kernels of mm, addmm, bmm, baddbmm and sqrt
Reason: torch calls MKL, which chooses its kernels by the CPU's vendor too, and sums in another order with another
    number of threads. numpy's OpenBLAS can be told which kernels to use (finetrail/environment.py). MKL also computes
    square roots (in AdamW that is not fused), which it does not round in the same way on every CPU.
Upstream: none known
Guard: installed for `numerics: portable` alone, after numerics.py has checked the environment and the libraries.

1. A product is cut into blocks of rows, a batch of products into groups. The cuts depend on shapes alone.
2. OpenBLAS computes each block with one thread.
3. Worker threads share the blocks, as many as there are cores. This changes no sum.
"""

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

ROWS = 64  # of a block; smaller blocks pay for their calls, larger ones leave workers without one
FLOPS = 2**21  # at least so much work for each thread: waking one takes as long

# A function of (first, last), to be called for parts of range(blocks) in any number of threads.
Share = Callable[[int, int, Callable[[int, int], None]], None]


def use_portable_products(workers: int) -> torch.library.Library:
    """Compute mm, addmm, bmm, baddbmm and sqrt on the CPU, and gradients that consist of them, by numpy.

    torch has its own kernels back as soon as the returned library is deleted.
    """
    share = _sharing(workers)

    def mm(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return _in_float32(lambda one, other: _product(one, other, share), a, b)

    def bmm(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return _in_float32(lambda one, other: _products(one, other, share), a, b)

    def addmm(
        bias: torch.Tensor, a: torch.Tensor, b: torch.Tensor, *, beta: float = 1, alpha: float = 1
    ) -> torch.Tensor:
        return _plus(mm(a, b), bias, alpha, beta)

    def baddbmm(
        bias: torch.Tensor, a: torch.Tensor, b: torch.Tensor, *, beta: float = 1, alpha: float = 1
    ) -> torch.Tensor:
        return _plus(bmm(a, b), bias, alpha, beta)

    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that it replaces kernels, which is the purpose
        for kernel in (mm, bmm, addmm, baddbmm, sqrt):
            library.impl(kernel.__name__, kernel, "CPU")
    return library


def _sharing(workers: int) -> Share:
    """Return share(blocks, flops, compute): compute(first, last) for all blocks, by as many threads as pays."""
    pool = ThreadPoolExecutor(max(workers - 1, 1))

    def share(blocks: int, flops: int, compute: Callable[[int, int], None]) -> None:
        parts = max(1, min(workers, blocks, flops // FLOPS))
        bounds = [blocks * part // parts for part in range(parts + 1)]
        others = [pool.submit(compute, *ends) for ends in zip(bounds[1:-1], bounds[2:], strict=True)]
        compute(bounds[0], bounds[1])
        for other in others:
            other.result()

    return share


def _product(a: np.ndarray, b: np.ndarray, share: Share) -> np.ndarray:
    """Multiply float32 [m, k] by [k, n]."""
    product = np.empty((len(a), b.shape[1]), dtype=np.float32)

    def compute(first: int, last: int) -> None:
        for start in range(first * ROWS, min(last * ROWS, len(a)), ROWS):
            np.matmul(a[start : start + ROWS], b, out=product[start : start + ROWS])

    share(-(-len(a) // ROWS), 2 * product.size * len(b), compute)
    return product


def _products(a: np.ndarray, b: np.ndarray, share: Share) -> np.ndarray:
    """Multiply float32 [batch, m, k] by [batch, k, n]; each product of the batch is one block."""
    products = np.empty((len(a), a.shape[1], b.shape[2]), dtype=np.float32)

    def compute(first: int, last: int) -> None:
        np.matmul(a[first:last], b[first:last], out=products[first:last])

    share(len(a), 2 * products.size * a.shape[2], compute)
    return products


def _in_float32(
    product: Callable[[np.ndarray, np.ndarray], np.ndarray], a: torch.Tensor, b: torch.Tensor
) -> torch.Tensor:
    """Multiply floats of 16 and 32 bits by `product`, other types of numbers by numpy in their own type."""
    if a.dtype != b.dtype:
        raise RuntimeError(f"expected two matrices of the same dtype, got {a.dtype} and {b.dtype}")
    if a.dtype in (torch.float32, torch.bfloat16, torch.float16):
        return torch.from_numpy(product(a.detach().float().numpy(), b.detach().float().numpy())).to(a.dtype)
    return torch.from_numpy(np.matmul(a.detach().numpy(), b.detach().numpy()))


def sqrt(a: torch.Tensor) -> torch.Tensor:
    """Return correctly rounded square roots, of whole numbers as float32; of negative ones nan."""
    exact = a.detach() if a.dtype == torch.float64 else a.detach().float()
    with np.errstate(invalid="ignore"):
        roots = torch.from_numpy(np.asarray(np.sqrt(exact.numpy())))
    return roots.to(a.dtype) if a.is_floating_point() else roots


def _plus(product: torch.Tensor, bias: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    """Return beta * bias + alpha * product; a beta of 0 ignores what bias holds, as torch does."""
    if alpha != 1:
        product *= alpha
    if beta != 0:
        product += bias if beta == 1 else beta * bias
    return product
