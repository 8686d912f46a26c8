"""The extractor as a whole: what it writes, what it refuses, what it does again."""

from __future__ import annotations

import io
import json
import shutil
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hdgan.core.artifact import open_artifact
from hdgan.core.masks import encode_mask
from hdgan.core.stage import run_stage
from hdgan.core.store import open_store
from hdgan.extractor import stage
from hdgan.extractor.stage import EXTRACTOR
from hdgan.nets.checkpoint import load_generator
from hdgan.nets.latents import draw_noise
from hdgan.nets.pyramid import Rendered, feature_plan, render
from hdgan.nets.shards import (
    FeatureSet,
    ShardRecord,
    features_root,
    open_features,
    write_shard,
)
from support.annotated_run import ARCH, AnnotatedRun, make_run, png

CONFIG = {"blocks": 3, "dtype": "float16"}


def extract(run: AnnotatedRun, tmp_path: Path, **config: Any) -> tuple[int, list[dict[str, Any]]]:
    """Run the stage; returns its exit code and the events it printed."""
    out = io.StringIO()
    environ = run.request("extractor", CONFIG | config, tmp_path / "request.json")
    code = run_stage((EXTRACTOR,), environ, out)
    return code, [json.loads(line) for line in out.getvalue().splitlines()]


def error_of(events: list[dict[str, Any]]) -> str:
    assert events[-1]["event"] == "error"
    return str(events[-1]["message"])


def features_of(run: AnnotatedRun) -> FeatureSet:
    return open_features(features_root(run.scratch, run.features_key))


@pytest.mark.parametrize("noise", ["constant", "perSample"])
def test_shards_hold_the_features_of_the_stored_pictures(tmp_path: Path, noise: str) -> None:
    run = make_run(tmp_path, noise=noise)
    code, events = extract(run, tmp_path)
    assert code == 0, events[-1]
    features = features_of(run)
    pictures, masks = run.pictures(), run.masks()
    artifact = open_artifact(open_store(run.store), "gan-trainer", run.inputs["generator"].key)
    candidates = open_artifact(open_store(run.store), "candidates", run.inputs["candidates"].key)
    assert artifact is not None
    assert candidates is not None
    generator = load_generator(artifact.read)
    plan = feature_plan(ARCH, 3)
    assert features.plan == plan
    for index, image in enumerate(features.images):
        assert np.array_equal(image.picture, pictures[image.id])
        assert np.array_equal(image.labels, masks[image.id])
        ws = generator.mapping(_z(index), 0.7)
        drawn = draw_noise(0, "candidates", index, generator.synthesis.noise_shapes())
        own = [torch.from_numpy(one) for one in drawn]
        expected = render(
            generator, ws, "constant" if noise == "constant" else own, plan, "float16"
        )
        for stored, native in zip(image.maps, expected.maps, strict=True):
            assert np.array_equal(np.asarray(stored), native.numpy())


def test_features_are_rendered_in_the_precision_of_the_candidates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path)
    store = open_store(run.store)
    candidates = open_artifact(store, "candidates", run.inputs["candidates"].key)
    artifact = open_artifact(store, "gan-trainer", run.inputs["generator"].key)
    assert candidates is not None
    assert artifact is not None
    document = json.loads(candidates.read("candidates.json")) | {"precision": "bfloat16"}
    mixed = run.with_candidates({"candidates.json": json.dumps(document).encode()})
    monkeypatch.setattr(stage, "require_same_picture", lambda *pictures: None)  # they are float32
    assert extract(mixed, tmp_path)[0] == 0
    image = features_of(mixed).images[0]
    plan = feature_plan(ARCH, 3)
    exact, rounded = (
        render(
            load_generator(artifact.read, "cpu", precision),
            load_generator(artifact.read).mapping(_z(0), 0.7),
            "constant",
            plan,
            "float16",
        ).maps[-1].numpy()
        for precision in ("float32", "bfloat16")
    )  # fmt: skip
    assert not np.array_equal(exact, rounded)
    assert np.array_equal(np.asarray(image.maps[-1]), rounded)


def _z(index: int) -> torch.Tensor:
    from hdgan.nets.latents import draw_z

    return torch.from_numpy(draw_z(0, "candidates", index, ARCH.latent_dim))[None]


def test_a_restart_makes_only_what_is_missing_or_damaged(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert extract(run, tmp_path)[0] == 0
    root = features_root(run.scratch, run.features_key)
    before = {path: path.stat().st_mtime_ns for path in root.glob("*/shard.json")}
    index = (root / "index.json").read_bytes()
    shutil.rmtree(root / run.ids[2])
    damaged = root / run.ids[5] / "b16.conv1.npy"
    data = bytearray(damaged.read_bytes())
    data[200] ^= 4
    damaged.write_bytes(data)
    code, events = extract(run, tmp_path)
    assert code == 0
    changed = {
        path.parent.name
        for path in root.glob("*/shard.json")
        if before[path] != path.stat().st_mtime_ns
    }
    assert changed == {run.ids[2], run.ids[5]}
    assert any(run.ids[5] in str(event.get("message")) for event in events)
    assert (root / "index.json").read_bytes() == index


def test_an_altered_picture_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    name = run.ids[1]
    picture = run.pictures()[name].copy()
    picture[2:5, 2:5] = 255 - picture[2:5, 2:5]
    altered = run.with_candidates({f"images/{name}.png": png(picture)})
    code, events = extract(altered, tmp_path)
    assert code == 64
    assert name in error_of(events)
    assert "not what its latent renders" in error_of(events)


def test_rounding_of_another_device_is_accepted(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    name = run.ids[1]
    picture = run.pictures()[name].astype(np.int16)
    picture[::3] += 1
    close = run.with_candidates({f"images/{name}.png": png(picture.clip(0, 255).astype(np.uint8))})
    assert extract(close, tmp_path)[0] == 0


def test_an_empty_annotation_names_the_image(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    masks = run.masks()
    masks[run.ids[4]] = np.full((16, 16), 255, dtype=np.uint8)
    code, events = extract(run.with_annotations(masks), tmp_path)
    assert code == 64
    assert run.ids[4] in error_of(events)
    assert "labels no pixel" in error_of(events)
    assert not features_root(run.scratch, run.features_key).exists()


def test_a_class_no_training_image_has_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    masks = run.masks()
    for name in run.ids[:4]:
        masks[name][masks[name] == 1] = 0
    code, events = extract(run.with_annotations(masks), tmp_path)
    assert code == 64
    assert "no training image has a pixel of class 'light'" in error_of(events)


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    masks = dict(run.masks()) | {run.ids[0]: np.zeros((16, 20), dtype=np.uint8)}
    code, events = extract(run.with_annotations(masks), tmp_path)
    assert code == 64
    assert "20 x 16" in error_of(events)


def test_a_mask_with_an_unknown_class_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    three = (*run.classes, run.classes[0].model_copy(update={"name": "other"}))
    stray = encode_mask(np.full((16, 16), 2, dtype=np.uint8), three)
    code, events = extract(run.with_annotations({**run.masks(), run.ids[0]: stray}), tmp_path)
    assert code == 64
    assert "holds the values [2]" in error_of(events)


def test_annotations_without_training_images_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    masks = {name: mask for name, mask in run.masks().items() if name in run.ids[4:]}
    code, events = extract(run.with_annotations(masks), tmp_path)
    assert code == 64
    assert "no image of split train" in error_of(events)


@pytest.mark.parametrize("what", ["generator", "candidates"])
def test_annotations_of_something_else_are_refused(tmp_path: Path, what: str) -> None:
    run = make_run(tmp_path)
    code, events = extract(run.with_annotations(run.masks(), **{what: "0" * 64}), tmp_path)
    assert code == 64
    assert f"belong to {what} 000000000000" in error_of(events)


def test_renamed_classes_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    renamed = [{"name": "x", "color": "#000000"}, {"name": "y", "color": "#ffffff"}]
    code, events = extract(run.with_annotations(run.masks(), classes=renamed), tmp_path)
    assert code == 64
    assert "names and order must agree" in error_of(events)


@pytest.mark.parametrize("name", ["..", ".", "index"])
def test_an_id_that_is_none_leads_nowhere(tmp_path: Path, name: str) -> None:
    run = make_run(tmp_path)
    features = features_root(run.scratch, run.features_key).parent
    neighbour = features / "other" / "index.json"
    neighbour.parent.mkdir(parents=True)
    neighbour.write_text("{}")
    store = open_store(run.store)
    candidates = open_artifact(store, "candidates", run.inputs["candidates"].key)
    assert candidates is not None
    document = candidates.read("candidates.json").replace(run.ids[0].encode(), name.encode())
    picture = candidates.read(f"images/{run.ids[0]}.png")
    masks = run.masks()
    masks[name] = masks.pop(run.ids[0])
    altered = run.with_candidates({"candidates.json": document, f"images/{name}.png": picture})
    altered = replace(altered, ids=(name, *run.ids[1:]))
    code, events = extract(altered.with_annotations(masks), tmp_path)
    assert neighbour.exists()
    assert code == 66
    assert "candidates.json is not a candidates index" in error_of(events)


@pytest.mark.parametrize("change", [{"seed": -1}, {"images": "["}])
def test_damaged_candidates_are_a_missing_input(tmp_path: Path, change: dict[str, Any]) -> None:
    run = make_run(tmp_path, noise="perSample")
    candidates = open_artifact(open_store(run.store), "candidates", run.inputs["candidates"].key)
    assert candidates is not None
    document = json.loads(candidates.read("candidates.json")) | change
    data = b"[" * 200_000 if change.get("images") == "[" else json.dumps(document).encode()
    code, events = extract(run.with_candidates({"candidates.json": data}), tmp_path)
    assert code == 66
    assert "candidates.json is not" in error_of(events)


def test_more_blocks_than_there_are_is_a_request_error(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    code, events = extract(run, tmp_path, blocks=4)
    assert code == 64
    assert "1..3" in error_of(events)


def test_too_little_space_is_known_before_anything_is_rendered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    code, events = extract(run, tmp_path)
    assert code == 69
    assert "the features of 8 images needs" in error_of(events)
    root = features_root(run.scratch, run.features_key)
    assert list(root.iterdir()) == []


def test_dtypes_have_folders_of_their_own(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    other = replace(run, extractor={"blocks": 3, "dtype": "bfloat16"})
    assert extract(run, tmp_path)[0] == 0
    assert extract(other, tmp_path, dtype="bfloat16")[0] == 0
    assert features_of(run).dtype == "float16"
    assert features_of(other).dtype == "bfloat16"


def little_space(monkeypatch: pytest.MonkeyPatch, space: int) -> None:
    """Let `space` bytes be free below scratch, less what its features take."""
    usage = shutil.disk_usage("/")

    def free(path: Path) -> Any:
        used = sum(one.stat().st_size for one in Path(path).rglob("*.npy"))
        return usage._replace(free=space - used)

    monkeypatch.setattr(shutil, "disk_usage", free)


def test_a_damaged_shard_makes_room_for_its_successor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path)
    assert extract(run, tmp_path)[0] == 0
    root = features_root(run.scratch, run.features_key)
    full = sum(one.stat().st_size for one in run.scratch.rglob("*.npy"))
    for name in run.ids:
        (root / name / "labels.npy").write_bytes(b"damaged")
    (root / ".making-other-1").mkdir()
    np.save(root / ".making-other-1" / "b16.conv1.npy", np.zeros(10**6))
    little_space(monkeypatch, full + 8 * 50_000)  # and shard.json, headers
    code, events = extract(run, tmp_path)
    assert code == 0, events[-1]
    features_of(run)


def test_too_little_space_names_what_other_extractions_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path)
    assert extract(replace(run, extractor={"blocks": 2, "dtype": "float16"}), tmp_path)[0] == 0
    little_space(monkeypatch, 0)
    code, events = extract(run, tmp_path)
    assert code == 69
    said = error_of(events)
    assert "the features of 8 images needs" in said
    assert str(run.scratch) in said
    (other,) = (one for one in (run.scratch / "features").iterdir() if one.name != run.features_key)
    assert "Features of 1 other extraction(s) take" in said
    assert str(other) in said


def test_a_map_is_not_kept_when_it_has_been_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The maps of a 4096 px picture are 1 GB: they must not stay until the last is on disk."""
    alive: list[weakref.ref[torch.Tensor]] = []

    def watched(*arguments: Any) -> Rendered:
        made = render(*arguments)
        alive[:] = [weakref.ref(one) for one in made.maps]
        return made

    left: list[int] = []

    def write(*arguments: Any, maps: Iterator[torch.Tensor], **named: Any) -> ShardRecord:
        def counted() -> Iterator[torch.Tensor]:
            for one in maps:
                yield one
                del one
                left.append(sum(ref() is not None for ref in alive))

        return write_shard(*arguments, maps=counted(), **named)

    monkeypatch.setattr(stage, "render", watched)
    monkeypatch.setattr(stage, "write_shard", write)
    assert extract(make_run(tmp_path), tmp_path)[0] == 0
    assert left[:4] == [4, 3, 2, 1]
