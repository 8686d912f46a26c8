"""Folders that belong to the process which holds their lock."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from hdgan.core.claimed_folders import claimed

HOLD = """
import sys, time
from pathlib import Path
from hdgan.core.claimed_folders import claimed
with claimed(Path(sys.argv[1]), "cache") as folder:
    (folder / "half").write_text("done")
    print(folder.name, flush=True)
    time.sleep(600)
"""


def test_each_holder_has_a_folder_of_its_own_and_finds_what_was_left(tmp_path: Path) -> None:
    with claimed(tmp_path, "cache") as first, claimed(tmp_path, "cache") as second:
        assert [first.name, second.name] == ["cache-0", "cache-1"]
        (first / "half").write_text("done")
    with claimed(tmp_path, "cache") as again:
        assert (again / "half").read_text() == "done"


def test_a_removed_folder_is_made_anew(tmp_path: Path) -> None:
    with claimed(tmp_path, "cache") as folder:
        shutil.rmtree(folder)
    assert list(tmp_path.iterdir()) == []
    with claimed(tmp_path, "cache") as folder:
        assert list(folder.iterdir()) == []


def test_a_killed_process_leaves_its_folder_to_the_next(tmp_path: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    with other, other.stdout:
        assert other.stdout.readline() == "cache-0\n"
        with claimed(tmp_path, "cache") as mine:
            assert mine.name == "cache-1"
        os.kill(other.pid, signal.SIGKILL)
    with claimed(tmp_path, "cache") as left:
        assert left.name == "cache-0"
        assert (left / "half").read_text() == "done"
