"""Memory that tensors leave is kept for the next ones."""

from __future__ import annotations

import ctypes
import platform

#: Names of malloc.h in glibc.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -2, -3, -8

#: What is larger, in bytes, comes from the system and goes back at once; glibc takes no more.
LARGEST_KEPT = 32 * 2**20

#: Free memory that is kept at most, and how much is asked for at a time, in bytes.
KEPT, STEP = 2**30, 64 * 2**20


def keep_freed_memory() -> bool:
    """Lets glibc keep up to KEPT bytes that are free. Whether it does: other libraries do not.

    Feature maps come and go with every layer. By default much of their memory goes back to the
    system each time and is fetched again page by page, which takes as long as the arithmetic. To be
    called before the threads that work with them begin: what they have got by then stays as it is.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # One arena: those of further threads consist of small heaps, which go back one by one.
    wanted = {
        M_ARENA_MAX: 1,
        M_MMAP_THRESHOLD: LARGEST_KEPT,
        M_TRIM_THRESHOLD: KEPT,
        M_TOP_PAD: STEP,
    }
    return all([mallopt(name, value) == 1 for name, value in wanted.items()])
