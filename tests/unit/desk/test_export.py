"""The folder an expert gets: what is in it, and that nothing a person did in it is lost."""

from __future__ import annotations

import csv
import json
import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import typer
import yaml
from typer.testing import CliRunner, Result

from hdgan.core.annotations import current
from hdgan.core.errors import HdganError, NoSpace, RequestError, StoreError
from hdgan.core.masks import decode_mask, encode_mask
from hdgan.desk import export_folder
from hdgan.desk.commands import register
from hdgan.desk.export_guide import export_guide
from hdgan.desk.export_layout import STATE_FILE
from hdgan.desk.png_text import read_candidate_id, with_candidate_id
from support.desk_run import CLASSES, SIDE, TinyRun, striped_mask

Folder = dict[str, bytes]


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
def out(run: TinyRun) -> Path:
    """The folder of an export of the run."""
    folder = run.folder / "out"
    hdgan("annotations", "export", run.file, folder)
    return folder


def contents(folder: Path) -> Folder:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def splits(folder: Path) -> dict[str, str]:
    """Split by id, from split.csv."""
    with (folder / "split.csv").open(newline="") as file:
        return {row["id"]: row["split"] for row in csv.DictReader(file)}


def import_masks(run: TinyRun, out: Path) -> dict[str, np.ndarray]:
    """Publish a mask for every exported picture; they are returned by id."""
    masks = {}
    folder = run.folder / "masks"
    folder.mkdir()
    for shift, identity in enumerate(sorted(splits(out))):
        mask = striped_mask(shift)
        mask[4:9, 5:12] = 2
        mask[6, 8] = 0  # a hole in it
        mask[-3:] = 255
        masks[identity] = mask
        data = with_candidate_id(encode_mask(mask, CLASSES), identity)
        (folder / f"{identity}.png").write_bytes(data)
    hdgan("annotations", "import", run.file, folder)
    return masks


def published(run: TinyRun) -> dict[str, np.ndarray]:
    """The current masks by id."""
    candidates = TinyRun(run.folder).add_candidates()
    artifact = current(run.store, candidates.content_digest)
    assert artifact is not None
    ids = [image["id"] for image in json.loads(artifact.read("annotations.json"))["images"]]
    return {one: decode_mask(artifact.read(f"masks/{one}.png")) for one in ids}


def test_pictures_carry_their_ids_and_the_other_files_the_classes(out: Path) -> None:
    assigned = splits(out)
    assert sorted(assigned.values()) == ["test", "test", "train", "train", "val"]
    for identity, split in assigned.items():
        assert read_candidate_id((out / f"{split}-{identity}.png").read_bytes()) == identity
    stroma = {"name": "stroma", "color": "#f08cac"}
    assert json.loads((out / "classes.json").read_text())[1] == stroma
    cvat = json.loads((out / "cvat-labels.json").read_text())
    assert cvat[1] == {**stroma, "attributes": []}
    page = ElementTree.parse(out / "label-studio.xml").getroot()
    for tag in ("BrushLabels", "PolygonLabels"):
        labels = [(one.get("value"), one.get("background")) for one in page.find(tag) or []]
        assert labels == [(entry.name, entry.color) for entry in CLASSES]
    guide = (out / "GUIDE.txt").read_text()
    assert "5 generated pictures, 32 x 32 px at 2.0 um/px" in guide
    assert "  2  tumour  #5a288c" in guide
    assert "in\nany order" in guide  # nothing has ranked them
    assert "{" not in guide
    assert "Labels of before" not in guide


def test_the_guide_says_what_the_order_of_the_pictures_means() -> None:
    def guide(ranked: bool) -> str:
        return export_guide(
            ["train", "test"],
            CLASSES,
            size=(64, 48),
            mpp=0.5,
            digits=32,
            folder="out",
            ranked=ranked,
            labelled=False,
        )

    assert "those that help most first" in guide(ranked=True)
    assert "any order" in guide(ranked=False)


def test_labels_hold_the_ids_of_their_pictures_and_label_nothing(run: TinyRun, out: Path) -> None:
    for identity, split in splits(out).items():
        document = json.loads((out / "labels" / f"{split}-{identity}.geojson").read_text())
        assert document["properties"]["hdgan-candidate"] == identity
        assert document["properties"]["image"] == f"{split}-{identity}.png"
        assert document["features"] == []
    with pytest.raises(RequestError) as caught:
        hdgan("annotations", "import", run.file, out)
    # Nobody has labelled anything, and that is all there is to say.
    assert "1 problem\n  - nothing is labelled in these files" in str(caught.value)


def test_shapes_written_into_labels_are_imported_by_the_id_inside(run: TinyRun, out: Path) -> None:
    ring = [[0, 0], [10, 0], [10, 32], [0, 32], [0, 0]]
    rest = [[10, 0], [32, 0], [32, 32], [10, 32], [10, 0]]
    edge = [[0, 0], [32, 0], [32, 1], [0, 1], [0, 0]]
    for number, path in enumerate(sorted((out / "labels").glob("*.geojson"))):
        document = json.loads(path.read_text())
        document["features"] = [
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [shape]},
                "properties": {"classification": {"name": name}},
            }
            for shape, name in ((ring, "stroma"), (rest, "glass"), (edge, "tumour"))
        ]
        path.write_text(json.dumps(document))
        path.rename(path.with_name(f"renamed {number}.geojson"))
    hdgan("annotations", "import", run.file, out)
    masks = published(run)
    assert set(masks) == set(splits(out))
    for mask in masks.values():
        assert (mask[0] == 2).all()
        assert (mask[1:, :10] == 1).all()
        assert (mask[1:, 10:] == 0).all()


def test_export_again_changes_nothing(run: TinyRun, out: Path) -> None:
    before = contents(out)
    result = hdgan("annotations", "export", run.file, out)
    assert contents(out) == before
    assert "changed by a person" not in result.output


def test_what_a_person_has_changed_stays(run: TinyRun, out: Path) -> None:
    pictures = sorted(out.glob("*.png"))
    pictures[0].write_bytes(b"painted over")
    pictures[1].unlink()
    labels = sorted((out / "labels").glob("*.geojson"))
    labels[0].write_text('{"type":"FeatureCollection","features":[{"drawn":"by hand"}]}')
    (out / "scripts" / "export-labels.groovy").write_text("// better")
    (out / "GUIDE.txt").write_text("read this first")
    (out / "data" / "1").mkdir(parents=True)
    (out / "data" / "1" / "data.qpdata").write_bytes(b"what QuPath has saved")
    (out / "my mask.png").write_bytes(encode_mask(striped_mask(), CLASSES))
    before = contents(out)
    result = hdgan("annotations", "export", run.file, out)
    after = contents(out)
    assert after.pop(pictures[1].name).startswith(b"\x89PNG")
    assert after == before
    for name in (pictures[0].name, "scripts/export-labels.groovy", "GUIDE.txt"):
        assert name in result.output
    assert "labels/" not in result.output  # that is where a person writes


def test_what_an_older_export_wrote_and_nobody_changed_is_brought_up_to_date(
    run: TinyRun, out: Path
) -> None:
    state = json.loads((out / STATE_FILE).read_text())
    (out / "GUIDE.txt").write_bytes(b"of an older version")
    state["written"]["GUIDE.txt"].append(export_folder._digest(b"of an older version"))
    (out / STATE_FILE).write_text(json.dumps(state))
    result = hdgan("annotations", "export", run.file, out)
    assert "What to label" in (out / "GUIDE.txt").read_text()
    assert "GUIDE.txt\n" not in result.output.split("How:")[0]


def test_folders_of_other_things_are_refused(run: TinyRun, out: Path) -> None:
    state = json.loads((out / STATE_FILE).read_text())
    state["candidates"] = "0" * 64
    (out / STATE_FILE).write_text(json.dumps(state))
    with pytest.raises(RequestError, match="an export of other candidates"):
        hdgan("annotations", "export", run.file, out)
    (out / STATE_FILE).write_text("{")
    with pytest.raises(RequestError, match="is damaged"):
        hdgan("annotations", "export", run.file, out)
    for name in ("holiday.png", "slides.qpproj"):
        other = run.folder / f"of {name}"
        other.mkdir()
        (other / name).write_bytes(b"")
        with pytest.raises(RequestError, match=f"holds other files \\({name}\\)"):
            hdgan("annotations", "export", run.file, other)
        assert [path.name for path in other.iterdir()] == [name]


def test_an_interrupted_export_is_completed(
    run: TinyRun, monkeypatch: pytest.MonkeyPatch, out: Path
) -> None:
    whole = contents(out)
    torn = run.folder / "torn"
    wrote = 0

    def stop(self: export_folder.ExportFolder, place: str, data: bytes) -> None:
        nonlocal wrote
        wrote += 1
        if wrote == 6:
            raise KeyboardInterrupt
        original(self, place, data)

    original = export_folder.ExportFolder._write
    monkeypatch.setattr(export_folder.ExportFolder, "_write", stop)
    codes: list[int] = []
    while 0 not in codes and len(codes) < 20:
        wrote = 0
        arguments = ["annotations", "export", str(run.file), str(torn)]
        codes.append(CliRunner().invoke(_app(), arguments).exit_code)
    assert len(codes) > 3
    assert codes[-1] == 0
    differ = {"project.qpproj", "GUIDE.txt", STATE_FILE}  # they name the folder or the time
    done = contents(torn)
    assert {k: v for k, v in done.items() if k not in differ} == {
        k: v for k, v in whole.items() if k not in differ
    }
    assert differ <= set(done)


def _app() -> typer.Typer:
    app = typer.Typer()
    register(app)
    return app


def test_a_full_disk_is_said_and_leaves_whole_files(
    run: TinyRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = os.replace
    replaced = 0

    def full(source: str, target: str) -> None:
        nonlocal replaced
        replaced += 1
        if replaced > 4:
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(NoSpace, match="Free some space"):
        hdgan("annotations", "export", run.file, tmp_path / "full")
    names = sorted(contents(tmp_path / "full"))
    assert len(names) == 4
    assert not any("tmp" in name for name in names)


def test_a_file_in_the_place_of_the_folder_is_said(run: TinyRun, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="file of this name is in the way"):
        hdgan("annotations", "export", run.file, tmp_path / "file")


def test_more_candidates_can_be_exported_and_only_train(run: TinyRun, out: Path) -> None:
    before = splits(out)
    with pytest.raises(RequestError, match="the run needs 5 labelled pictures"):
        hdgan("annotations", "export", run.file, out, "--count", "4")
    hdgan("annotations", "export", run.file, out, "--count", "7")
    after = splits(out)
    assert len(after) == 7
    assert before.items() <= after.items()
    assert {after[one] for one in set(after) - set(before)} == {"train"}
    project = json.loads((out / "project.qpproj").read_text())
    assert {entry["metadata"]["hdgan-candidate"] for entry in project["images"]} == set(after)
    assert sorted(entry["entryID"] for entry in project["images"]) == list(range(1, 8))


def test_labels_of_before_are_where_labelling_goes_on(run: TinyRun, out: Path) -> None:
    masks = import_masks(run, out)
    result = hdgan("annotations", "export", run.file, out)
    assert "5 of them have labels already" in result.output
    assert "Labels of before" in (out / "GUIDE.txt").read_text()
    for identity, split in splits(out).items():
        earlier = (out / "earlier" / f"{split}-{identity}.mask.png").read_bytes()
        np.testing.assert_array_equal(decode_mask(earlier, classes=3), masks[identity])
        assert read_candidate_id(earlier) == identity
    # The folder as it is says exactly what was there before.
    assert "nothing new" in hdgan("annotations", "import", run.file, out).output


def test_a_mask_beside_the_pictures_replaces_untouched_shapes_only(run: TinyRun, out: Path) -> None:
    masks = import_masks(run, out)
    hdgan("annotations", "export", run.file, out)
    identity, split = next(iter(splits(out).items()))
    better = masks[identity].copy()
    better[:2] = 2
    data = with_candidate_id(encode_mask(better, CLASSES), identity)
    (out / f"{split}-{identity}.mask.png").write_bytes(data)
    hdgan("annotations", "import", run.file, out)
    np.testing.assert_array_equal(published(run)[identity], better)
    # In whatever order they come.
    mask_file = out / f"{split}-{identity}.mask.png"
    result = hdgan("annotations", "import", run.file, out / "labels", mask_file)
    assert "nothing new" in result.output
    # Now the shapes are somebody's work as well, and nobody can tell which is meant.
    place = out / "labels" / f"{split}-{identity}.geojson"
    document = json.loads(place.read_text())
    del document["features"][0]
    place.write_text(json.dumps(document))
    with pytest.raises(RequestError, match=f"another mask of candidate {identity}"):
        hdgan("annotations", "import", run.file, out)


def test_labels_that_are_touched_are_kept_where_earlier_ones_exist(run: TinyRun, out: Path) -> None:
    touched = sorted((out / "labels").glob("*.geojson"))[0]
    touched.write_text(touched.read_text().replace('"features":[]', '"features":[ ]'))
    mine = touched.read_bytes()
    import_masks(run, out)
    hdgan("annotations", "export", run.file, out)
    assert touched.read_bytes() == mine
    others = sorted((out / "labels").glob("*.geojson"))[1:]
    assert all(json.loads(path.read_text())["features"] for path in others)


def test_labels_of_before_follow_the_names_of_classes(run: TinyRun, out: Path) -> None:
    masks = import_masks(run, out)
    document = yaml.safe_load(run.file.read_text())
    document["spec"]["annotations"]["classes"] = [
        {"name": "tumour", "color": "#ff0000"},
        {"name": "fat", "color": "#ffff00"},
        {"name": "glass", "color": "#f0f0f0"},
    ]
    run.file.write_text(yaml.safe_dump(document))
    hdgan("annotations", "export", run.file, out)
    wanted = np.array([2, 255, 0, *[255] * 253], np.uint8)  # glass, stroma, tumour
    for identity, split in splits(out).items():
        earlier = (out / "earlier" / f"{split}-{identity}.mask.png").read_bytes()
        np.testing.assert_array_equal(decode_mask(earlier, classes=3), wanted[masks[identity]])


def test_masks_too_intricate_for_shapes_are_in_labels_as_they_are(
    run: TinyRun, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_masks(run, out)
    monkeypatch.setattr("hdgan.desk.outlines.MAX_SEGMENTS", 3)
    touched = sorted((out / "labels").glob("*.geojson"))[0]
    touched.write_bytes(b"somebody's work")
    hdgan("annotations", "export", run.file, out)
    assert len(list((out / "labels").glob("*.mask.png"))) == 4  # that work stands alone
    touched.unlink()
    hdgan("annotations", "export", run.file, out)
    assert "nothing new" in hdgan("annotations", "import", run.file, out).output


def test_the_project_names_the_folder_it_is_in_until_somebody_opens_it(
    run: TinyRun, out: Path
) -> None:
    moved = out.rename(run.folder / "moved on")
    hdgan("annotations", "export", run.file, moved)
    project = json.loads((moved / "project.qpproj").read_text())
    for entry in project["images"]:
        assert Path(unquote(urlsplit(entry["serverBuilder"]["uri"]).path)).parent == moved
    # QuPath wrote it since: what it says is QuPath's.
    (moved / "project.qpproj").write_text(json.dumps(project))
    again = moved.rename(run.folder / "again")
    hdgan("annotations", "export", run.file, again)
    assert json.loads((again / "project.qpproj").read_text()) == project


def test_pictures_are_as_large_as_the_project_says(out: Path) -> None:
    project = json.loads((out / "project.qpproj").read_text())
    metadata = project["images"][0]["serverBuilder"]["metadata"]
    assert (metadata["width"], metadata["height"]) == (SIDE, SIDE)
    assert metadata["pixelCalibration"]["pixelWidth"] == {"value": 2.0, "unit": "µm"}
