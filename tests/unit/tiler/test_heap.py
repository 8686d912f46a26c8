"""Freed memory goes back to the system."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import pathlib
import numpy as np
from hdgan.tiler.heap import return_large_blocks

def held():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096

return_large_blocks()
before = held()
first = [np.ones(2 << 20, np.uint8) for _ in range(60)]
small = np.ones(1000, np.uint8)  # lies behind them, where a heap would end
del first
print(held() - before)
"""


def test_blocks_that_are_freed_go_back_to_the_system() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert int(ended.stdout) < 20 << 20
