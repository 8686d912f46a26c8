"""A process is ended just before the operation that was planned, and only once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from faults.hook.sitecustomize import JOURNAL, PLAN
from faults.world import TESTS

WRITES = """
import os, sys
for name in ("one", "two", "run-info.json", "three", "four"):
    open(f"elsewhere-{name}", "w").close()
    open(f"store/{name}.part", "w").close()
    os.replace(f"store/{name}.part", f"store/{name}")
"""


def run(folder: Path, **changes: Any) -> tuple[int, list[str]]:
    """Exit code of a small program with a plan, and what it has written into its store."""
    (folder / "store").mkdir(exist_ok=True)
    (folder / "journal").mkdir(exist_ok=True)
    (folder / "hdgan").write_text(WRITES)
    plan = {"who": "run", "signal": "SIGKILL", "operation": 1, "after": None, "roots": ["store/"]}
    environ = os.environ | {
        "PYTHONPATH": str(TESTS / "faults" / "hook"),
        JOURNAL: str(folder / "journal"),
        PLAN: json.dumps(plan | changes),
    }
    ended = subprocess.run(
        [sys.executable, "hdgan", "run"], cwd=folder, env=environ, check=False, timeout=60
    )
    return ended.returncode, sorted(path.name for path in (folder / "store").iterdir())


@pytest.mark.parametrize(
    ("operation", "left"),
    [(1, []), (2, ["one.part"]), (3, ["one"]), (4, ["one", "two.part"])],
)
def test_it_is_killed_before_the_operation(operation: int, left: list[str], tmp_path: Path) -> None:
    assert run(tmp_path, operation=operation) == (-signal.SIGKILL, left)
    assert (tmp_path / "journal" / "fired").exists()


def test_operations_of_a_commit_are_counted_from_its_first_file(tmp_path: Path) -> None:
    code, left = run(tmp_path, operation=3, after="run-info.json")
    assert (code, left) == (-signal.SIGKILL, ["one", "run-info.json", "two"])


def test_only_one_process_is_struck(tmp_path: Path) -> None:
    assert run(tmp_path)[0] == -signal.SIGKILL
    assert run(tmp_path)[0] == 0


@pytest.mark.parametrize("changes", [{"who": "tiler"}, {"operation": 99}, {"after": "never"}])
def test_others_are_left_alone(changes: dict[str, Any], tmp_path: Path) -> None:
    assert run(tmp_path, **changes)[0] == 0
    assert not (tmp_path / "journal" / "fired").exists()
    (entry,) = (tmp_path / "journal").iterdir()
    assert entry.name.endswith(".run")


def test_it_is_killed_in_the_midst_of_a_write(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "journal").mkdir()
    (tmp_path / "hdgan").write_text("open('store/long', 'wb').write(bytes(100_000))")
    environ = os.environ | {
        "PYTHONPATH": str(TESTS / "faults" / "hook"),
        JOURNAL: str(tmp_path / "journal"),
        PLAN: json.dumps({"who": "run", "longest": 1000}),
    }
    ended = subprocess.run(
        [sys.executable, "hdgan", "run"], cwd=tmp_path, env=environ, check=False, timeout=60
    )
    assert ended.returncode == -signal.SIGXFSZ
    assert (tmp_path / "store" / "long").stat().st_size == 1000
