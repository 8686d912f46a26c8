"""How loops are compiled: without the interpreter lock, and kept on disk where that is possible."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """`function` compiled at its first call for the types it is called with.

    No fast-math: sums keep their order, so that results depend on nothing but the numbers. The
    machine code is kept beside the source or in the user's cache folder (`NUMBA_CACHE_DIR` names
    another); where neither may be written to, as in a read-only container or on a full disk, every
    process compiles.
    """
    try:
        kept: Any = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # numba found no folder for the cache
        return cast(F, numba.njit(nogil=True)(function))
    # numba takes kept code for current by time and size of the function's own file. What a kernel
    # calls is compiled into it, from other files here; numba has no public way to say so.
    file = kept._cache._cache_file
    file._source_stamp = (file._source_stamp, _sources())
    save = kept._cache.save_overload

    def save_if_possible(*arguments: Any) -> None:
        with contextlib.suppress(OSError):
            save(*arguments)

    kept._cache.save_overload = save_if_possible
    return cast(F, kept)


@functools.cache
def _sources() -> str:
    """Digest of all files of this folder."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
