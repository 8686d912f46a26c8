"""The images under test: those of `make images`, named by the variables of `make test-images`."""

from __future__ import annotations

import os
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from images.containers import Engine, NoEngineError, find_engine

ROOT = Path(__file__).resolve().parents[2]
REGISTRY = "HDGAN_TEST_IMAGES"


@pytest.fixture(scope="session")
def rooms() -> dict[str, Any]:
    """The functions of images/rooms.py, which runs in images and belongs to no package."""
    return runpy.run_path(str(ROOT / "images" / "rooms.py"))


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    if not os.environ.get(REGISTRY):
        pytest.skip("no images: `make test-images` builds them and runs this, see docs/images.md")
    try:
        engine = find_engine(
            tmp_path_factory.mktemp("bundles"), os.environ.get("HDGAN_TEST_ENGINE", "")
        )
    except NoEngineError as error:
        pytest.fail(str(error))
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def image_of(rooms: dict[str, Any]) -> Callable[[str], str]:
    """The full name of a room's image."""

    def name(room: str) -> str:
        tag = os.environ.get("HDGAN_TEST_TAG") or rooms["version"](room)
        return f"{os.environ[REGISTRY]}/hdgan-{room}:{tag}"

    return name
