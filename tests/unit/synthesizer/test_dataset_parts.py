"""Parts of a dataset as processes: however many, killed, stopped, or run twice at the same time,
they give the bytes of one process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hdgan.core.artifact import Artifact
from hdgan.core.dataset import check_dataset
from hdgan.core.request import StageRequest
from support.dataset_stage import KEY, DatasetStage, dataset_stage
from support.stage_process import finish, start_signalled

# 10 shards of 2 pairs; with 8 parts all have work, and two have twice as much.
CONFIG: dict[str, Any] = {
    "shardSize": 2,
    "quotas": [{"class": "light", "minFraction": 0.5, "share": 0.5}],
    "ignoreAbove": 0.3,
}
CALIBRATION = 20  # labellings before the first draw of a shard


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Made by one process, in one go."""
    return dataset_stage(tmp_path_factory.mktemp("whole")).made(config=CONFIG)


@pytest.fixture
def stage(tmp_path: Path) -> DatasetStage:
    return dataset_stage(tmp_path)


def run_all(stage: DatasetStage, request: StageRequest) -> None:
    """Run every part that is not finished yet, one after the other."""
    for part in range(request.parts):
        code, out = stage.run(request, part)
        assert code == 0, out


def commit(stage: DatasetStage, request: StageRequest) -> Artifact:
    code, out = stage.run(request.model_copy(update={"commit": True}))
    assert code == 0, out
    made = stage.artifact()
    assert made is not None
    return made


def signalled(
    stage: DatasetStage,
    request: StageRequest,
    name: str,
    function: str,
    call: int,
    part: int = 0,
) -> subprocess.Popen[str]:
    """A part (or the commit) as a process, to be signalled before that call."""
    environ = {} if request.commit else {"JOB_COMPLETION_INDEX": str(part)}
    return start_signalled(request, stage.folder, name, function, call, **environ)


def wait_until_stopped(process: subprocess.Popen[str]) -> None:
    """Wait until a process has been stopped by SIGSTOP."""
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), finish(process)


def assert_same(made: Artifact, whole: Artifact) -> None:
    """Same names, sizes and digests of all files, and the same index; every pair once."""
    files = [(one.name, one.size, one.sha256) for one in made.manifest.files]
    assert files == [(one.name, one.size, one.sha256) for one in whole.manifest.files]
    assert sum(name.endswith(".tar") for name, _, _ in files) == 10
    assert made.content_digest == whole.content_digest
    assert made.read("index.parquet") == whole.read("index.parquet")
    summary = check_dataset(f"{made.store.uri}/artifacts/dataset/{KEY}")
    assert (summary.pairs, summary.shards) == (20, 10)
    manifests = [key for key in made.store.list("artifacts/dataset/") if "manifest" in key]
    assert manifests == [f"artifacts/dataset/{KEY}/manifest.json"]


@pytest.mark.parametrize("parts", [1, 3, 8])
def test_any_number_of_parts_gives_the_same_files(
    stage: DatasetStage, whole: Artifact, parts: int
) -> None:
    request = stage.request(config=CONFIG, parts=parts)
    for part in reversed(range(parts)):
        code, out = stage.run(request, part)
        assert code == 0, out
        assert (stage.artifact() is None) == (parts > 1)
    assert_same(commit(stage, request), whole)
    assert list(stage.store.list("work/")) == []
    assert [path for path in (stage.folder / "scratch").rglob("*") if path.is_file()] == []


def test_parts_killed_and_stopped_in_a_shard_go_on_and_give_the_same_files(
    stage: DatasetStage, whole: Artifact
) -> None:
    request = stage.request(config=CONFIG, parts=3)
    killed = finish(signalled(stage, request, "SIGKILL", "label", CALIBRATION + 6), timeout=60)
    assert killed.code == -signal.SIGKILL, killed
    # The calibration is kept by now: labellings are draws at once.
    stopped = finish(signalled(stage, request, "SIGTERM", "label", 6, part=1), timeout=60)
    assert stopped.code == 75, stopped
    for part in (0, 1):
        code, out = stage.run(request, part)
        assert code == 0, out
        assert "taking over 20 calibration images" in out
        assert re.search(r"taking over \d pairs of shard", out), out
    run_all(stage, request)
    assert_same(commit(stage, request), whole)
    assert list(stage.store.list("work/")) == []


def test_a_commit_killed_anywhere_is_run_again_and_gives_the_same_files(
    stage: DatasetStage, whole: Artifact
) -> None:
    request = stage.request(config=CONFIG, parts=2)
    run_all(stage, request)
    merging = request.model_copy(update={"commit": True})

    def killed(function: str, call: int) -> None:
        ended = finish(signalled(stage, merging, "SIGKILL", function, call), timeout=60)
        assert ended.code == -signal.SIGKILL, ended

    killed("put", 4)  # the first is a probe
    killed("put_if_absent", 1)
    assert stage.artifact() is None
    killed("delete", 3)  # the manifest is there, the records of the shards are being cleared away
    assert stage.artifact() is not None
    assert list(stage.store.list("work/")) != []
    assert_same(commit(stage, request), whole)
    assert list(stage.store.list("work/")) == []


@pytest.mark.parametrize("call", [CALIBRATION // 2, CALIBRATION + 7])
def test_a_part_run_twice_at_the_same_time_gives_the_same_files(
    stage: DatasetStage, whole: Artifact, call: int
) -> None:
    """One of the two stands still, in its calibration or in a shard, while the other takes over
    what it has saved, ends, and clears that away."""
    request = stage.request(config=CONFIG, parts=2)
    slow = signalled(stage, request, "SIGSTOP", "label", call)
    wait_until_stopped(slow)
    code, out = stage.run(request, 0)
    assert code == 0, out
    assert "taking over" in out
    slow.send_signal(signal.SIGCONT)
    ended = finish(slow, timeout=60)
    assert ended.code == 0, ended
    run_all(stage, request)
    assert_same(commit(stage, request), whole)
    assert list(stage.store.list("work/")) == []


def test_a_part_that_ends_after_the_commit_changes_nothing(
    stage: DatasetStage, whole: Artifact
) -> None:
    request = stage.request(config=CONFIG, parts=2)
    late = signalled(stage, request, "SIGSTOP", "label", CALIBRATION + 7)
    wait_until_stopped(late)
    run_all(stage, request)
    made = commit(stage, request)
    late.send_signal(signal.SIGCONT)
    ended = finish(late, timeout=60)
    assert ended.code == 0, ended
    assert list(stage.store.list("work/")) == []
    again = commit(stage, request)
    assert again.manifest == made.manifest
    assert_same(again, whole)
