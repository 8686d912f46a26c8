"""What holds for every test, and the runs of real stages that several folders' tests look at."""

from __future__ import annotations

import os

# The tensors of unit tests are tiny: threads would wait for each other longer than they work,
# for minutes on a busy machine. Before anything imports torch or numpy.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import shutil
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
def untouched_run(slide: Path, tmp_path_factory: pytest.TempPathFactory) -> SmallPipeline:
    """Every stage, once, undisturbed. Nothing is added to its store or taken away from it."""
    folder = tmp_path_factory.mktemp("untouched")
    (folder / "slides").mkdir()
    write_cut(slide, folder / "slides" / "cut.tiff")
    return run_everything(folder)


@pytest.fixture(scope="session")
def finished_run(
    untouched_run: SmallPipeline, tmp_path_factory: pytest.TempPathFactory
) -> SmallPipeline:
    """A copy of it. Tests may add to its store, never take anything away."""
    folder = tmp_path_factory.mktemp("run")
    shutil.copytree(untouched_run.folder, folder, dirs_exist_ok=True)
    return SmallPipeline(folder, untouched_run.typed)
