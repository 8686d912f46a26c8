"""Candidates out and annotations in, through the commands a person types."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from hdgan.core.annotations import current as current_version
from hdgan.core.artifact import Artifact
from hdgan.core.errors import HdganError, RequestError
from hdgan.core.masks import decode_mask, encode_mask
from hdgan.desk.commands import register
from hdgan.desk.png_text import with_candidate_id
from support.desk_run import CLASSES, SIDE, TinyRun, png, striped_mask


def hdgan(*arguments: str | Path) -> Result:
    app = typer.Typer()
    register(app)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, HdganError):
        raise result.exception
    assert result.exception is None, result.output
    return result


@pytest.fixture
def run(tmp_path: Path) -> TinyRun:
    tiny = TinyRun.create(tmp_path)
    tiny.add_tiles()
    tiny.add_generator()
    tiny.add_candidates()
    return tiny


@pytest.fixture
def exported(run: TinyRun) -> dict[str, str]:
    """Split by id of what was exported."""
    hdgan("annotations", "export", run.file, run.folder / "out")
    names = [path.stem for path in (run.folder / "out").glob("*-*.png")]
    return {name.split("-", 1)[1]: name.split("-", 1)[0] for name in names}


def write_masks(run: TinyRun, exported: dict[str, str]) -> Path:
    folder = run.folder / "masks"
    folder.mkdir(exist_ok=True)
    for shift, identity in enumerate(sorted(exported)):
        data = with_candidate_id(encode_mask(striped_mask(shift), CLASSES), identity)
        (folder / f"{identity}.png").write_bytes(data)
    return folder


def current(run: TinyRun) -> Artifact | None:
    candidates = TinyRun(run.folder).add_candidates()  # Committed already: adopts and reads.
    return current_version(run.store, candidates.content_digest)


def problems(*arguments: str | Path) -> str:
    with pytest.raises(RequestError) as caught:
        hdgan("annotations", "import", *arguments)
    assert caught.value.exit_code == 64
    return str(caught.value)


def test_import_publishes_masks_and_a_preview(run: TinyRun, exported: dict[str, str]) -> None:
    folder = write_masks(run, exported)
    hdgan("annotations", "import", run.file, folder, "--author", "Dr. A")
    artifact = current(run)
    assert artifact is not None
    document = json.loads(artifact.read("annotations.json"))
    assert {image["id"]: image["split"] for image in document["images"]} == exported
    assert document["background"] is None
    for shift, identity in enumerate(sorted(exported)):
        mask = decode_mask(artifact.read(f"masks/{identity}.png"), classes=3)
        np.testing.assert_array_equal(mask, striped_mask(shift))
    assert artifact.read("preview.png").startswith(b"\x89PNG")
    assert artifact.run_info()["author"] == "Dr. A"


def test_the_same_masks_again_change_nothing(run: TinyRun, exported: dict[str, str]) -> None:
    folder = write_masks(run, exported)
    hdgan("annotations", "import", run.file, folder)
    first = current(run)
    result = hdgan("annotations", "import", run.file, folder, "--author", "somebody else")
    second = current(run)
    assert first is not None
    assert second is not None
    assert second.content_digest == first.content_digest
    assert "nothing new" in result.output


def test_all_problems_are_listed_at_once_and_nothing_is_imported(
    run: TinyRun, exported: dict[str, str]
) -> None:
    folder = write_masks(run, exported)
    small, unknown, empty, swapped, foreign = sorted(exported)
    other = "ef" * 16
    (folder / f"{small}.png").write_bytes(png(striped_mask()[:, :8]))
    bad = striped_mask()
    bad[0, 0] = 7
    (folder / f"{unknown}.png").write_bytes(png(bad))
    (folder / f"{empty}.png").write_bytes(png(np.full((SIDE, SIDE), 255, np.uint8)))
    stolen = with_candidate_id(encode_mask(striped_mask(), CLASSES), swapped)
    (folder / f"{foreign}.png").write_bytes(stolen)
    (folder / "z.png").write_bytes(with_candidate_id(encode_mask(striped_mask(), CLASSES), other))
    text = problems(run.file, folder)
    assert "nothing was imported: 5 problems" in text
    for part in (
        f"{small}.png: is 8 x 32 px",
        f"{unknown}.png: has values that are no class: 7",
        f"{empty}.png: labels no pixel at all",
        f"{foreign}.png: is named after candidate {foreign} but says inside",
        f"z.png: belongs to candidate {other}, which this run's generator did not make",
    ):
        assert part in text
    assert current(run) is None


def test_missing_images_and_classes_without_training_pixels_are_problems(
    run: TinyRun, exported: dict[str, str]
) -> None:
    folder = write_masks(run, exported)
    for identity, split in exported.items():
        if split == "val":
            (folder / f"{identity}.png").unlink()
        if split == "train":
            stroma = np.ones((SIDE, SIDE), np.uint8)
            (folder / f"{identity}.png").write_bytes(encode_mask(stroma, CLASSES))
    text = problems(run.file, folder)
    assert "val: 0 of 1 images are labelled" in text
    assert "class 'glass' has no pixel in any training image" in text
    assert current(run) is None


def test_a_shortened_id_needs_accept(run: TinyRun, exported: dict[str, str]) -> None:
    folder = write_masks(run, exported)
    identity = sorted(exported)[0]
    (folder / f"{identity}.png").unlink()
    (folder / f"{identity[:12]}.png").write_bytes(png(striped_mask()))
    assert "is unverified" in problems(run.file, folder)
    hdgan("annotations", "import", run.file, folder, "--accept")
    artifact = current(run)
    assert artifact is not None
    assert artifact.run_info()["matchedBy"][identity] == "partOfName"


def test_geojson_and_background(run: TinyRun, exported: dict[str, str]) -> None:
    folder = write_masks(run, exported)
    identity = next(i for i, split in exported.items() if split == "test")
    (folder / f"{identity}.png").unlink()
    ring = [[0, 0], [10, 0], [10, 32], [0, 32], [0, 0]]
    drawing = {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "properties": {"classification": {"name": "tumour"}},
            }
        ],
    }
    (folder / f"test-{identity}.geojson").write_text(json.dumps(drawing))
    hdgan("annotations", "import", run.file, folder, "--background", "glass")
    artifact = current(run)
    assert artifact is not None
    mask = decode_mask(artifact.read(f"masks/{identity}.png"))
    assert (mask[:, :10] == 2).all()
    assert (mask[:, 10:] == 0).all()
    assert "is no class of the run" in problems(run.file, folder, "--background", "bone")


def test_masks_saved_beside_the_exported_pictures_are_imported_alone(
    run: TinyRun, exported: dict[str, str]
) -> None:
    folder = run.folder / "out"
    assert "test: 0 of 2 images are labelled" in problems(run.file, folder)
    for identity in exported:
        (folder / f"mask-{identity}.png").write_bytes(encode_mask(striped_mask(), CLASSES))
    assert "imported 5 images" in hdgan("annotations", "import", run.file, folder).output


def test_two_different_masks_of_one_candidate_are_a_problem(
    run: TinyRun, exported: dict[str, str]
) -> None:
    folder = write_masks(run, exported)
    identity = sorted(exported)[0]
    (folder / f"again-{identity}.png").write_bytes(encode_mask(striped_mask(9), CLASSES))
    assert "is another mask of candidate" in problems(run.file, folder)


def test_without_candidates_the_message_says_what_to_do(tmp_path: Path) -> None:
    run = TinyRun.create(tmp_path)
    with pytest.raises(RequestError, match="has no candidates"):
        hdgan("annotations", "export", run.file, tmp_path / "out")
