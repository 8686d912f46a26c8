"""Training on several machines, and under torchrun: each machine is a group of processes here."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from hdgan.core.artifact import open_artifact
from hdgan.core.errors import RequestError
from hdgan.core.machines import leads
from hdgan.core.request import StageRequest
from hdgan.core.store import open_store
from hdgan.gan_trainer.local_ranks import place
from support.gan_stage import SIDE, gan_request
from support.stage_process import TESTS, finish, start_service
from support.tile_artifacts import make_tiles

ENOUGH_SECONDS = 300


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def committed_by(request: StageRequest) -> int:
    """How many processes trained the artifact."""
    artifact = open_artifact(open_store(request.store), request.stage, request.key)
    assert artifact is not None
    return int(artifact.run_info()["processes"])


def test_two_machines_of_two_processes_train_one_generator_and_both_end_well(
    tmp_path: Path,
) -> None:
    tiles = make_tiles(tmp_path, side=SIDE)
    port = free_port()
    started = []
    for node in range(2):
        folder = tmp_path / f"machine-{node}"
        folder.mkdir()
        request = gan_request(
            tiles, tmp_path / "scratch", {"processes": 2, "peerTimeoutSeconds": 120}, batch=16
        ).model_copy(update={"scratch": str(folder / "scratch"), "threads": 2})
        environ = {
            "HDGAN_NODES": "2",
            "JOB_COMPLETION_INDEX": str(node),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        started.append(start_service(request, folder, **environ))
    results = [finish(process, ENOUGH_SECONDS) for process in started]
    assert [result.code for result in results] == [0, 0], results
    # Only the first machine reports.
    assert results[0].all("result")
    assert results[0].all("progress")
    assert not results[1].all("result")
    assert not results[1].all("progress")
    assert committed_by(request) == 4


def test_under_torchrun_its_processes_train_together(tmp_path: Path) -> None:
    tiles = make_tiles(tmp_path, side=SIDE)
    request = gan_request(tiles, tmp_path / "scratch", {"peerTimeoutSeconds": 120}, batch=16)
    path = tmp_path / "request.json"
    path.write_text(request.model_dump_json(by_alias=True))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc-per-node=2",
            f"--master-port={free_port()}",
            "-m",
            "hdgan.gan_trainer",
        ],
        env={**os.environ, "HDGAN_REQUEST": str(path), "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=ENOUGH_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = [line for line in done.stdout.splitlines() if '"event": "result"' in line]
    assert len(results) == 1
    assert json.loads(results[0])["contentDigest"]
    assert committed_by(request) == 2


@pytest.mark.parametrize(
    ("local", "environ", "expected"),
    [
        (1, {}, None),
        (4, {"RANK": "3", "WORLD_SIZE": "4"}, None),
        (4, {}, {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1"}),
        (
            2,
            {
                "HDGAN_NODES": "3",
                "JOB_COMPLETION_INDEX": "2",
                "MASTER_ADDR": "a",
                "MASTER_PORT": "9",
            },
            {"RANK": "5", "WORLD_SIZE": "6", "LOCAL_RANK": "1", "MASTER_ADDR": "a"},
        ),
        (
            1,
            {"HDGAN_NODES": "2", "HDGAN_NODE_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "9"},
            {"RANK": "2", "LOCAL_WORLD_SIZE": "1"},
        ),
    ],
)
def test_where_a_process_stands(
    local: int, environ: Mapping[str, str], expected: Mapping[str, str] | None
) -> None:
    found = place(local, environ)
    if expected is None:
        assert found is None
    else:
        assert found is not None
        variables = found.variables(1)
        assert {name: variables[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"HDGAN_NODES": "0"}, "at least 1"),
        ({"HDGAN_NODES": "two"}, "whole number"),
        ({"HDGAN_NODES": "2"}, "HDGAN_NODE_RANK"),
        ({"HDGAN_NODES": "2", "HDGAN_NODE_RANK": "2"}, "use 0 to 1"),
        ({"HDGAN_NODES": "2", "HDGAN_NODE_RANK": "0"}, "MASTER_ADDR"),
    ],
)
def test_machines_that_cannot_find_each_other_are_refused(
    environ: Mapping[str, str], says: str
) -> None:
    with pytest.raises(RequestError, match=says):
        place(2, environ)


def test_one_process_of_all_leads() -> None:
    assert leads({})
    assert leads({"RANK": "0", "HDGAN_NODES": "2", "HDGAN_NODE_RANK": "1"})
    assert not leads({"RANK": "1"})
    assert not leads({"HDGAN_NODES": "2", "JOB_COMPLETION_INDEX": "1"})
    assert leads({"HDGAN_NODES": "2", "JOB_COMPLETION_INDEX": "0"})
