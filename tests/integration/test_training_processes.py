"""The trainer in two processes, each doing its share in pieces, stopped and killed at random."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from hdgan.core.observe import observe, pin_external
from hdgan.core.pipeline import BY_NAME, stage_request
from hdgan.core.request import StageRequest
from hdgan.core.run import load_run, resolve
from hdgan.core.store import open_store
from support.small_pipeline import SmallPipeline
from support.stage_process import Finished, finish, start_service

ENOUGH_SECONDS = 300
GRACE = {"HDGAN_GRACE_SECONDS": "60"}


@pytest.fixture
def request_for_two(finished_run: SmallPipeline) -> StageRequest:
    """Train on the finished run's tiles, in two processes and in pieces of four images."""
    document = resolve(load_run(finished_run.run_file))
    store = open_store(finished_run.store.as_uri())
    external = pin_external(store, document, save=False)
    request = stage_request(
        BY_NAME["gan-trainer"],
        document,
        external,
        observe(store, document, external),
        store=finished_run.store.as_uri(),
        scratch=str(finished_run.scratch),
    )
    config = {**request.config, "batch": 16, "perDeviceBatch": 4, "kimg": 0.32}
    return request.model_copy(
        update={
            "config": config,
            "context": {**request.context, "processes": 2, "peerTimeoutSeconds": 60},
            "threads": 2,
        }
    )


def with_key(request: StageRequest, number: int, scratch: Path) -> StageRequest:
    """The same work under a key of its own, so that it is done again."""
    return request.model_copy(update={"key": f"{number:064x}", "scratch": str(scratch)})


def digest(request: StageRequest) -> str:
    manifest = Path(request.store.removeprefix("file://"), "artifacts", request.stage)
    document = json.loads((manifest / request.key / "manifest.json").read_text())
    return str(document["contentDigest"])


def interrupted(
    request: StageRequest, folder: Path, kimg: float, number: int, *, follower: bool = False
) -> Finished:
    """Start, and send the signal (to the other process, if `follower`) once `kimg` is reached."""
    process = start_service(request, folder, **GRACE)
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "progress" and event["unit"] == "kimg" and event["done"] >= kimg:
            break
    others = children(process.pid)
    assert len(others) == 1
    os.kill(others[0] if follower else process.pid, number)
    result = finish(process, timeout=ENOUGH_SECONDS)
    # Nobody is left behind.
    deadline = time.monotonic() + 20
    while Path(f"/proc/{others[0]}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{others[0]}").exists()
    return result


def children(pid: int) -> list[int]:
    """Processes that `pid`'s threads have started."""
    return [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]


def test_two_processes_end_with_the_same_bits_however_often_they_are_ended(
    request_for_two: StageRequest, tmp_path: Path
) -> None:
    whole = with_key(request_for_two, 1, tmp_path / "a")
    result = finish(start_service(whole, tmp_path), timeout=ENOUGH_SECONDS)
    assert result.code == 0, result
    broken = with_key(request_for_two, 2, tmp_path / "b")
    points = random.Random(0)
    stopped = interrupted(broken, tmp_path, points.uniform(0.02, 0.1), signal.SIGTERM)
    assert stopped.code == 75, stopped
    state = tmp_path / "state"
    work = Path(broken.store.removeprefix("file://"), "work", "gan-trainer")
    shutil.copytree(work / broken.key, state)
    killed = interrupted(broken, tmp_path, points.uniform(0.12, 0.2), signal.SIGKILL)
    assert killed.code == -signal.SIGKILL, killed
    lost = interrupted(broken, tmp_path, points.uniform(0.22, 0.28), signal.SIGKILL, follower=True)
    assert lost.code == 70, lost
    assert "training process 1 of this machine" in lost.last("error")["message"]
    again = finish(start_service(broken, tmp_path), timeout=ENOUGH_SECONDS)
    assert again.code == 0, again
    assert any("resumed at" in event["message"] for event in again.all("log"))
    assert digest(broken) == digest(whole)
    # Another process count: the same but for rounding, and it says what has changed.
    alone = with_key(request_for_two, 3, tmp_path / "c")
    alone = alone.model_copy(update={"context": {**alone.context, "processes": 1}})
    shutil.copytree(state, work / alone.key)
    finished = finish(start_service(alone, tmp_path), timeout=ENOUGH_SECONDS)
    assert finished.code == 0, finished
    messages = [event["message"] for event in finished.all("log")]
    assert any("processes was 2, is 1" in message for message in messages), messages


def test_a_process_that_hangs_ends_all_in_bounded_time(
    request_for_two: StageRequest, tmp_path: Path
) -> None:
    request = with_key(request_for_two, 5, tmp_path / "e")
    request = request.model_copy(update={"context": {**request.context, "peerTimeoutSeconds": 15}})
    started = time.monotonic()
    result = interrupted(request, tmp_path, 0.05, signal.SIGSTOP, follower=True)
    assert result.code == 70, result
    assert "did not answer in time" in result.last("error")["message"]
    # Nobody waited for gloo's own half hour; the start of the service is in it, too.
    assert time.monotonic() - started < 120


def test_what_one_process_finds_wrong_ends_all_with_its_exit_code(
    request_for_two: StageRequest, tmp_path: Path
) -> None:
    request = with_key(request_for_two, 4, tmp_path / "d")
    config = {**request.config, "batch": 4, "minibatchStdGroup": 4}
    result = finish(
        start_service(request.model_copy(update={"config": config}), tmp_path),
        timeout=ENOUGH_SECONDS,
    )
    assert result.code == 64, result
    assert "2 processes cannot share a batch of 4 images" in result.last("error")["message"]
