"""The stage through its real entry: request in, artifacts and exit code out."""

from __future__ import annotations

import io
import itertools
import os
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hdgan.core.artifact import open_artifact
from hdgan.core.store import open_store
from hdgan.core.tar_shards import read_shard
from hdgan.tiler.opening import open_slide
from hdgan.tiler.slide import Slide
from hdgan.tiler.unit import STAGE
from support.slides import tissue_picture, write_tiff
from support.tiling import BY_CASE, Tiling


@pytest.fixture
def tiling(tmp_path: Path) -> Tiling:
    tiling = Tiling(tmp_path)
    for number, name in enumerate(["a_1.tif", "a_2.tif", "b_1.tif", "c_1.tif"]):
        tiling.add(name, seed=number)
    return tiling


def test_tiles_index_and_folds_agree(tiling: Tiling, tmp_path: Path) -> None:
    assert tiling.run({"shardTiles": 7}) == 0, tiling.events
    rows = tiling.rows
    assert Counter(row["slide"] for row in rows).keys() == {
        "a_1.tif",
        "a_2.tif",
        "b_1.tif",
        "c_1.tif",
    }
    folds = {(row["case"], row["fold"]) for row in rows}
    assert folds == {("a", 0), ("b", 1), ("c", 2)}
    for row in rows:
        unit = open_artifact(tiling.store, STAGE, row["unit_key"])
        assert unit is not None
        shard = unit.fetch(row["shard"], tmp_path / f"{row['unit_key']}-{row['shard']}")
        members = dict(read_shard(shard))
        assert len(members) <= 7
        png = members[f"{row['tile']}.png"]
        number = ["a_1.tif", "a_2.tif", "b_1.tif", "c_1.tif"].index(row["slide"])
        x, y = row["x"], row["y"]
        expected = tissue_picture(420, 300, number)[y : y + 64, x : x + 64]
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), expected)
    assert tiling.document["holdout"] == "case"
    assert sum(tiling.document["tilesPerFold"]) == len(rows)
    assert {"contact.png", "folds.parquet", "index.parquet", "rejects.png", "slides.json"} == set(
        tiling.artifact.names()
    )
    assert Image.open(io.BytesIO(tiling.artifact.read("contact.png"))).width > 0


def test_a_new_slide_is_cut_alone_and_changes_nothing_else(tiling: Tiling) -> None:
    assert tiling.run() == 0
    before, earlier = tiling.rows, tiling.reference
    assert len(tiling.opened) == 4
    tiling.add("0_1.tif", seed=9)  # sorts first
    assert tiling.run(inputs={"folds": earlier}) == 0
    assert tiling.opened == ["0_1.tif"]
    assert [row for row in tiling.rows if row["slide"] != "0_1.tif"] == before


def test_fold_settings_and_case_names_do_not_cut_again(tiling: Tiling) -> None:
    assert tiling.run() == 0
    assert tiling.run({"folds": 2}, {"assumeSlideIsCase": True}) == 0
    assert tiling.opened == []
    assert tiling.run({"maxWhitespace": 0.2}) == 0
    assert len(tiling.opened) == 4


def test_same_slides_give_the_same_bytes(tiling: Tiling, tmp_path: Path) -> None:
    assert tiling.run() == 0
    first = tiling.artifact.content_digest
    tiling.store = open_store((tmp_path / "other").as_uri())
    tiling.slides = tiling.slides.rename(tmp_path / "moved")
    tiling.uri = str(tiling.slides)
    assert tiling.run() == 0
    assert len(tiling.opened) == 4
    assert tiling.artifact.content_digest == first


def test_a_killed_run_resumes_where_it_was(tiling: Tiling, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def dying(path: Path) -> Slide:
        slide = open_slide(path)
        if path.name == "b_1.tif":

            def read(level: int, x: int, y: int, width: int, height: int) -> Image.Image:
                raise Killed

            slide.read = read  # type: ignore[method-assign]
        return slide

    assert tiling.run(opener=dying) == 70
    assert not list((tmp_path / "scratch" / "tiler").iterdir())
    assert tiling.run() == 0
    assert tiling.opened == ["b_1.tif", "c_1.tif"]


def test_bad_slides_are_set_aside_up_to_the_limit(tiling: Tiling) -> None:
    tiling.add("noscale_1.tif", mpp=None)
    (tiling.slides / "empty_1.svs").write_bytes(b"")
    cut = tiling.add("cut_1.tif")
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    assert tiling.run(slides={**BY_CASE, "maxBadSlides": 2}) == 65
    for part in ["3 slides", "noscale_1.tif", "slides.assumeMpp", "empty_1.svs", "cut_1.tif"]:
        assert part in tiling.error
    assert tiling.run(slides={**BY_CASE, "maxBadSlides": 3}) == 0
    status = {slide["name"]: slide["status"] for slide in tiling.document["slides"]}
    assert Counter(status.values()) == {"tiled": 4, "setAside": 3}
    reasons = {s["name"]: s["reason"] for s in tiling.document["slides"] if "reason" in s}
    assert "0 bytes" in reasons["empty_1.svs"]
    assert {row["slide"] for row in tiling.rows}.isdisjoint(reasons)


def test_slides_that_differ_only_in_their_ending_do_not_mix(tiling: Tiling) -> None:
    write_tiff(tiling.slides / "a_1.tiff", tissue_picture(300, 300))
    assert tiling.run() == 65
    assert "a_1.tiff: is named like a_1.tif but for its ending" in tiling.error


def test_unknown_case_fails_and_says_what_to_set(tiling: Tiling) -> None:
    assert tiling.run(slides={}) == 64
    assert "a_1.tif" in tiling.error
    assert "slides.assumeSlideIsCase" in tiling.error
    tiling.add("nocase.tif")
    assert tiling.run() == 64
    assert "1 of the slides: nocase.tif" in tiling.error
    assert "does not match" in tiling.error


def test_spatial_is_for_one_case_and_cuts_bands(tmp_path: Path) -> None:
    tiling = Tiling(tmp_path)
    write_tiff(tiling.slides / "one.tif", tissue_picture(300, 900))
    alone = {"assumeSlideIsCase": True}
    assert tiling.run(slides=alone) == 64
    assert "set tiler.holdout: spatial" in tiling.error
    assert tiling.run({"holdout": "spatial", "stride": 20}, alone) == 0
    rows = tiling.rows
    sizes = Counter(row["fold"] for row in rows)
    assert max(sizes.values()) - min(sizes.values()) <= 2 * len({row["x"] for row in rows})
    limits = [
        (min(y), max(y)) for y in ([r["y"] for r in rows if r["fold"] == f] for f in range(3))
    ]
    assert all(a[1] < b[0] for a, b in itertools.pairwise(limits))
    assert tiling.document["holdout"] == "spatial"
    tiling.add("two.tif")
    assert tiling.run({"holdout": "spatial"}, alone) == 64
    assert "set tiler.holdout: case" in tiling.error


def test_nothing_but_glass_is_an_error_that_says_so(tmp_path: Path) -> None:
    tiling = Tiling(tmp_path)
    for name in ("a_1.tif", "b_1.tif"):
        write_tiff(tiling.slides / name, np.full((300, 300, 3), 243, np.uint8))
    assert tiling.run() == 65
    assert "no tile was accepted: 50 places of 2 slides were examined (noTissue: 50" in tiling.error


def test_asked_to_stop_it_stops_between_tiles_and_keeps_finished_slides(
    tiling: Tiling,
) -> None:
    def stopping(path: Path) -> Slide:
        if path.name == "b_1.tif":
            os.kill(os.getpid(), signal.SIGTERM)
        return open_slide(path)

    assert tiling.run(opener=stopping) == 75
    assert tiling.run() == 0
    assert tiling.opened == ["b_1.tif", "c_1.tif"]
