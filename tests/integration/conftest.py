"""Fixtures of the tests that run real stages: the slide, its cut, and one run of everything."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.demo_slide import NoSlideHereError, demo_slide, write_cut
from support.small_pipeline import SmallPipeline, run_everything


@pytest.fixture(scope="session")
def slide(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's real slide; tests that need it are skipped where it cannot be had."""
    cache = pytestconfig.cache
    folder = tmp_path_factory.mktemp("slide") if cache is None else cache.mkdir("hdgan-slide")
    try:
        return demo_slide(folder)
    except NoSlideHereError as error:
        pytest.skip(f"the real slide is not here and cannot be downloaded: {error}")


@pytest.fixture(scope="session")
def finished_run(slide: Path, tmp_path_factory: pytest.TempPathFactory) -> SmallPipeline:
    """Every stage, once, undisturbed. Tests may add to its store, never take anything away."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "slides").mkdir()
    write_cut(slide, folder / "slides" / "cut.tiff")
    return run_everything(folder)
