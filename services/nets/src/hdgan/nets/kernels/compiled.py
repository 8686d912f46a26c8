"""How loops are compiled: without the interpreter lock, and kept on disk where that is possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """`function` compiled at its first call for the types it is called with.

    No fast-math: sums keep their order, so that results depend on nothing but the numbers. The
    machine code is kept beside the source or in the user's cache folder (`NUMBA_CACHE_DIR` names
    another); where neither may be written to, as in a read-only container, every process compiles.
    """
    try:
        return cast(F, numba.njit(nogil=True, cache=True)(function))
    except RuntimeError:  # numba found no folder for the cache
        return cast(F, numba.njit(nogil=True)(function))
