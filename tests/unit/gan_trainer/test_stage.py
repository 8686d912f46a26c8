"""The stage as a whole: every kind of training ends with its artifact, however it was stopped."""

from __future__ import annotations

import io
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hdgan.core.artifact import Artifact, open_artifact
from hdgan.core.request import StageRequest
from hdgan.core.store import open_store
from hdgan.gan_trainer import measuring, stage
from hdgan.gan_trainer.data import TileStream
from hdgan.gan_trainer.metrics.memorisation import Thumbnails
from hdgan.gan_trainer.metrics.real_features import tile_features
from hdgan.gan_trainer.state import save_state
from hdgan.gan_trainer.training import Training
from support.gan_stage import SIDE, gan_request, run_here
from support.tile_artifacts import make_tiles


def artifact_of(request: StageRequest) -> Artifact:
    found = open_artifact(open_store(request.store), request.stage, request.key)
    assert found is not None
    return found


def saved_states(request: StageRequest) -> list[str]:
    keys = open_store(request.store).list(f"work/gan-trainer/{request.key}/")
    return [key.rpartition("/")[2] for key in keys if "/state-" in key]


@pytest.fixture
def measured_by_thumbnails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A feature extractor that needs no download: thumbnails, under another digest."""

    class Small(Thumbnails):
        digest = "5" * 64

    monkeypatch.setattr(measuring, "open_extractor", lambda *_: Small())


@pytest.mark.usefixtures("measured_by_thumbnails")
def test_a_conditional_training_draws_and_keeps_every_label(tmp_path: Path) -> None:
    tiles = make_tiles(tmp_path, side=SIDE, stains=("HE", "PAS"), per_shard=10, folds=2)
    request = gan_request(
        tiles,
        tmp_path / "scratch",
        conditional="stain",
        holdoutFold=0,
        featureExtractor="efficientnet-lite0",
    )
    result = run_here(request, tmp_path)
    assert result.code == 0, result.events
    artifact = artifact_of(request)
    architecture = json.loads(artifact.read("architecture.json"))
    assert architecture["labels"] == ["HE", "PAS"]
    with Image.open(io.BytesIO(artifact.read("samples.png"))) as picture:
        assert picture.size == (8 * SIDE, 8 * SIDE)
    records = [json.loads(line) for line in artifact.read("metrics.jsonl").splitlines()]
    assert [record["kimg"] for record in records] == [0.016, 0.032, 0.048]
    assert all(record["kidSamples"] == 16 for record in records)
    best = min(records, key=lambda record: record["kid"])
    assert json.loads(artifact.read("best/record.json")) == best
    # Nothing is left on scratch, nor any training state.
    assert list((tmp_path / "scratch").glob("gan-trainer-*")) == []
    assert saved_states(request) == []


@pytest.mark.usefixtures("measured_by_thumbnails")
def test_training_on_everything_measures_nothing_and_says_why(tmp_path: Path) -> None:
    tiles = make_tiles(tmp_path, side=SIDE)
    request = gan_request(
        tiles, tmp_path / "scratch", holdoutFold=-1, featureExtractor="efficientnet-lite0"
    )
    result = run_here(request, tmp_path)
    assert result.code == 0, result.events
    evaluation = json.loads(artifact_of(request).read("evaluation.json"))
    assert evaluation["kid"] == {"whole": None}
    assert "nothing to compare with" in evaluation["reason"]


@pytest.mark.parametrize(
    "settings",
    [
        {"augment": "noaug"},
        {"augment": "fixed", "augmentP": 1.0},
        {"augment": "ada", "adaInterval": 3},
        {"perDeviceBatch": 4, "precision": "bfloat16"},
    ],
    ids=["noaug", "fixed", "ada", "pieces"],
)
@pytest.mark.usefixtures("measured_by_thumbnails")
def test_stopped_after_any_step_it_ends_with_the_same_bytes(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles = make_tiles(tmp_path, side=SIDE, per_shard=10, folds=2)
    # The best of all measurements is made before the stops.
    measured = {"featureExtractor": "efficientnet-lite0", "metricKimg": 0.008, "holdoutFold": 0}
    every = {**measured, **settings}
    whole = gan_request(tiles, tmp_path / "a", **every)
    assert run_here(whole, tmp_path).code == 0
    broken = gan_request(tiles, tmp_path / "b", **every)
    step = Training.step
    for stop_at in np.random.default_rng(0).permutation(6)[:3].tolist():

        def step_and_signal(
            self: Training, *args: Any, stop_at: int = stop_at, **kwargs: Any
        ) -> dict[str, float]:
            result = step(self, *args, **kwargs)
            if self.steps == stop_at + 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return result

        with monkeypatch.context() as patch:
            patch.setattr(Training, "step", step_and_signal)
            stopped = run_here(broken, tmp_path)
        # 0 where an earlier stop was beyond this step already.
        assert stopped.code in (75, 0), stopped.events
        if stopped.code == 0:
            break
        assert f"state-{8 * (stop_at + 1):012d}.json" in saved_states(broken)
    assert run_here(broken, tmp_path).code == 0
    assert artifact_of(broken).content_digest == artifact_of(whole).content_digest


def test_a_stop_while_it_waits_for_tiles_saves_what_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles = make_tiles(tmp_path, side=SIDE)
    request = gan_request(tiles, tmp_path / "scratch")
    ready = TileStream.ready

    def never(self: TileStream, first: int, *args: Any) -> bool:
        if first < 16:
            return ready(self, first, *args)
        os.kill(os.getpid(), signal.SIGTERM)
        return False

    monkeypatch.setattr(TileStream, "ready", never)
    result = run_here(request, tmp_path)
    assert result.code == 75, result.events
    assert saved_states(request) == ["state-000000000016.json"]


@pytest.mark.usefixtures("measured_by_thumbnails")
def test_a_stop_while_real_tiles_are_measured_saves_what_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles = make_tiles(tmp_path, side=SIDE, per_shard=10, folds=2)
    request = gan_request(
        tiles, tmp_path / "scratch", holdoutFold=0, featureExtractor="efficientnet-lite0"
    )

    def signalled(*args: Any, **kwargs: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return tile_features(*args, **kwargs)

    monkeypatch.setattr(measuring, "tile_features", signalled)
    result = run_here(request, tmp_path)
    assert result.code == 75, result.events
    assert saved_states(request) == ["state-000000000016.json"]


def test_state_is_saved_when_a_quarter_of_an_hour_would_be_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stage.SAVE_SECONDS < 15 * 60
    tiles = make_tiles(tmp_path, side=SIDE)
    request = gan_request(tiles, tmp_path / "scratch")
    saved: list[int] = []

    def noted(work: Any, training: Training, *args: Any, **kwargs: Any) -> None:
        saved.append(training.images)
        save_state(work, training, *args, **kwargs)

    monkeypatch.setattr(stage, "SAVE_SECONDS", 0)
    monkeypatch.setattr(stage, "save_state", noted)
    assert run_here(request, tmp_path).code == 0
    assert saved == [8, 16, 24, 32, 40, 48]


def test_too_few_or_wrong_tiles_are_refused_with_the_reason(tmp_path: Path) -> None:
    tiles = make_tiles(tmp_path, side=SIDE, units=1, shards=1, per_shard=4)
    result = run_here(gan_request(tiles, tmp_path / "scratch"), tmp_path)
    assert result.code == 64
    assert "fewer than ganTrainer.batch 8" in result.last("error")["message"]
    other = tmp_path / "other"
    other.mkdir()
    mixed = make_tiles(other, side=SIDE, sides={3: 32})
    result = run_here(gan_request(mixed, tmp_path / "scratch"), tmp_path)
    assert result.code == 64
    assert "has shape (32, 32, 3)" in result.last("error")["message"]
