"""Starts stages as the processes they are, the way the runner and a container do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hdgan.core.canonical import canonical_digest
from hdgan.core.request import StageRequest

TESTS = Path(__file__).resolve().parents[1]


def fake_request(folder: Path, do: str, **changes: Any) -> StageRequest:
    """A request for the fake stage whose store and scratch lie in `folder`."""
    values: dict[str, Any] = {
        "run": "test",
        "stage": "fake",
        "service": "fake",
        "config": {"do": do},
        "key": canonical_digest([do]),
        "stage_version": 1,
        "store": (folder / "store").as_uri(),
        "scratch": str(folder / "scratch"),
    }
    return StageRequest(**(values | changes))


@dataclass(frozen=True)
class Finished:
    """What a stage's process left behind."""

    code: int
    events: list[dict[str, Any]]
    stderr: str

    def last(self, event: str) -> dict[str, Any]:
        return self.all(event)[-1]

    def all(self, event: str) -> list[dict[str, Any]]:
        return [item for item in self.events if item["event"] == event]


def start(request: StageRequest | str, folder: Path, **environ: str) -> subprocess.Popen[str]:
    """Start the fake service. A request given as text is written as it is."""
    return _start("support.fake_stage", request, folder, environ)


def start_service(request: StageRequest, folder: Path, **environ: str) -> subprocess.Popen[str]:
    """Start the service the request names, as a container does."""
    return _start(f"hdgan.{request.service}", request, folder, environ)


def start_signalled(
    request: StageRequest, folder: Path, name: str, function: str, call: int, **environ: str
) -> subprocess.Popen[str]:
    """Start the synthesizer; it gets the signal just before that call of the function."""
    told = {"SIGNALLED": json.dumps([name, function, call])}
    return _start("support.signalled_synthesizer", request, folder, environ | told)


def _start(
    module: str, request: StageRequest | str, folder: Path, environ: dict[str, str]
) -> subprocess.Popen[str]:
    path = folder / "request.json"
    text = request if isinstance(request, str) else request.model_dump_json(by_alias=True)
    path.write_text(text)
    inherited = {n: v for n, v in os.environ.items() if not n.startswith(("HDGAN_", "JOB_"))}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", module],
        env=inherited | {"HDGAN_REQUEST": str(path), "PYTHONPATH": str(TESTS)} | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], timeout: float = 30) -> Finished:
    stdout, stderr = process.communicate(timeout=timeout)
    return Finished(process.returncode, [json.loads(line) for line in stdout.splitlines()], stderr)


def run(request: StageRequest | str, folder: Path, **environ: str) -> Finished:
    return finish(start(request, folder, **environ))


def read_until(process: subprocess.Popen[str], event: str) -> dict[str, Any]:
    """The next event of that kind."""
    assert process.stdout is not None
    for line in process.stdout:
        found: dict[str, Any] = json.loads(line)
        if found["event"] == event:
            return found
    raise AssertionError(f"the stage ended without the event {event}")
