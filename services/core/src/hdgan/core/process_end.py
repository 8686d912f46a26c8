"""Ends a process with the exit code it was meant to have."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import NoReturn


def end_process(code: int) -> NoReturn:
    """Flush what was printed and end now, without tearing down native libraries.

    The thread pools of Arrow (and CUDA's runtime) sometimes abort the process while their static
    objects are destroyed at a normal exit: a stage that had done its work would then end with 134
    instead of 0. By now everything of ours is closed.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
