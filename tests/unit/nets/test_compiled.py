"""Machine code that is kept on disk is of the sources that are there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from hdgan.nets.kernels import compiled as module

OUTER = """
import sys
import inner
from hdgan.nets.kernels.compiled import compiled

@compiled
def outer(x):
    return 10 * inner.inner(x)

print(outer(1), sum(outer.stats.cache_hits.values()))
"""
INNER = """
from hdgan.nets.kernels.compiled import compiled

@compiled
def inner(x):
    return x + {}
"""


ALONE = """
import os
from hdgan.nets.kernels.compiled import compiled

def full(*arguments, **named):
    raise OSError(28, "No space left on device")

@compiled
def alone(x):
    return x + 1

os.replace = full  # the last step of what numba keeps
print(alone(1))
"""


def test_a_full_disk_keeps_nothing_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "alone.py").write_text(ALONE)
    environ = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "kept")}
    done = subprocess.run(
        [sys.executable, tmp_path / "alone.py"], env=environ, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, b"2"), done.stderr


def test_a_kernel_is_compiled_again_when_one_that_it_calls_has_changed(tmp_path: Path) -> None:
    kernels = tmp_path / "kernels"
    kernels.mkdir()
    (kernels / "compiled.py").write_bytes(Path(module.__file__).read_bytes())
    (kernels / "outer.py").write_text(OUTER.replace("hdgan.nets.kernels.", ""))

    def run(added: int) -> list[str]:
        (kernels / "inner.py").write_text(INNER.format(added).replace("hdgan.nets.kernels.", ""))
        environ = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, kernels / "outer.py"], env=environ, capture_output=True, check=True
        )
        return done.stdout.decode().split()

    assert run(1) == ["20", "0"]
    assert run(1) == ["20", "1"]  # kept
    assert run(2) == ["30", "0"]
    assert run(1)[0] == "20"
