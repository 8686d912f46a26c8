"""Labels that QuPath wrote: its own GeoJSON, through the script of an exported project."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import typer
from typer.testing import CliRunner

from hdgan.core.annotations import current
from hdgan.core.masks import decode_mask, encode_mask
from hdgan.desk.commands import register
from hdgan.desk.png_text import with_candidate_id
from support.desk_run import CLASSES, TinyRun, striped_mask

WRITTEN = Path(__file__).with_name("qupath-0.5.1.geojson")
"""By QuPath 0.5.1's writer for a picture of TinyRun: a ring, a shape of two parts, an ellipse and a
triangle between pixels; named, locked and measured."""


def test_what_qupath_writes_is_imported_by_its_id_and_to_the_pixel(tmp_path: Path) -> None:
    run = TinyRun.create(tmp_path)
    run.add_tiles()
    run.add_generator()
    candidates = run.add_candidates()
    app = typer.Typer()
    register(app)
    out = tmp_path / "out"
    assert (
        CliRunner().invoke(app, ["annotations", "export", str(run.file), str(out)]).exit_code == 0
    )
    document = json.loads(WRITTEN.read_text())
    identity = document["properties"]["hdgan-candidate"]
    (out / "labels" / f"train-{identity}.geojson").write_bytes(WRITTEN.read_bytes())
    for path in (out / "labels").glob("*.geojson"):
        other = path.stem.split("-")[1]
        if other != identity:
            data = with_candidate_id(encode_mask(striped_mask(), CLASSES), other)
            (out / f"{path.stem}.mask.png").write_bytes(data)
    result = CliRunner().invoke(app, ["annotations", "import", str(run.file), str(out)])
    assert result.exit_code == 0, result.output
    artifact = current(run.store, candidates.content_digest)
    assert artifact is not None
    mask = decode_mask(artifact.read(f"masks/{identity}.png"))
    expected = np.full((14, 32), 255)
    expected[2:14, 2:18] = 1
    expected[5:9, 6:11] = 255
    expected[2:6, 20:24] = 1
    expected[8:13, 26:29] = 1
    np.testing.assert_array_equal(mask[:14], expected)
    # The ellipse and the triangle: as large as QuPath measured them, to a pixel along their edge.
    ellipse, triangle = (
        feature["properties"]["measurements"]["area px^2"] for feature in document["features"][2:]
    )
    assert abs((mask[14:, 14:] == 2).sum() - ellipse) < 4
    assert abs((mask[14:, :14] == 2).sum() - triangle) < 4
    ys, xs = np.nonzero(mask[:, 14:] == 2)
    assert (ys.mean() + 0.5, xs.mean() + 14.5) == (23.0, 22.0)  # its centre, exactly
