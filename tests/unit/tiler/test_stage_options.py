"""What the run file can ask of the tiler, seen in its artifacts."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageCms

from hdgan.core.artifact import open_artifact
from hdgan.core.tiles import iter_tiles, load_index
from hdgan.tiler.unit import STAGE
from support.slides import tissue_picture, write_tiff
from support.tiling import Tiling


@pytest.fixture
def tiling(tmp_path: Path) -> Tiling:
    tiling = Tiling(tmp_path)
    for number, name in enumerate(["a_1.tif", "b_1.tif"]):
        tiling.add(name, seed=number)
    return tiling


def test_the_table_says_case_stain_centre_and_scale(tiling: Tiling, tmp_path: Path) -> None:
    table = tmp_path / "slides.csv"
    table.write_text(
        "slide,case,stain,centre,diagnosis,mpp\na_1,P1,HE,Kyoto,IgA,0.5\nb_1,P2,PAS,Lyon,,0.25\n"
    )
    assert tiling.run(slides={"metadata": str(table)}) == 0, tiling.events
    found = {(r["slide"], r["case"], r["stain"], r["centre"], r["diagnosis"]) for r in tiling.rows}
    assert found == {
        ("a_1.tif", "P1", "HE", "Kyoto", "IgA"),
        ("b_1.tif", "P2", "PAS", "Lyon", None),
    }
    by_name = {slide["name"]: slide for slide in tiling.document["slides"]}
    assert by_name["b_1.tif"]["slideMpp"] == [0.25, 0.25]
    assert by_name["b_1.tif"]["mppFrom"] == "metadata"
    assert {row["width"] for row in tiling.rows if row["slide"] == "b_1.tif"} == {128}
    balance = tiling.document["balance"]
    assert [fold["tilesByStain"] for fold in balance][:2] == [
        {"HE": balance[0]["tiles"]},
        {"PAS": balance[1]["tiles"]},
    ]
    # Only the scale of b_1 is another one: a_1 is not cut again.
    table.write_text(table.read_text().replace("0.25", "0.5").replace("HE", "PAS"))
    assert tiling.run(slides={"metadata": str(table)}) == 0
    assert tiling.opened == ["b_1.tif"]


def test_every_place_is_counted_with_its_reason(tmp_path: Path) -> None:
    tiling = Tiling(tmp_path)
    for number, name in enumerate(["a_1.tif", "b_1.tif"]):
        tiling.add(name, seed=number, mpp=8.0)
    assert tiling.run({"mpp": 8.0, "maxWhitespace": 0.1}) == 0
    for slide in tiling.document["slides"]:
        unit = open_artifact(tiling.store, STAGE, slide["unitKey"])
        assert unit is not None
        rejected = pq.read_table(io.BytesIO(unit.read("rejected.parquet"))).to_pylist()
        tiles = slide["tiles"]
        assert Counter(row["reason"] for row in rejected) == tiles["rejected"]
        assert tiles["accepted"] + len(rejected) == tiles["examined"] == 7 * 5
        assert {"noTissue", "whitespace"} == set(tiles["rejected"])
        assert all(row["whitespace"] > 0.1 for row in rejected if row["reason"] == "whitespace")
        sheet = Image.open(io.BytesIO(unit.read("rejects.png")))
        assert np.asarray(sheet).std() > 5
    total: Counter[str] = Counter()
    for slide in tiling.document["slides"]:
        total.update(slide["tiles"]["rejected"])
    assert tiling.document["rejected"] == dict(total)


def test_outlines_choose_tiles(tiling: Tiling, tmp_path: Path) -> None:
    outlines = tmp_path / "outlines"
    outlines.mkdir()
    ring = [[200, 0], [264, 0], [264, 64], [200, 64], [200, 0]]
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"classification": {"name": "Glomerulus"}},
    }
    document = json.dumps({"type": "FeatureCollection", "features": [feature]})
    for name in ("a_1", "b_1"):
        (outlines / f"{name}.geojson").write_text(document)
    asked = {"compartments": ["Glomerulus"], "minCompartment": 0.5, "stride": 8}
    assert tiling.run(asked, outlines=outlines) == 0
    assert tiling.rows
    for row in tiling.rows:
        share = max(0, 64 - abs(row["x"] - 200)) * max(0, 64 - row["y"]) / 64**2
        assert row["compartment"] == pytest.approx(share, abs=1e-6)
        assert share >= 0.5
    (outlines / "b_1.geojson").unlink()
    assert tiling.run(asked, outlines=outlines) == 65
    assert "b_1.tif: has no outlines" in tiling.error
    assert tiling.opened == []


def test_jpeg_tiles_are_full_colour_and_are_read_back(tiling: Tiling, tmp_path: Path) -> None:
    assert tiling.run({"format": "jpeg", "jpegQuality": 100}) == 0
    index = load_index(tiling.artifact)
    tiles = dict(iter_tiles(tiling.store, index, range(index.num_rows), tmp_path))
    assert len(tiles) == index.num_rows
    row = index.slice(0, 1).to_pylist()[0]
    x, y = row["x"], row["y"]
    number = ["a_1.tif", "b_1.tif"].index(row["slide"])
    expected = tissue_picture(420, 300, number)[y : y + 64, x : x + 64].astype(int)
    assert np.abs(tiles[0] - expected).mean() < 1.5


def test_srgb_converts_by_the_embedded_profile(tmp_path: Path) -> None:
    tiling = Tiling(tmp_path)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    picture = tissue_picture(300, 200)
    write_tiff(tiling.slides / "a_1.tif", picture)
    write_tiff(tiling.slides / "b_1.tif", picture, profile=_swapped_profile())
    assert tiling.run({"colour": "srgb"}) == 0, tiling.events
    by_name = {slide["name"]: slide for slide in tiling.document["slides"]}
    assert by_name["a_1.tif"]["colour"] == "raw (no profile in the slide)"
    assert by_name["b_1.tif"]["colour"] == "srgb"
    index = load_index(tiling.artifact)
    tiles = dict(iter_tiles(tiling.store, index, range(index.num_rows), tmp_path))
    rows = index.to_pylist()
    for number, pixels in tiles.items():
        x, y = rows[number]["x"], rows[number]["y"]
        own = picture[y : y + 64, x : x + 64].astype(int)
        difference = np.abs(pixels.astype(int) - own).mean()
        assert (difference == 0) == (rows[number]["slide"] == "a_1.tif")
    write_tiff(tiling.slides / "c_1.tif", picture, profile=profile)
    assert tiling.run({"colour": "srgb"}) == 65
    assert "c_1.tif: has a colour profile that cannot be used" in tiling.error


def _swapped_profile() -> bytes:
    """An RGB profile that is not sRGB: its header's white and primaries are the library's, but its
    curves are those of another gamma."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    place = profile.find(b"para")
    assert place > 0
    profile[place + 12 : place + 16] = (int(1.8 * 65536)).to_bytes(4, "big")
    return bytes(profile)
