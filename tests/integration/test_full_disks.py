"""Full disks are ordinary errors of every stage: exit code 69, nothing committed is harmed, and as
soon as there is space the same request goes on and ends with the same bytes."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest

from hdgan.classifier.stage import CLASSIFIER
from hdgan.core.request import REQUEST_VARIABLE, StageRequest, parse_request
from hdgan.core.stage import Stage, run_stage
from hdgan.extractor.stage import EXTRACTOR
from hdgan.gan_trainer.stage import GAN_TRAINER
from hdgan.synthesizer.stage import CANDIDATES, DATASET
from hdgan.tiler.stage import TILER
from support.small_disk import MB, SmallDisk, small_disk
from support.small_pipeline import HDGAN, SmallPipeline

ROOM = 64 * MB


@dataclass(frozen=True)
class Case:
    """A stage and how much space it is left, in bytes, to run out of it half-way."""

    stage: Stage
    store: int
    scratch: int | None
    """None: it writes nothing there."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """What is changed to make it quick; then it is made once undisturbed, to compare with."""


QUICK_TRAINING = {
    "kimg": 0.04,
    "snapshotKimg": 0.016,
    "metricKimg": 0.0,
    "featureExtractor": "none",
}
CASES = (
    Case(TILER, 1 * MB, 200_000),
    Case(GAN_TRAINER, 300_000, 60_000, QUICK_TRAINING),
    Case(CANDIDATES, 20_000, None, {"count": 12}),
    Case(EXTRACTOR, 0, 300_000),
    Case(CLASSIFIER, 60_000, 40_000, {"epochs": 1, "members": 1}),
    Case(DATASET, 40_000, 8_000),
)


@dataclass(frozen=True)
class Bench:
    """A stage's request, with store and scratch on small disks."""

    case: Case
    request: StageRequest
    store: SmallDisk
    scratch: SmallDisk

    def run(self) -> tuple[int, dict[str, Any]]:
        """Exit code and last event of the stage, in this process."""
        return run(self.case.stage, self.request, self.store.root.with_name("request.json"))

    def clear(self) -> None:
        self.store.clear()
        self.scratch.clear()


def run(stage: Stage, request: StageRequest, file: Path) -> tuple[int, dict[str, Any]]:
    file.write_text(request.model_dump_json(by_alias=True))
    out = io.StringIO()
    code = run_stage((stage,), {REQUEST_VARIABLE: str(file)}, out)
    return code, json.loads(out.getvalue().splitlines()[-1])


def made(request: StageRequest) -> object:
    """Content digest of what a stage has made, or of each of its feature shards."""
    if request.stage == "extractor":
        index = Path(request.scratch) / "features" / request.key / "index.json"
        found = json.loads(index.read_text())
        return sorted((one["id"], one["shardSha256"]) for one in found["images"])
    store = Path(request.store.removeprefix("file://"))
    manifest = store / "artifacts" / request.stage / request.key / "manifest.json"
    return json.loads(manifest.read_text())["contentDigest"]


def committed(store: SmallDisk) -> dict[str, bytes]:
    """All files of artifacts and releases that exist."""
    return {
        str(path.relative_to(store.folder)): path.read_bytes()
        for top in ("artifacts", "datasets", "annotations")
        for path in store.folder.glob(f"{top}/**/*")
        if path.is_file()
    }


def prepared(run: SmallPipeline, case: Case, store: Path, scratch: Path) -> StageRequest:
    """The stage's request of the finished run, with what it needs on other disks."""
    name = case.stage.name
    file = run.scratch / "requests" / "cut" / f"{name}.json"
    request = parse_request(file.read_bytes())
    left_out = {name, "dataset", "work"} | ({"slide-tiles"} if case.stage is TILER else set())
    shutil.copytree(
        run.store, store, ignore=lambda _, names: left_out & set(names), dirs_exist_ok=True
    )
    shutil.copytree(run.store / "work" / "slides", store / "work" / "slides")
    if case.stage is CLASSIFIER:
        shutil.copytree(run.scratch / "features", scratch / "features")
    return request.model_copy(
        update={
            "store": store.as_uri(),
            "scratch": str(scratch),
            "config": {**request.config, **case.config},
            "key": "ab" * 32 if case.config else request.key,
        }
    )


@pytest.fixture(params=CASES, ids=lambda case: case.stage.name)
def bench(
    request: pytest.FixtureRequest, finished_run: SmallPipeline, tmp_path: Path
) -> Iterator[Bench]:
    case: Case = request.param
    with (
        small_disk(tmp_path / "store-disk", ROOM) as store,
        small_disk(tmp_path / "scratch-disk", ROOM) as scratch,
    ):
        asked = prepared(finished_run, case, store.folder, scratch.folder)
        yield Bench(case, asked, store, scratch)


def undisturbed(finished_run: SmallPipeline, case: Case, folder: Path) -> object:
    """What the stage makes where nothing is in its way."""
    if case.config:
        request = prepared(finished_run, case, folder / "store", folder / "scratch")
        assert run(case.stage, request, folder / "request.json")[0] == 0
    else:
        file = finished_run.scratch / "requests" / "cut" / f"{case.stage.name}.json"
        request = parse_request(file.read_bytes())
    return made(request)


def test_a_full_disk_is_an_error_that_ends_when_there_is_space(
    bench: Bench, finished_run: SmallPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = bench.case
    before = committed(bench.store)
    usage = shutil.disk_usage

    def fails(where: str) -> None:
        code, last = bench.run()
        assert (code, last["event"]) == (69, "error"), (where, last)
        assert last["error"] == "NoSpace", (where, last)
        assert re.search(r"No space left| free (in|on) ", last["message"]), (where, last)
        after = committed(bench.store)
        assert before.items() <= after.items(), where
        bench.clear()

    bench.store.fill()
    fails("store full")
    bench.scratch.fill()
    if case.scratch is not None:
        fails("scratch full")
    # Others may fill a disk after it was looked at.
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(place)._replace(free=10**9))
    if case.scratch is not None:
        bench.scratch.fill(leave=case.scratch)
        fails("scratch full half-way")
    if case.store:
        bench.store.fill(leave=case.store)
        fails("store full half-way")
    monkeypatch.undo()

    code, last = bench.run()
    assert (code, last["event"]) == (0, "result"), last
    assert made(bench.request) == undisturbed(finished_run, case, tmp_path)
    left = [str(path) for path in bench.store.folder.rglob(".hdgan-tmp-*")]
    assert left == []


def test_commands_that_write_for_people_say_it_too(
    finished_run: SmallPipeline, tmp_path: Path
) -> None:
    dataset = finished_run.manifests()
    artifact = next(name for name in dataset if name.startswith("artifacts/dataset/"))
    uri = (finished_run.store / artifact).parent.as_uri()
    with small_disk(tmp_path / "disk", 16 * MB) as disk:
        out = disk.folder
        report = out / "report.html"
        report.write_text("the report of last week")
        commands = {
            "pictures": ("annotations", "export", "run.yaml", out / "pictures"),
            "report": ("report", "run.yaml", "--out", report),
            "folders": ("dataset", "export", uri, out / "folders"),
            "dataset": ("run", "run.yaml", "--dataset", out / "dataset"),
        }
        for what, command in commands.items():
            disk.fill()
            ended = finished_run.hdgan(*command)
            assert ended.code == 69, (what, ended)
            assert re.search(r"No space left| are free", ended.err), (what, ended)
            assert "Traceback" not in ended.err
        assert report.read_text() == "the report of last week"
        assert list(out.rglob("*.png")) == []
        disk.clear()
        for what, command in commands.items():
            ended = finished_run.hdgan(*command)
            assert ended.code == 0, (what, ended)
        assert "<html" in report.read_text()
    with Path("/dev/full").open("w") as full:
        ended_at_once = subprocess.run(
            [HDGAN, "status", finished_run.run_file], stdout=full, stderr=PIPE, check=False
        )
    assert ended_at_once.returncode == 69, ended_at_once.stderr
    assert b"cannot write the output: No space left" in ended_at_once.stderr
