"""An artifact whose manifest is visible is readable and verifies, whoever else is at work: two
writers of different bytes, sleepers, collectors, killed processes, servers without conditional
writes.

Hypothesis chooses who does the next store operation, who is killed, who sleeps and for how long,
over the real store code. One thing is assumed, and nothing else: nobody sleeps for longer than half
of gc's grace between one store operation of a commit, of a release's publication or of a removal,
and the next.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from moto.s3.models import s3_backends

from hdgan.core import elapsed
from hdgan.core.artifact import Artifact, Attempt, artifact_key, open_artifact
from hdgan.core.errors import HdganError
from hdgan.core.garbage.collecting import Policy, collect
from hdgan.core.garbage.roots import Keeping
from hdgan.core.pieces import Pieces, adopt_file
from hdgan.core.pins import Pins
from hdgan.core.releases import Release, all_releases, publish
from hdgan.core.request import InputRef
from hdgan.core.store import Store
from hdgan.core.store_file import FileStore
from hdgan.core.store_s3 import S3Store
from hdgan.core.work import WorkState
from support.s3_server import new_bucket, point_aws_at, running_s3
from support.stepped_actors import Actor

GRACE = timedelta(hours=24)
KEEP = timedelta(hours=72)
POLICY = Policy(Keeping(KEEP, KEEP), GRACE)
STAGE = "dataset"
MOTO_ACCOUNT = "123456789012"
KEYS = [artifact_key(STAGE, 1, {"n": n}, {}) for n in range(2)]
TURNING_POINTS = (
    "delete artifacts/",
    "delete gc/removed/",
    "delete work/",
    "put gc/removed/",
    "put gc/collecting/",
    "put artifacts/",
    "put_if_absent artifacts/",
    "put_if_absent datasets/",
    "head artifacts/",
    "list pins/",
    "put pins/",
)
"""Beginnings of operations before which an actor is likely to be made to stand still."""


class Unconditional(FileStore):
    """A store that cannot write under a condition: it looks first, then writes."""

    conditional = False


class FakeTime:
    """The clocks of this process, moved by what everybody sleeps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def time(self) -> float:
        return time.time() + self.seconds

    def monotonic(self) -> float:
        return time.monotonic() + self.seconds


class Artifacts(RuleBasedStateMachine):
    conditional = True

    def __init__(self) -> None:
        super().__init__()
        self.store: Any = self.open()
        self.clock = FakeTime()
        vars(elapsed)["time"] = self.clock
        self.actors: list[Actor] = []
        self.stage_of: dict[Actor, str] = {}
        self.hours = 0.0
        self.held: list[tuple[Artifact, float]] = []
        self.released: list[Release] = []
        self.relying: list[tuple[int, float]] = []
        self.passes_since_kill = True
        self.count = 0

    def teardown(self) -> None:
        try:
            for actor in self.actors:
                actor.kill()
            self.actors = []
            self._sleep(24 * 100)
            for _ in range(6):
                collect(self.store, POLICY, delete=True)
                self._sleep(25)
            report = collect(self.store, POLICY, delete=True)
            assert report.unknown == []
            kept = {one.artifacts["dataset"].key for one in all_releases(self.store, {})}
            for name in self.store.list(""):
                known = name.startswith("datasets/") or name.split("/")[2] in kept
                assert known, f"{name} was never collected"
            assert report.garbage == []
            assert list(self.store.unfinished()) == []
        finally:
            vars(elapsed)["time"] = time
            self.close()

    # The store

    def open(self) -> Store:
        self.folder = tempfile.TemporaryDirectory(prefix="hdgan-model-")
        return (FileStore if self.conditional else Unconditional)(Path(self.folder.name))

    def close(self) -> None:
        self.folder.cleanup()

    def age(self, hours: float) -> None:
        """Make everything that is in the store older by its clock."""
        for folder, _, names in os.walk(self.folder.name):
            for name in names:
                path = Path(folder, name)
                earlier = path.stat().st_mtime - hours * 3600
                os.utime(path, (earlier, earlier))

    # Who is at work

    def _start(self, name: str, work: Callable[[Any, Actor | None], None]) -> None:
        box: list[Actor] = []
        self.count += 1
        actor = Actor(
            f"{name} {self.count}", lambda store: work(store, box[0] if box else None), self.store
        )
        box.append(actor)
        self._settle(actor)

    def _enter(self, actor: Actor | None, what: str) -> None:
        if actor is not None:
            self.stage_of[actor] = what

    def _settle(self, actor: Actor) -> None:
        if not actor.done:
            if actor not in self.actors:
                self.actors.append(actor)
            return
        if actor in self.actors:
            self.actors.remove(actor)
        if actor.failure is not None and not isinstance(actor.failure, HdganError):
            raise actor.failure

    @rule(key=st.integers(0, 1), adopts=st.booleans())
    @precondition(lambda self: len(self.actors) < 4)
    def start_writer(self, key: int, adopts: bool) -> None:
        number = self.count

        def work(store: Any, actor: Actor | None) -> None:
            if write(store, KEYS[key], f"run-{number}", b"writer %d" % number, adopts, enter):
                self.relying.append((key, self.hours))

        def enter(what: str) -> None:
            self._enter(self._actor_of(number), what)

        self._start(f"writer-{number}", work)

    def _actor_of(self, number: int) -> Actor | None:
        for actor in self.actors:
            if actor.name.startswith(f"writer-{number} ") or actor.name.startswith(
                f"releaser-{number} "
            ):
                return actor
        return None

    @rule(key=st.integers(0, 1))
    @precondition(lambda self: len(self.actors) < 4)
    def start_releaser(self, key: int) -> None:
        number = self.count

        def work(store: Any, actor: Actor | None) -> None:
            pins = Pins(store, f"run-{number}")
            pins.add([(STAGE, KEYS[key])])
            artifact = open_artifact(store, STAGE, KEYS[key])
            if artifact is None:
                return
            self._enter(self._actor_of(number), "publish")
            release = release_of(artifact, number)
            if publish(store, release).verdict == "Released":
                self.released.append(release)

        self._start(f"releaser-{number}", work)

    @rule()
    @precondition(lambda self: sum(a.name.startswith("gc") for a in self.actors) < 2)
    def start_collector(self) -> None:
        def work(store: Any, actor: Actor | None) -> None:
            collect(store, POLICY, delete=True, at_once=1)
            self.passes_since_kill = True

        self._start("gc", work)

    @rule()
    def collect_at_once(self) -> None:
        collect(self.store, POLICY, delete=True)
        self.passes_since_kill = True

    @precondition(lambda self: self.actors)
    @rule(which=st.integers(0, 3), steps=st.integers(1, 12))
    def step(self, which: int, steps: int) -> None:
        actor = self.actors[which % len(self.actors)]
        for _ in range(steps):
            if not actor.done:
                actor.step()
                self.every_manifest_verifies()
        self._settle(actor)

    @precondition(lambda self: self.actors)
    @rule(which=st.integers(0, 3), operation=st.sampled_from(TURNING_POINTS))
    def step_to(self, which: int, operation: str) -> None:
        """To just before an operation that matters, or to the end."""
        actor = self.actors[which % len(self.actors)]
        actor.step()
        while not actor.done and not actor.before.startswith(operation):
            actor.step()
            self.every_manifest_verifies()
        self._settle(actor)

    @precondition(lambda self: not any(self._critical(actor) for actor in self.actors))
    @rule(passes=st.integers(1, 2))
    def let_everything_expire(self, passes: int) -> None:
        """So that the next pass finds something to remove."""
        self._sleep(80)
        for _ in range(passes):
            self.collect_at_once()
            self._sleep(25)

    @precondition(lambda self: self.actors)
    @rule(which=st.integers(0, 3))
    def finish(self, which: int) -> None:
        actor = self.actors[which % len(self.actors)]
        while not actor.done:
            actor.step()
            self.every_manifest_verifies()
        self._settle(actor)

    @precondition(lambda self: self.actors)
    @rule(which=st.integers(0, 3), rarely=st.integers(0, 5))
    def kill(self, which: int, rarely: int) -> None:
        if rarely:
            return
        actor = self.actors[which % len(self.actors)]
        actor.kill()
        self.actors.remove(actor)
        if actor.name.startswith("gc"):
            self.passes_since_kill = False

    @rule(hours=st.sampled_from([1.0, 7.0, 11.0, 13.0, 25.0, 80.0]))
    def sleep(self, hours: float) -> None:
        for actor in self.actors:
            if self._critical(actor):
                hours = min(hours, GRACE.total_seconds() / 7200 - actor.hours_asleep)
        if hours > 0:
            self._sleep(hours)

    def _critical(self, actor: Actor) -> bool:
        return actor.name.startswith("gc") or self.stage_of.get(actor) in ("commit", "publish")

    def _sleep(self, hours: float) -> None:
        self.hours += hours
        self.clock.seconds += hours * 3600
        for actor in self.actors:
            actor.hours_asleep += hours
        self.age(hours)

    @rule(key=st.integers(0, 1))
    def open_for_reading(self, key: int) -> None:
        artifact = open_artifact(self.store, STAGE, KEYS[key])
        if artifact is not None:
            self.held.append((artifact, self.hours))

    # What always holds

    @invariant()
    def every_manifest_verifies(self) -> None:
        for key in KEYS:
            artifact = open_artifact(self.store, STAGE, key)
            if artifact is not None:
                read_all(artifact)

    @invariant()
    def what_was_opened_can_be_read_for_a_grace(self) -> None:
        limit = self.hours - GRACE.total_seconds() / 3600
        self.held = [(artifact, at) for artifact, at in self.held if at > limit]
        for artifact, _ in self.held:
            read_all(artifact)

    @invariant()
    def what_is_needed_is_there(self) -> None:
        if not self.passes_since_kill or any(a.name.startswith("gc") for a in self.actors):
            return  # a removal may be about to be taken back
        for release in self.released:
            artifact = open_artifact(self.store, STAGE, release.artifacts["dataset"].key)
            assert artifact is not None, f"{release.name} names what is not there"
            if self.conditional:
                assert artifact.content_digest == release.content_digest
        recent = self.hours - KEEP.total_seconds() / 3600 + 1
        self.relying = [(key, at) for key, at in self.relying if at > recent]
        for key, _ in self.relying:
            assert open_artifact(self.store, STAGE, KEYS[key]) is not None


def write(
    store: Any, key: str, run: str, content: bytes, adopts: bool, enter: Callable[[str], None]
) -> bool:
    """What a run and its stage do: pin, look, take over, make, commit, clear away, pin and look
    again. False if it is not there then, as after a sleep longer than pins keep: a run would make
    it once more."""
    pins = Pins(store, run)
    pins.add([(STAGE, key)])
    if open_artifact(store, STAGE, key) is None:
        attempt = Attempt(store, STAGE, key)
        pieces = Pieces(store, STAGE, key)
        record = pieces.find("one") if adopts else None
        pins.renew()
        if record is None or adopt_file(attempt, record) is None:
            entry = attempt.add_bytes("one.bin", content)
            pieces.keep("one", entry.model_dump(mode="json"))
        attempt.add_bytes("two.bin", content * 2)
        pins.renew()
        enter("commit")
        attempt.commit({})
        enter("")
        WorkState(store, STAGE, key, "none").discard()
    pins.renew()
    return open_artifact(store, STAGE, key) is not None


def release_of(artifact: Artifact, number: int) -> Release:
    reference = InputRef(
        stage=STAGE, key=artifact.manifest.key, content_digest=artifact.content_digest
    )
    return Release(
        dataset="d",
        name=f"run-{number}",
        run=f"run-{number}",
        run_digest="0" * 64,
        created=datetime.now(UTC),
        artifacts={"dataset": reference},
        classes=[],
        tile_size=64,
        mpp=1.0,
    )


def read_all(artifact: Artifact) -> None:
    for name in artifact.names():
        artifact.read(name)


class ArtifactsUnconditional(Artifacts):
    conditional = False


class ArtifactsInS3(Artifacts):
    """The same in a bucket of a real server, in this process so that its objects can be aged."""

    def open(self) -> Store:
        self.bucket = new_bucket(os.environ["AWS_ENDPOINT_URL"])
        store = S3Store(self.bucket, "prefix")
        if not self.conditional:
            events = store.server.client.meta.events
            events.register("before-parameter-build.s3.PutObject", ignore)
        assert store.conditional is self.conditional
        return store

    def close(self) -> None:
        self.store.close()

    def age(self, hours: float) -> None:
        for one in s3_backends[MOTO_ACCOUNT]["aws"].buckets[self.bucket].keys.values():
            one.last_modified -= timedelta(hours=hours)


class ArtifactsInS3Unconditional(ArtifactsInS3):
    conditional = False


def ignore(params: dict[str, Any], **_: object) -> None:
    """Make a server one that does not know conditional writes."""
    params.pop("IfNoneMatch", None)


@pytest.fixture(autouse=True)
def no_syncing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Thousands of small writes, and no power failure to be safe from."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    yield
    vars(elapsed)["time"] = time


def search(machine: type[Artifacts], examples: int) -> None:
    """`HDGAN_MODEL_EXAMPLES` times as many, for a longer search."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples * int(os.environ.get("HDGAN_MODEL_EXAMPLES", "1")),
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("machine", [Artifacts, ArtifactsUnconditional])
def test_what_is_visible_verifies_for_ever(machine: type[Artifacts]) -> None:
    search(machine, 40)


@pytest.mark.parametrize("machine", [ArtifactsInS3, ArtifactsInS3Unconditional])
def test_what_is_visible_verifies_for_ever_in_s3(
    machine: type[Artifacts], monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_s3() as endpoint:
        point_aws_at(endpoint, monkeypatch)
        search(machine, 1)
