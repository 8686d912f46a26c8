"""Prometheus' own tool, where it is installed (Debian: the package `prometheus`)."""

from __future__ import annotations

import shutil
import subprocess

import pytest


def promtool_or_skip() -> str:
    """Path of promtool; the test is skipped where there is none."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed (Debian: apt install prometheus)")
    return found


def check_metrics(text: str) -> None:
    """Fail if promtool finds anything to say of what an endpoint serves, where it is installed."""
    tool = shutil.which("promtool")
    if tool is None:
        return
    done = subprocess.run(
        [tool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
