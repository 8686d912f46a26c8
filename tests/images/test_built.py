"""The images at work: read-only, any user, our process as PID 1. `make test-images` runs this."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hdgan.core.artifact import open_artifact
from hdgan.core.request import StageRequest
from hdgan.core.store import open_store
from images.containers import ANY_USER, Engine, How, Started
from support.small_pipeline import SmallPipeline

ImageOf = Callable[[str], str]

STAGES = {
    "tiler": "tiler",
    "gan-trainer": "gan-trainer",
    "candidates": "synthesizer",
    "extractor": "extractor",
    "classifier": "classifier",
    "dataset": "synthesizer",
}
"""Rooms by stage, in the order of a run."""
SERVICES = sorted({*STAGES.values()})
ROOMS = sorted({*SERVICES, "desk", "controller"})
MADE_FROM = {"tiler": ["slide-tiles"], "gan-trainer": ["tile-features"]}
"""Artifacts that are a stage's own intermediate results."""
STOP_SECONDS = 30.0


def module(room: str) -> list[str]:
    """How Jobs start a service: by this, not by the entry point of the image."""
    return ["python", "-m", f"hdgan.{room.replace('-', '_')}"]


def python(code: str) -> How:
    return How(command=["python", "-c", code])


@pytest.mark.parametrize("room", ROOMS)
def test_it_starts_and_tells_its_version(room: str, engine: Engine, image_of: ImageOf) -> None:
    ended = engine.run(image_of(room), How(arguments=["--version"]))

    assert ended.code == 0, ended.err
    name = "hdgan" if room == "desk" else f"hdgan-{room}"
    assert ended.out.startswith(f"{name} {importlib.metadata.version(f'hdgan-{room}')}")
    assert ended.err == ""


@pytest.mark.parametrize("room", ROOMS)
def test_labels_are_filled_in(
    room: str, engine: Engine, image_of: ImageOf, rooms: dict[str, Any]
) -> None:
    config = engine.config(image_of(room))

    labels = config["Labels"]
    assert labels["org.opencontainers.image.title"] == f"hdgan-{room}"
    assert labels["org.opencontainers.image.version"] == rooms["version"](room)
    assert labels["org.opencontainers.image.revision"]
    assert labels["org.opencontainers.image.base.name"]
    assert not [one for one in config["Env"] if "PIP" in one or "INDEX" in one]


@pytest.mark.parametrize("room", ROOMS)
def test_only_what_is_needed_is_there(room: str, engine: Engine, image_of: ImageOf) -> None:
    code = (
        "import importlib.metadata as m, importlib.util as u, json, os, sys\n"
        "print(json.dumps([sorted(d.name for d in m.distributions()),"
        " bool(u.find_spec('torch')), sys.prefix, sys.dont_write_bytecode,"
        " os.path.exists('/opt/tools'), os.path.exists('/build'), os.getpid(), os.getuid()]))"
    )

    ended = engine.run(image_of(room), python(code))

    names, torch, prefix, no_bytecode, tools, sources, pid, user = json.loads(ended.out)
    assert torch == (room not in ("tiler", "desk", "controller"))
    build_tools = {"pip", "setuptools", "wheel", "hatchling"} & {*names}
    assert build_tools <= ({"setuptools"} if torch else set())  # torch itself depends on it
    assert (prefix, no_bytecode, tools, sources) == ("/opt/hdgan", True, False, False)
    assert (pid, user) == (1, ANY_USER)


@pytest.mark.parametrize("room", ROOMS)
def test_everything_is_compiled(room: str, engine: Engine, image_of: ImageOf) -> None:
    """Nothing can be compiled at run time, and to do it at each start takes seconds."""
    code = (
        "import glob, importlib.util as u, os\n"
        "s = glob.glob('/opt/hdgan/lib/python3*/site-packages/hdgan/**/*.py', recursive=True)\n"
        "print(len(s), [p for p in s if not os.path.exists(u.cache_from_source(p))])"
    )

    ended = engine.run(image_of(room), python(code))

    count, _, missing = ended.out.strip().partition(" ")
    assert int(count) > 20
    assert missing == "[]"


@pytest.mark.parametrize("room", SERVICES)
@pytest.mark.parametrize("text", [None, "{", '{"run": "x"}'])
def test_a_bad_request_is_refused(
    text: str | None, room: str, engine: Engine, image_of: ImageOf, tmp_path: Path
) -> None:
    path = tmp_path / "request.json"
    if text is not None:
        path.write_text(text)
    tmp_path.chmod(0o755)

    how = How(command=module(room), environ={"HDGAN_REQUEST": str(path)}, mounts=[tmp_path])
    ended = engine.run(image_of(room), how)

    assert ended.code == 64
    assert ended.last_event()["exitCode"] == 64
    assert str(path) in ended.last_event()["message"]


def test_the_controller_refuses_settings_that_are_not_there(
    engine: Engine, image_of: ImageOf
) -> None:
    ended = engine.run(image_of("controller"), How(arguments=["/nowhere.yaml"]))

    assert ended.code == 64
    assert "/nowhere.yaml" in ended.out


def test_the_controller_stops_when_told_to(
    engine: Engine, image_of: ImageOf, tmp_path: Path
) -> None:
    """It waits to lead, for an API server that does not answer."""
    settings = {
        "namespaces": [{"name": "a", "stores": {"default": {"uri": "s3://b/p"}}}],
        "images": {
            one: {"image": f"r.test/{one}:1"}
            for one in ("tiler", "ganTrainer", "extractor", "classifier", "synthesizer")
        },
    }
    cluster = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": "none"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    (tmp_path / "settings.yaml").write_text(json.dumps(settings))
    (tmp_path / "kubeconfig").write_text(json.dumps(cluster))
    tmp_path.chmod(0o755)
    arguments = [str(tmp_path / "settings.yaml"), "--kubeconfig", str(tmp_path / "kubeconfig")]

    with engine.start(
        image_of("controller"), How(arguments=arguments, mounts=[tmp_path])
    ) as started:
        assert started.process.stdout is not None
        started.process.stdout.readline()  # it could not ask who leads
        told = time.monotonic()
        started.signal("TERM")
        ended = started.finish()

    assert ended.code == 0, ended.out + ended.err
    assert time.monotonic() - told < STOP_SECONDS


class Replay:
    """Requests of a run that is done, once more, in another store and in containers."""

    def __init__(self, run: SmallPipeline, folder: Path) -> None:
        self._run = run
        self._folder = folder
        shutil.copytree(run.store, folder / "store")
        (folder / "scratch").mkdir()
        self.open()

    def request(self, stage: str) -> StageRequest:
        path = self._run.scratch / "requests" / "cut" / f"{stage}.json"
        request = StageRequest.model_validate_json(path.read_text())
        return request.model_copy(
            update={
                "store": (self._folder / "store").as_uri(),
                "scratch": str(self._folder / "scratch"),
            }
        )

    def forget(self, request: StageRequest) -> None:
        """Make the stage's artifact undone, and what it has saved on the way to it."""
        artifacts = self._folder / "store" / "artifacts"
        shutil.rmtree(artifacts / request.stage / request.key, ignore_errors=True)
        for intermediate in MADE_FROM.get(request.stage, []):
            shutil.rmtree(artifacts / intermediate, ignore_errors=True)

    def how(self, request: StageRequest) -> How:
        path = self._folder / f"{request.stage}.json"
        path.write_text(request.model_dump_json(by_alias=True))
        self.open()
        return How(
            command=["python", "-m", f"hdgan.{request.service}"],
            environ={"HDGAN_REQUEST": str(path), "OMP_NUM_THREADS": "1"},
            mounts=[self._folder, self._run.folder],
        )

    def open(self) -> None:
        """Let any user write there."""
        for folder, _, files in os.walk(self._folder):
            os.chmod(folder, 0o777)
            for file in files:
                os.chmod(os.path.join(folder, file), 0o666)


@pytest.fixture(scope="module")
def replay(
    engine: Engine,
    finished_run: SmallPipeline,
    tmp_path_factory: pytest.TempPathFactory,
) -> Replay:
    folder = tmp_path_factory.mktemp("replay")
    for above in (folder.parent, folder.parent.parent, finished_run.folder):
        above.chmod(0o755)
    return Replay(finished_run, folder)


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "extractor"])
def test_a_stage_makes_the_same_as_outside(
    stage: str, replay: Replay, engine: Engine, image_of: ImageOf
) -> None:
    request = replay.request(stage)
    before = open_artifact(open_store(request.store), request.stage, request.key)
    assert before is not None
    replay.forget(request)
    if stage == "classifier":
        features = engine.run(image_of("extractor"), replay.how(replay.request("extractor")), 600)
        assert features.code == 0, features.out + features.err

    ended = engine.run(image_of(STAGES[stage]), replay.how(request), 600)

    assert ended.code == 0, ended.out + ended.err
    after = open_artifact(open_store(request.store), request.stage, request.key)
    assert after is not None
    assert after.content_digest == before.content_digest
    assert ended.last_event()["contentDigest"] == before.content_digest


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        ("tiler", {"stride": 1}),
        ("gan-trainer", {"kimg": 100.0}),
        ("candidates", {"count": 5000}),
        ("classifier", {"epochs": 5000}),
        ("dataset", {"count": 5000, "calibration": 5000}),
    ],
)
def test_a_stage_stops_when_pid_1_is_told_to(
    stage: str, changes: dict[str, Any], replay: Replay, engine: Engine, image_of: ImageOf
) -> None:
    request = replay.request(stage)
    request = request.model_copy(
        update={"config": {**request.config, **changes}, "key": f"{len(stage):064x}"}
    )

    with engine.start(image_of(STAGES[stage]), replay.how(request)) as started:
        _wait_for_progress(started)
        told = time.monotonic()
        started.signal("TERM")
        ended = started.finish()

    assert ended.code == 75, ended.out + ended.err
    assert ended.last_event()["exitCode"] == 75
    assert time.monotonic() - told < STOP_SECONDS


def _wait_for_progress(started: Started) -> None:
    assert started.process.stdout is not None
    for line in started.process.stdout:
        if json.loads(line)["event"] == "progress":
            return
    raise AssertionError(f"it ended: {started.finish()}")
