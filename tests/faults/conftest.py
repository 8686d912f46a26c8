"""Fixtures of the fault tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults import undisturbed
from support.small_pipeline import SmallPipeline


@pytest.fixture(scope="session")
def base(untouched_run: SmallPipeline) -> Path:
    """The folder of the undisturbed run, ready for scenarios."""
    undisturbed.write_down(undisturbed.of_run(untouched_run))
    return untouched_run.folder
