"""A dataset is the same bytes whatever stops those who make it, and says how it was made."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from hdgan.core.artifact import Artifact
from hdgan.core.dataset import check_dataset
from hdgan.core.pieces import Pieces
from hdgan.core.work import WorkState
from hdgan.nets.ensemble import PixelEnsemble
from hdgan.nets.labelling import LabelledImage, Labeller
from hdgan.synthesizer import dataset, unfinished
from support.dataset_stage import KEY, DatasetStage, dataset_stage
from support.stage_process import finish, start_service

QUOTA = {"class": "light", "minFraction": 0.5, "share": 0.5}
CONFIG: dict[str, Any] = {"quotas": [QUOTA], "ignoreAbove": 0.3}


class Killed(BaseException):
    """What a process that is killed does not catch."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Made by one process, in one go."""
    return dataset_stage(tmp_path_factory.mktemp("whole")).made(config=CONFIG)


@pytest.fixture
def stage(tmp_path: Path) -> DatasetStage:
    return dataset_stage(tmp_path)


@pytest.fixture
def killed_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make the n-th labelling from now on end the process the hard way."""
    label = Labeller.label
    left = [-1]

    def dying(self: Labeller, *args: Any, **kwargs: Any) -> LabelledImage:
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        return label(self, *args, **kwargs)

    monkeypatch.setattr(Labeller, "label", dying)
    return lambda labellings: left.__setitem__(0, labellings)


def make_parts(stage: DatasetStage, parts: int) -> Artifact:
    request = stage.request(config=CONFIG, parts=parts)
    for part in range(parts):
        code, out = stage.run(request, part)
        assert code == 0, out
        assert stage.artifact() is None
    code, out = stage.run(request.model_copy(update={"commit": True}))
    assert code == 0, out
    made = stage.artifact()
    assert made is not None
    return made


def test_the_dataset_is_whole_and_says_how_it_was_thinned(whole: Artifact) -> None:
    summary = check_dataset(f"{whole.store.uri}/artifacts/dataset/{KEY}")
    assert (summary.pairs, summary.shards) == (20, 3)
    assert summary.ignored > 0
    rows = pq.read_table(io.BytesIO(whole.read("index.parquet"))).to_pylist()
    rule = json.loads(whole.read("calibration.json"))
    known = {one["acceptanceProbability"] for one in rule["categories"]}
    assert min(known) < 1
    assert {row["acceptance_probability"] for row in rows} <= known
    assert all(row["uncertainty"] <= rule["maxUncertainty"] for row in rows)
    assert len(rule["uncertainties"]) == len(rule["fractions"]["light"]) == 20
    assert "## Quotas" in whole.read("README.md").decode()
    # No thinning would give another dataset.
    assert rule["expectedAcceptance"] < 0.95 * min(known) + 0.95


def test_other_parts_take_over_what_is_there(stage: DatasetStage, whole: Artifact) -> None:
    code, _ = stage.run(stage.request(config=CONFIG, parts=3), 1)
    assert code == 0
    code, out = stage.run(stage.request(config=CONFIG))
    assert code == 0, out
    assert out.count("taking over 20 calibration images") == 1
    made = stage.artifact()
    assert made is not None
    assert made.content_digest == whole.content_digest
    attempts = {entry.attempt for entry in made.manifest.files}
    assert len(attempts) == 2


@pytest.mark.parametrize("death", [2, 24, 28])
def test_a_killed_part_goes_on_from_its_saved_pairs(
    stage: DatasetStage,
    whole: Artifact,
    killed_at: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    death: int,
) -> None:
    monkeypatch.setattr(unfinished, "SAVE_SECONDS", 0.0)  # after every draw
    request = stage.request(config=CONFIG, parts=3)
    killed_at(death)
    with pytest.raises(Killed):
        stage.run(request, 0)
    before = steps(stage)
    killed_at(3)  # two more draws, and again
    with pytest.raises(Killed):
        stage.run(request, 0)
    assert steps(stage) > before
    killed_at(-1)
    assert make_parts(stage, 3).content_digest == whole.content_digest
    assert list(stage.store.list("work/")) == []


def steps(stage: DatasetStage) -> int:
    saved = WorkState(stage.store, "dataset", f"{KEY}-part-00000-of-00003", "test").latest()
    return -1 if saved is None else saved.step


def test_saved_pairs_that_are_damaged_are_made_again(
    stage: DatasetStage,
    whole: Artifact,
    killed_at: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unfinished, "SAVE_SECONDS", 0.0)
    killed_at(33)
    with pytest.raises(Killed):
        stage.run(stage.request(config=CONFIG))
    killed_at(-1)
    chunks = [key for key in stage.store.list("work/") if "/pairs-" in key]
    assert len(chunks) > 2
    stage.store.put(chunks[1], b"something else")
    code, out = stage.run(stage.request(config=CONFIG))
    assert code == 0, out
    assert "saved pairs are lost" in out
    assert re.search(r"taking over [12] pairs of shard", out)
    made = stage.artifact()
    assert made is not None
    assert made.content_digest == whole.content_digest


def test_a_commit_names_the_shards_that_are_missing(stage: DatasetStage) -> None:
    request = stage.request(config=CONFIG, parts=2)
    commit = request.model_copy(update={"commit": True})
    code, out = stage.run(commit)
    assert code == 66
    assert "3 shards are not finished" in out
    assert stage.run(request, 0)[0] == 0
    code, out = stage.run(commit)
    assert code == 66
    assert "shard-00001 (part 1). Run their parts (of 2) again" in out
    assert stage.run(request, 1)[0] == 0
    # A finished shard whose file has gone is missing, too; its part makes it again.
    (shard,) = (key for key in stage.store.list("artifacts/dataset/") if "00002.tar" in key)
    stage.store.delete(shard)
    code, out = stage.run(commit)
    assert code == 66
    assert "shard-00002 (part 0)" in out
    assert stage.run(request, 0)[0] == 0
    assert stage.run(commit)[0] == 0


def test_pairs_are_rendered_in_the_precision_of_the_ensembles_features(
    stage: DatasetStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, seen = PixelEnsemble.load, []

    def mixed(read: Callable[[str], bytes]) -> PixelEnsemble:
        made = load(read)
        made.spec = dataclasses.replace(made.spec, precision="bfloat16")
        return made

    def generator(read: Any, device: str, precision: str) -> None:
        seen.append(precision)
        raise Killed

    monkeypatch.setattr(PixelEnsemble, "load", mixed)
    monkeypatch.setattr(dataset, "load_generator", generator)
    with pytest.raises(Killed):
        stage.run(stage.request())
    assert seen == ["bfloat16"]


def test_another_calibration_makes_shards_of_its_own(stage: DatasetStage, whole: Artifact) -> None:
    """Shards by the rule of a lost calibration never get into the dataset of another."""
    code, _ = stage.run(stage.request(config=CONFIG, parts=3), 0)
    assert code == 0
    place = f"work/dataset/{KEY}/pieces/shard-00000.json"
    record = json.loads(stage.store.get(place))
    pieces = Pieces(stage.store, "dataset", KEY)
    pieces.keep("shard-00000", record["value"] | {"calibration": "0" * 64})
    assert make_parts(stage, 3).content_digest == whole.content_digest


def test_an_unknown_class_in_a_quota_is_the_first_thing_said(stage: DatasetStage) -> None:
    code, out = stage.run(stage.request(config={"quotas": [QUOTA | {"class": "lihgt"}]}))
    assert code == 64
    assert "synthesizer.quotas[0].class: there is no class 'lihgt'" in out
    assert stage.store.head("work/dataset") is None


@pytest.mark.parametrize("parts", [1, 2])
def test_a_process_told_to_stop_in_a_shard_saves_its_pairs(stage: DatasetStage, parts: int) -> None:
    config = {"count": 4000, "shardSize": 4000, "calibration": 5}
    request = stage.request(config=config, parts=parts)
    environ = {"JOB_COMPLETION_INDEX": "0"} if parts > 1 else {}
    key = KEY if parts == 1 else f"{KEY}-part-00000-of-00002"
    work = WorkState(stage.store, "dataset", key, "test")
    reached = -1
    for _ in range(3):
        process = start_service(request, stage.folder, **environ)
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "progress" and event["unit"] == "pairs" and event["done"] > 0:
                break
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        ended = finish(process, timeout=60)
        assert ended.code == 75, ended
        saved = work.latest()
        assert saved is not None
        assert saved.step > reached
        reached = saved.step
        chunks = json.loads(saved.read("unfinished.json"))["filling"]["chunks"]
    assert len(chunks) == 3
