"""Every stage may be stopped or killed at any moment and ends with the same bytes all the same."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from hdgan.core.observe import observe, pin_external
from hdgan.core.pipeline import BY_NAME, stage_request
from hdgan.core.request import StageRequest
from hdgan.core.run import load_run, resolve
from hdgan.core.store import open_store
from support.small_pipeline import SmallPipeline
from support.stage_process import Finished, finish, start_service

GRACE_SECONDS = 20
ENOUGH_SECONDS = 600


@dataclass(frozen=True)
class Case:
    """A stage, the unit of its real work, and what it says when it goes on from saved work."""

    stage: str
    unit: str
    resumed: str | None = None
    """Pattern of the log line that says so; None: the stage begins a slide anew."""


CASES = (
    Case("tiler", "tiles"),
    Case("gan-trainer", "kimg", r"resumed at 0\.\d"),
    Case("candidates", "images", r"taking over [1-9]\d* finished images"),
    Case("extractor", "images", r"[1-5] images made now"),
    Case("classifier", "steps (features)", r"going on from step [1-9]"),
    Case("dataset", "calibration images", r"taking over [1-9]\d* calibration images"),
)


@dataclass(frozen=True)
class Copy:
    """A copy of a finished run that lacks one stage's output, and the request to make it again."""

    request: StageRequest
    folder: Path
    expected: Mapping[str, str]

    def start_and_signal(self, unit: str, number: signal.Signals) -> Finished:
        """Start the stage; send the signal as soon as real work has been done."""
        process = start_service(self.request, self.folder, HDGAN_GRACE_SECONDS=str(GRACE_SECONDS))
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            seen.append(line)
            event = json.loads(line)
            if event["event"] == "progress" and event["unit"] == unit:
                break
        else:
            pytest.fail(f"no progress in {unit!r}: {seen} {finish(process).stderr}")
        process.send_signal(number)
        return finish(process, timeout=ENOUGH_SECONDS)

    def start_again(self) -> Finished:
        return finish(start_service(self.request, self.folder), timeout=ENOUGH_SECONDS)

    def digests(self) -> dict[str, str]:
        return digests(Path(self.request.scratch), self.folder / "store", self.request)


def digests(scratch: Path, store: Path, request: StageRequest) -> dict[str, str]:
    """What the stage has made: its content digest, or that of each feature shard."""
    if request.stage == "extractor":
        index = json.loads((scratch / "features" / request.key / "index.json").read_text())
        shards = {one["id"]: one["shardSha256"] for one in index.pop("images")}
        return shards | {"index": json.dumps(index, sort_keys=True)}
    manifest = store / "artifacts" / request.stage / request.key / "manifest.json"
    return {"content": json.loads(manifest.read_text())["contentDigest"]}


def copy_without(run: SmallPipeline, stage: str, folder: Path) -> Copy:
    """The run's store without what the stage made or saved, on a scratch with what it needs."""
    document = resolve(load_run(run.run_file))
    original = open_store(run.store.as_uri())
    external = pin_external(original, document, save=False)
    request = stage_request(
        BY_NAME[stage],
        document,
        external,
        observe(original, document, external),
        store=(folder / "store").as_uri(),
        scratch=str(folder / "scratch"),
    )
    left_out = {stage, "dataset"} | ({"slide-tiles"} if stage == "tiler" else set())
    shutil.copytree(run.store, folder / "store", ignore=lambda _, names: left_out & set(names))
    (folder / "scratch").mkdir()
    if stage == "classifier":
        shutil.copytree(run.scratch / "features", folder / "scratch" / "features")
    return Copy(request, folder, digests(run.scratch, run.store, request))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stage)
def test_a_stage_told_to_stop_saves_and_ends_the_same(
    finished_run: SmallPipeline, case: Case, tmp_path: Path
) -> None:
    copy = copy_without(finished_run, case.stage, tmp_path)
    stopped = copy.start_and_signal(case.unit, signal.SIGTERM)
    assert stopped.code == 75, stopped
    assert stopped.last("error")["error"] == "Stopped"
    again = copy.start_again()
    assert again.code == 0, again
    if case.resumed is not None:
        messages = [event["message"] for event in again.all("log")]
        assert any(re.search(case.resumed, message) for message in messages), messages
    assert copy.digests() == copy.expected


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stage)
def test_a_killed_stage_ends_the_same(
    finished_run: SmallPipeline, case: Case, tmp_path: Path
) -> None:
    copy = copy_without(finished_run, case.stage, tmp_path)
    killed = copy.start_and_signal(case.unit, signal.SIGKILL)
    assert killed.code == -signal.SIGKILL, killed
    again = copy.start_again()
    assert again.code == 0, again
    assert copy.digests() == copy.expected
