"""Slides shared out to parts and processes: whoever cuts them, the tiles are the same."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from pathlib import Path

import pytest

from hdgan.core.store import open_store
from support.s3_server import new_bucket, point_aws_at, running_s3
from support.tiling import Tiling

NAMES = ["a_1.tif", "b_1.tif", "c_1.tif", "d_1.tif"]


def make(folder: Path) -> Tiling:
    folder.mkdir()
    tiling = Tiling(folder)
    for number, name in enumerate(NAMES):
        tiling.add(name, seed=number)
    (tiling.slides / "e_1.svs").write_bytes(b"")
    for path in tiling.slides.iterdir():
        os.utime(path, ns=(0, 0))  # part of a slide's identity
    return tiling


SLIDES = {"casePattern": "^(?P<case>[^_]+)_", "maxBadSlides": 1}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Content digest of the tiling made in one go."""
    tiling = make(tmp_path_factory.mktemp("alone") / "t")
    assert tiling.run(slides=SLIDES) == 0, tiling.events
    return tiling.artifact.content_digest


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_parts_in_any_order_give_the_same_artifact(tmp_path: Path, alone: str, parts: int) -> None:
    tiling = make(tmp_path / "t")
    opened = []
    for part in reversed(range(parts)):
        assert tiling.run(slides=SLIDES, part=part, parts=parts, again=part < parts - 1) == 0
        opened += tiling.opened
    assert sorted(opened) == [*NAMES, "e_1.svs"]
    assert tiling.run(slides=SLIDES, parts=parts, commit=True, again=True) == 0
    assert tiling.opened == []
    assert tiling.artifact.content_digest == alone


def test_a_commit_without_all_parts_says_which(tmp_path: Path) -> None:
    tiling = make(tmp_path / "t")
    assert tiling.run(slides=SLIDES, part=0, parts=2) == 0
    assert tiling.run(slides=SLIDES, parts=2, commit=True, again=True) == 66
    assert "2 slides are not finished" in tiling.error
    assert "b_1.tif (part 1), d_1.tif (part 1)" in tiling.error


def test_a_slide_that_was_set_aside_and_repaired_counts(tmp_path: Path) -> None:
    tiling = make(tmp_path / "t")
    assert tiling.run(slides={**SLIDES, "maxBadSlides": 0}) == 65
    assert "e_1.svs: the file is empty" in tiling.error
    (tiling.slides / "e_1.svs").unlink()
    tiling.add("e_1.tif", seed=4)
    assert tiling.run(slides={**SLIDES, "maxBadSlides": 0}) == 0
    assert {row["slide"] for row in tiling.rows} == {*NAMES, "e_1.tif"}


def test_processes_give_the_same_artifact(tmp_path: Path, alone: str) -> None:
    tiling = make(tmp_path / "t")
    assert tiling.run(slides=SLIDES, threads=3) == 0, tiling.events
    assert tiling.artifact.content_digest == alone
    assert not list((tmp_path / "t" / "scratch" / "tiler").iterdir())


@pytest.mark.parametrize("threads", [1, 2])
def test_slides_in_a_bucket_are_fetched_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    tiling = make(tmp_path / "t")
    with running_s3() as endpoint:
        point_aws_at(endpoint, monkeypatch)
        tiling.uri = f"s3://{new_bucket(endpoint)}/slides"
        bucket = open_store(tiling.uri)
        for path in tiling.slides.iterdir():
            bucket.put_from(path.name, path)
        assert tiling.run(slides=SLIDES, threads=threads) == 0, tiling.events
    assert {row["slide"] for row in tiling.rows} == set(NAMES)
    assert not list((tmp_path / "t" / "scratch" / "tiler").iterdir())
    by_name = {slide["name"]: slide for slide in tiling.document["slides"]}
    assert by_name["a_1.tif"]["uri"] == f"{tiling.uri}/a_1.tif"
    assert "empty" in by_name["e_1.svs"]["reason"]


def test_processes_stop_when_asked_to_and_leave_nothing(tmp_path: Path) -> None:
    tiling = make(tmp_path / "t")
    for number in range(6):
        tiling.add(f"x{number}_1.tif", seed=number)
    timer = threading.Timer(4.0, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    code = tiling.run({"stride": 1}, slides=SLIDES, threads=2)
    timer.cancel()
    assert code == 75, tiling.events
    assert not list((tmp_path / "t" / "scratch" / "tiler").iterdir())
    assert multiprocessing.active_children() == []
