"""Changes what glibc and oneDNN keep of the memory that tensors free.

Library: glibc's malloc (mallopt), oneDNN and ideep of torch 2.13 (environment variables)
Reason: glibc returns large blocks to the system, which zeroes each page that it gives back: tens of thousands of page
    faults per update. oneDNN prepares products for a thousand shapes, which takes hundreds of MiB as lengths vary.
Upstream: none known
Guard: glibc alone; variables that the environment has already are left alone.
"""

import ctypes
import os
import platform

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
NEVER = -1  # mallopt(3); the largest int would be two GiB
# How many prepared products oneDNN, and torch's ideep above it, keep. Both are read at the first product.
PREPARED = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")


def keep_memory() -> None:
    """Make glibc keep what tensors free for the next ones."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, NEVER)


def keep_few_prepared() -> None:
    """Make oneDNN keep what it prepares for the shapes of a pass or two, unless the environment says otherwise.

    Preparing a shape again takes no time that could be measured.
    """
    for name in PREPARED:
        os.environ.setdefault(name, "64")
