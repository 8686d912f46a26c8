"""What `--version` of a service says: it needs no request and works as in a container."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("service", "stages"),
    [("tiler", ["tiler: stage version "]), ("synthesizer", ["candidates: ", "dataset: "])],
)
def test_a_service_tells_its_version_and_those_of_its_stages(
    service: str, stages: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"hdgan.{service}", "--version"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    version = importlib.metadata.version(f"hdgan-{service}")
    assert done.stdout.startswith(f"hdgan-{service} {version} (")
    assert all(one in done.stdout for one in stages)


def test_the_controller_tells_its_version_without_settings() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hdgan.controller", "--version"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    version = importlib.metadata.version("hdgan-controller")
    assert (done.returncode, done.stdout) == (0, f"hdgan-controller {version}\n")
