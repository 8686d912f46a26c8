"""Drift of tiles from what an older generator makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hdgan.core.artifact import Artifact, Attempt, open_artifact
from hdgan.core.request import InputRef, StageRequest
from hdgan.core.stage import run_stage
from hdgan.core.tiles import load_index
from hdgan.gan_trainer import drift
from hdgan.gan_trainer.drift import DRIFT, labels_of, new_rows
from hdgan.nets.generator import Generator
from support.gan_stage import SIDE, gan_request, run_here
from support.tile_artifacts import Tiles, make_tiles

SAMPLES = 24


class Colours:
    """A feature extractor that sees mean colours, so that a test knows what to expect."""

    name, digest, dim, side = "colours", "c" * 64, 3, 224

    def __call__(self, images: Any) -> Any:
        return np.asarray(images, dtype=np.float32).mean(axis=(1, 2)) / 255


@pytest.fixture(autouse=True)
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "open_extractor", lambda *arguments: Colours())


def reference(artifact: Artifact) -> InputRef:
    manifest = artifact.manifest
    return InputRef(stage=manifest.stage, key=manifest.key, content_digest=manifest.content_digest)


def older(tiles: Tiles, slides: int) -> InputRef:
    """A tiling of the first slides only."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    known = [f"slide{number}" for number in range(slides)]
    rows = tiles.index.filter(pc.is_in(tiles.index.column("slide"), pa.array(known)))
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink)
    attempt = Attempt(tiles.store, "tiler", f"{slides:064x}")
    attempt.add_bytes("index.parquet", sink.getvalue().to_pybytes())
    return reference(attempt.commit({}))


def measured(
    tiles: Tiles, tmp_path: Path, before: InputRef | None, **config: Any
) -> dict[str, Any]:
    trained = gan_request(
        tiles, tmp_path / "scratch", conditional=config.get("conditional", "none")
    )
    assert run_here(trained, tmp_path).code == 0
    generator = open_artifact(tiles.store, "gan-trainer", trained.key)
    assert generator is not None
    inputs = {**trained.inputs, "generator": reference(generator)}
    if before is not None:
        inputs["before"] = before
    request = StageRequest(
        run="test",
        stage="drift",
        service="gan_trainer",
        config={
            **trained.config,
            "featureExtractor": "colours",
            "metricSamples": SAMPLES,
            **config,
        },
        inputs=inputs,
        key="d" * 64,
        stage_version=DRIFT.version,
        store=tiles.store.uri,
        scratch=str(tmp_path / "scratch"),
        threads=1,
    )
    path = tmp_path / "drift.json"
    path.write_text(request.model_dump_json(by_alias=True))
    import io

    out = io.StringIO()
    assert run_stage((DRIFT,), {"HDGAN_REQUEST": str(path)}, out) == 0, out.getvalue()
    artifact = open_artifact(tiles.store, "drift", request.key)
    assert artifact is not None
    document: dict[str, Any] = json.loads(artifact.read("drift.json"))
    return document


def test_new_slides_are_compared_by_themselves(tmp_path: Path) -> None:
    tiles = make_tiles(tmp_path, units=4, shards=2, per_shard=4, side=SIDE)
    found = measured(tiles, tmp_path, older(tiles, 2))
    assert (found["tiles"], found["newTiles"], found["newSlides"]) == (32, 16, 2)
    whole, new = found["kid"]["whole"], found["kidOfNewTiles"]["whole"]
    assert (whole["real"], whole["fake"]) == (32, SAMPLES)
    assert (new["real"], new["fake"]) == (16, SAMPLES)
    # Noise and what an untrained generator makes are not alike.
    assert whole["mean"] > 3 * whole["standard_error"] > 0
    assert found["kidWhenTrained"] is None
    assert "reason" not in found


def test_without_an_older_tiling_all_tiles_are_compared(tmp_path: Path) -> None:
    found = measured(make_tiles(tmp_path, side=SIDE), tmp_path, None)
    assert (found["newTiles"], found["kidOfNewTiles"]) == (0, {})
    assert found["kid"]["whole"]["real"] == 16


def test_what_cannot_be_measured_has_a_reason(tmp_path: Path) -> None:
    few = make_tiles(tmp_path / "few", units=2, shards=1, per_shard=4, side=SIDE)
    found = measured(few, tmp_path / "few", older(few, 1))
    assert (found["kid"], found["kidOfNewTiles"]) == ({}, {})
    assert found["reason"] == "there are fewer than 16 tiles that can be compared"
    some = make_tiles(tmp_path / "some", units=5, shards=1, per_shard=4, side=SIDE)
    found = measured(some, tmp_path / "some", older(some, 4))
    assert found["kid"]["whole"]["real"] == 20
    assert found["reason"] == "there are fewer than 16 new tiles that can be compared"
    none = make_tiles(tmp_path / "none", side=SIDE)
    found = measured(none, tmp_path / "none", None, featureExtractor="none")
    assert "featureExtractor is none" in found["reason"]


def test_samples_have_the_stains_of_the_tiles_they_are_compared_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[int]] = []
    forward = Generator.forward

    def noting(self: Generator, *arguments: Any, **named: Any) -> Any:
        if named.get("label_B") is not None and not self.training:
            drawn.append(named["label_B"].tolist())
        return forward(self, *arguments, **named)

    tiles = make_tiles(tmp_path, units=4, shards=2, per_shard=4, side=SIDE, stains=("he", "pas"))
    before = older(tiles, 1)
    monkeypatch.setattr(Generator, "forward", noting)
    found = measured(tiles, tmp_path, before, conditional="stain")
    assert found["kid"]["whole"]["fake"] == SAMPLES
    # All tiles first (both stains), then those of the new slides: two of them "pas", one "he".
    labels = [label for batch in drawn for label in batch]
    everything, new = labels[-2 * SAMPLES : -SAMPLES], labels[-SAMPLES:]
    assert set(everything) == {0, 1}
    assert new.count(1) > new.count(0)


def test_tiles_of_a_stain_the_generator_does_not_know_are_left_out() -> None:
    import pyarrow as pa

    index = pa.table({"stain": ["pas", None, "jones", "he"]})
    found = labels_of(index, ("he", "pas"))
    assert found is not None
    assert found.tolist() == [1, -1, -1, 0]
    assert labels_of(index, ()) is None


def test_new_rows_are_those_of_slides_that_were_not_there(tmp_path: Path) -> None:
    tiles = make_tiles(tmp_path, units=3, shards=1, per_shard=2, side=SIDE)
    index = load_index(tiles.artifact)
    assert new_rows(index, None).tolist() == []
    assert new_rows(index, index).tolist() == []
    assert new_rows(index, index.slice(0, 2)).tolist() == [2, 3, 4, 5]
