"""How this process's memory goes back to the system."""

from __future__ import annotations

import ctypes
from functools import cache

_M_MMAP_THRESHOLD = -3  # mallopt(3)
LARGE = 1 << 20


@cache
def return_large_blocks() -> None:
    """From now on blocks above LARGE bytes go back to the system when they are freed.

    glibc raises that limit up to 32 MiB with each freed block and keeps smaller ones in a heap for
    each thread: a slide of large tiles then takes a third more memory. Elsewhere this does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE)
