"""Have the parts of memory-mapped maps read from disk that are going to be used, and no others.

Left alone, the kernel reads megabytes around every page that is touched. For rows of random places
that is a thousand times what is wanted.
"""

from __future__ import annotations

import functools
import mmap
from collections.abc import Sequence

import numpy as np

from hdgan.nets.pyramid import NativeMap, native_rows


def expect_random_reads(maps: Sequence[NativeMap]) -> None:
    """Only touched pages are read from now on. Maps in memory are left alone."""
    for one in maps:
        if (file := _mapping(one)) is not None:
            file.madvise(mmap.MADV_RANDOM)


def read_ahead(maps: Sequence[NativeMap], side: int, top: int, bottom: int) -> None:
    """Start to read what picture rows top .. bottom - 1 are sampled from, and return at once.

    Args:
        maps: native [h, h, C_m]; those in memory are left alone.
        side: of the picture, in pixels.
    """
    for one in maps:
        if (file := _mapping(one)) is not None:
            first, last = _native_rows(one.shape[0], side, top, bottom - top)
            row_bytes = one.strides[0]  # type: ignore[union-attr]
            # The mapping starts at the page that holds the array's first byte.
            offset: int = one.offset  # type: ignore[union-attr]
            start = offset % mmap.ALLOCATIONGRANULARITY + first * row_bytes
            page = start // mmap.PAGESIZE * mmap.PAGESIZE
            stop = min(start + (last - first) * row_bytes, len(file))
            file.madvise(mmap.MADV_WILLNEED, page, stop - page)


_native_rows = functools.lru_cache(maxsize=2**16)(native_rows)  # the same blocks come by again


def _mapping(native: NativeMap) -> mmap.mmap | None:
    """The mapping of an opened file; None for a map in memory, or where hints are unknown."""
    base: object = native.base if isinstance(native, np.memmap) else None
    return base if isinstance(base, mmap.mmap) and hasattr(base, "madvise") else None
