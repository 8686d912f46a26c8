"""Candidates out and annotations in, through the commands a person types."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from hdgan.core.annotations import current as current_version
from hdgan.core.artifact import Artifact
from hdgan.core.errors import HdganError, RequestError
from hdgan.core.masks import decode_mask, encode_mask
from hdgan.core.store import Store
from hdgan.desk.commands import register
from hdgan.desk.intake import import_annotations
from hdgan.desk.png_text import with_candidate_id
from hdgan.desk.run_artifacts import open_run
from hdgan.desk.understanding import lonely_pixels
from support.desk_run import CLASSES, SIDE, TinyRun, png, striped_mask
from support.stepped_actors import Actor


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
    (folder / f"{small}.png").write_bytes(with_candidate_id(png(striped_mask()[:, :8]), small))
    bad = striped_mask()
    bad[0, 0] = 7
    (folder / f"{unknown}.png").write_bytes(png(bad))
    nothing = png(np.full((SIDE, SIDE), 255, np.uint8))
    (folder / f"{empty}.png").write_bytes(with_candidate_id(nothing, empty))
    stolen = with_candidate_id(encode_mask(striped_mask(), CLASSES), swapped)
    (folder / f"{foreign}.png").write_bytes(stolen)
    (folder / "z.png").write_bytes(with_candidate_id(encode_mask(striped_mask(), CLASSES), other))
    text = problems(run.file, folder)
    assert "nothing was imported: 6 problems" in text
    for part in (
        f"{small}.png: is 8 x 32 px",
        f"{unknown}.png: has values that are no class: 7",
        f"{empty}.png: labels no pixel at all",
        f"{foreign}.png: is named after candidate {foreign} but says inside",
        f"z.png: belongs to candidate {other}, which this run's generator did not make",
        f"{unknown}.png: 1 is unverified",
    ):
        assert part in text
    assert current(run) is None


def test_classes_without_training_pixels_are_problems_once_all_are_labelled(
    run: TinyRun, exported: dict[str, str]
) -> None:
    folder = write_masks(run, exported)
    train = [identity for identity, split in exported.items() if split == "train"]
    for identity in train:
        stroma = encode_mask(np.ones((SIDE, SIDE), np.uint8), CLASSES)
        (folder / f"{identity}.png").write_bytes(with_candidate_id(stroma, identity))
    text = problems(run.file, folder)
    assert "class 'glass' has no pixel in any training image" in text
    assert current(run) is None
    (folder / f"{train[0]}.png").unlink()
    result = hdgan("annotations", "import", run.file, folder)
    assert "note: class 'glass' has no pixel in any training image yet" in result.output


def test_what_is_labelled_so_far_is_imported_and_the_rest_added_later(
    run: TinyRun, exported: dict[str, str]
) -> None:
    folder = write_masks(run, exported)
    first, *others = sorted(exported)
    moved = run.folder / "later"
    moved.mkdir()
    for identity in others:
        (folder / f"{identity}.png").rename(moved / f"{identity}.png")
    result = hdgan("annotations", "import", run.file, folder, "--author", "Dr. A")
    assert "imported 1 images as version 1" in result.output
    assert "images are labelled so far" in result.output
    artifact = current(run)
    assert artifact is not None
    assert any("0 of 1 images are labelled" in one for one in artifact.run_info()["notices"])
    # The run waits, and says for what.
    view = open_run(run.file, None)
    waiting = view.status("annotations")
    assert waiting is not None
    assert waiting.state == "awaiting"
    assert (waiting.reason or "").startswith("labelled so far: ")

    result = hdgan("annotations", "import", run.file, moved, "--author", "Dr. B")
    assert "imported 4 images as version 2, which keeps 1 of before" in result.output
    assert "note" not in result.output
    artifact = current(run)
    assert artifact is not None
    document = json.loads(artifact.read("annotations.json"))
    assert {image["id"]: image["split"] for image in document["images"]} == exported
    by = {one: who["author"] for one, who in artifact.run_info()["labelledBy"].items()}
    assert by == {first: "Dr. A", **dict.fromkeys(others, "Dr. B")}
    for shift, identity in enumerate(sorted(exported)):
        mask = decode_mask(artifact.read(f"masks/{identity}.png"), classes=3)
        np.testing.assert_array_equal(mask, striped_mask(shift))
    assert open_run(run.file, None).artifacts["annotations"].content_digest == (
        artifact.content_digest
    )


def test_replace_all_keeps_nothing_but_the_splits(run: TinyRun, exported: dict[str, str]) -> None:
    folder = write_masks(run, exported)
    hdgan("annotations", "import", run.file, folder)
    test = next(one for one, split in exported.items() if split == "test")
    data = (folder / f"{test}.png").read_bytes()
    (folder / f"{test}.png").unlink()
    hdgan("annotations", "import", run.file, folder, "--replace-all")
    artifact = current(run)
    assert artifact is not None
    assert test not in {i["id"] for i in json.loads(artifact.read("annotations.json"))["images"]}
    # Whatever the run asks for now: what has been a test image is one for ever.
    run.file.write_text(run.file.read_text().replace("test: 2", "test: 1"))
    (folder / f"{test}.png").write_bytes(data)
    hdgan("annotations", "import", run.file, folder)
    artifact = current(run)
    assert artifact is not None
    images = {i["id"]: i["split"] for i in json.loads(artifact.read("annotations.json"))["images"]}
    assert images == exported


def test_images_that_are_kept_follow_the_names_of_classes(
    run: TinyRun, exported: dict[str, str]
) -> None:
    folder = write_masks(run, exported)
    hdgan("annotations", "import", run.file, folder)
    text = run.file.read_text()
    text = text.replace('      - {name: stroma, color: "#f08cac"}\n', "")
    run.file.write_text(text)
    identity = sorted(exported)[0]
    for path in folder.iterdir():
        path.unlink()
    two = [CLASSES[0], CLASSES[2]]
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[4:9] = 1
    (folder / "a.png").write_bytes(with_candidate_id(encode_mask(mask, two), identity))
    result = hdgan("annotations", "import", run.file, folder)
    assert "note: the run has no class stroma any more" in result.output
    artifact = current(run)
    assert artifact is not None
    np.testing.assert_array_equal(decode_mask(artifact.read(f"masks/{identity}.png")), mask)
    for shift, other in enumerate(sorted(exported)[1:], start=1):
        kept = decode_mask(artifact.read(f"masks/{other}.png"), classes=2)
        wanted = np.array([0, 255, 1], np.uint8)[striped_mask(shift)]
        np.testing.assert_array_equal(kept, wanted)


def test_list_shows_who_imported_what_and_when(run: TinyRun, exported: dict[str, str]) -> None:
    assert "no annotations yet" in hdgan("annotations", "list", run.file).output
    folder = write_masks(run, exported)
    hdgan("annotations", "import", run.file, folder, "--author", "Dr. A")
    half = striped_mask()
    half[:16] = 255
    identity = next(one for one, split in exported.items() if split == "val")
    only = run.folder / "one.png"
    only.write_bytes(with_candidate_id(encode_mask(half, CLASSES), identity))
    hdgan("annotations", "import", run.file, only, "--author", "Professor\x1b[2JB")
    # The first version again is a third one, by whoever imports it.
    hdgan("annotations", "import", run.file, folder, "--author", "Dr. C")
    lines = hdgan("annotations", "list", run.file).output.splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "3"]
    for line, author in zip(lines, ("Dr. A", "Professor\\x1b[2JB", "Dr. C"), strict=True):
        assert author in line
        assert "2 train, 1 val, 2 test" in line
        assert re.search(r" 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ ", line)
    assert ["100.0 %" in line for line in lines] == [True, False, True]
    assert "90.0 % labelled" in lines[1]


@pytest.mark.parametrize("together", [True, False])
def test_two_imports_at_once_lose_nothing(
    run: TinyRun, exported: dict[str, str], together: bool
) -> None:
    folder = write_masks(run, exported)
    view = open_run(run.file, None)
    candidates, config = view.candidates(), view.run.spec.annotations
    paths = [[path] for path in sorted(folder.iterdir())[:2]]

    def work(path: list[Path]) -> Any:
        return lambda store: import_annotations(store, candidates, config, path)

    actors = [Actor(f"importer {n}", work(path), run.store) for n, path in enumerate(paths)]
    if together:
        while not all(actor.done for actor in actors):
            for actor in actors:
                if not actor.done:
                    actor.step()
    else:
        # The first stands still right before it publishes.
        while not actors[0].before.startswith("put_if_absent annotations/"):
            actors[0].step()
        actors[1].finish()
        actors[0].finish()
    assert [actor.failure for actor in actors] == [None, None]
    artifact = current(run)
    assert artifact is not None
    images = json.loads(artifact.read("annotations.json"))["images"]
    assert {image["id"] for image in images} == set(sorted(exported)[:2])


def test_an_import_that_is_killed_at_any_write_leaves_the_version_before(
    run: TinyRun, exported: dict[str, str]
) -> None:
    folder = write_masks(run, exported)
    paths = sorted(folder.iterdir())
    hdgan("annotations", "import", run.file, *paths[:2])
    before = current(run)
    assert before is not None
    view = open_run(run.file, None)
    candidates, config = view.candidates(), view.run.spec.annotations

    def import_until(write: int, after: bool) -> int:
        """Import in a process that dies at its `write`th write; returns what it ended with."""
        process = os.fork()
        if process == 0:
            try:
                store = _DyingStore(run.store, write, after)
                import_annotations(store, candidates, config, paths[1:])
                os._exit(0)
            finally:
                os._exit(1)
        return os.waitpid(process, 0)[1]

    killed = 0
    found = before
    for write in range(1, 100):
        for after in (False, True):
            ended = import_until(write, after)
            if os.WIFSIGNALED(ended):
                assert os.WTERMSIG(ended) == signal.SIGKILL
                killed += 1
            else:
                assert ended == 0
            now = current(run)
            assert now is not None
            found = now
            if found.content_digest != before.content_digest:
                break
            for name in found.names():
                found.read(name)  # by its digest
        if found.content_digest != before.content_digest:
            break
    # Masks, document, preview, manifest: it is current with the last write, and not before.
    assert killed > 2 * 7
    images = json.loads(found.read("annotations.json"))["images"]
    assert {image["id"] for image in images} == set(exported)
    result = hdgan("annotations", "import", run.file, folder)
    assert "nothing new: version 2" in result.output
    last = current(run)
    assert last is not None
    assert last.content_digest == found.content_digest


class _DyingStore:
    """A store whose process is killed before or after its n-th write."""

    def __init__(self, store: Store, write: int, after: bool) -> None:
        self._store, self._left, self._after = store, write, after

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not name.startswith("put"):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._left -= 1
            if self._left == 0 and not self._after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = found(*args, **kwargs)
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call


def test_what_only_names_say_needs_accept(run: TinyRun, exported: dict[str, str]) -> None:
    folder = write_masks(run, exported)
    for identity in exported:
        (folder / f"{identity}.png").write_bytes(encode_mask(striped_mask(), CLASSES))
    text = problems(run.file, folder)
    assert "5 are unverified: nothing inside says which candidate they label" in text
    assert current(run) is None
    result = hdgan("annotations", "import", run.file, folder, "--accept")
    assert "note: 5 accepted by their names" in result.output
    artifact = current(run)
    assert artifact is not None
    assert set(artifact.run_info()["matchedBy"].values()) == {"name"}


def test_a_mask_of_one_candidate_under_the_name_of_another_is_refused(
    run: TinyRun, exported: dict[str, str]
) -> None:
    one, other, *_ = sorted(exported)
    data = with_candidate_id(encode_mask(striped_mask(), CLASSES), one)
    path = run.folder / f"train-{other}.mask.png"
    path.write_bytes(data)
    text = problems(run.file, path, "--accept")
    assert f"is named after candidate {other} but says inside that it belongs to {one}" in text
    # A picture that was painted on is no mask, whatever its name.
    painted = np.array(Image.open(run.folder / "out" / f"{exported[one]}-{one}.png"))
    painted[:8] = CLASSES[1].rgb
    path.write_bytes(with_candidate_id(png(painted), one))
    path = path.rename(run.folder / "painted.png")
    assert "is the picture itself with something painted on it (75 % of" in problems(run.file, path)


def test_little_labelled_and_lonely_pixels_are_told(run: TinyRun, exported: dict[str, str]) -> None:
    identity = sorted(exported)[0]
    mask = np.full((SIDE, SIDE), 255, np.uint8)
    mask[1::4, 1::4] = 1
    assert lonely_pixels(mask) == 64
    mask[5:] = 255
    mask[0] = 1
    path = run.folder / "x.png"
    path.write_bytes(with_candidate_id(encode_mask(mask, CLASSES), identity))
    output = hdgan("annotations", "import", run.file, path).output
    assert "x.png: only 3.9 % of it is labelled" in output
    assert "single pixels" not in output
    mask[::2, ::2] = 2
    path.write_bytes(with_candidate_id(encode_mask(mask, CLASSES), identity))
    output = hdgan("annotations", "import", run.file, path).output
    assert "single pixels stand alone" in output


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
    hdgan("annotations", "import", run.file, folder, "--background", "glass", "--accept")
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
    assert "nothing is labelled in these files" in problems(run.file, folder)
    for identity in exported:
        data = with_candidate_id(encode_mask(striped_mask(), CLASSES), identity)
        (folder / f"mask-{identity}.png").write_bytes(data)
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
