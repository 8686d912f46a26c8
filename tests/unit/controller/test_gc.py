"""Collecting garbage in all stores of an installation: which, how long, what is told of it, and
how it ends."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from hdgan.controller import gc
from hdgan.controller.gc import collect_all, main, places, policy, whole_code
from hdgan.controller.settings import GarbageConfig, Settings
from hdgan.core import elapsed
from hdgan.core.artifact import Attempt, artifact_key
from hdgan.core.errors import StoreUnavailable
from hdgan.core.garbage.collecting import FEW
from hdgan.core.pins import Pins
from hdgan.core.releases import publish
from hdgan.core.store import Store
from hdgan.core.store_s3 import S3Connection, S3Store
from support.s3_server import Keys, forget_aws, new_bucket, point_aws_at, running_s3
from unit.garbage.test_collecting import DAY, Aging
from unit.garbage.test_model import release_of

IMAGES = {
    name: {"image": name}
    for name in ("tiler", "ganTrainer", "extractor", "classifier", "synthesizer")
}


def document(stores: dict[str, dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Settings with a namespace `team` that has these stores."""
    return {"namespaces": [{"name": "team", "stores": stores}], "images": IMAGES, **more}


def settings(stores: dict[str, dict[str, Any]], **more: Any) -> Settings:
    return Settings.model_validate(document(stores, **more), by_alias=True, by_name=False)


def written(folder: Path, content: dict[str, Any]) -> Path:
    file = folder / "settings.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


class Opening:
    """Folders instead of buckets, by URI; counts how often each is opened."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self.opened: list[str] = []
        self.clocks = monkeypatch
        self.stores: dict[str, Aging] = {}
        monkeypatch.setattr(gc, "open_store", self.open)

    def at(self, uri: str) -> Aging:
        """The store that is found there."""
        if uri not in self.stores:
            self.stores[uri] = Aging(self._folder / str(len(self.stores)))
            self.clocks.setattr(elapsed, "time", self.stores[uri].clock)
        return self.stores[uri]

    def open(self, uri: str) -> Store:
        self.opened.append(uri)
        if uri not in self.stores:
            raise StoreUnavailable(f'{uri} does not answer by http://me:my"word@proxy')
        return self.stores[uri].store


@pytest.fixture
def opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Opening:
    return Opening(tmp_path, monkeypatch)


def numbers(line: dict[str, Any]) -> dict[str, Any]:
    """What a line says that is not zero, without what every line says."""
    common = {"store", "endpoint", "declaredAs", "seconds", "kept"}
    assert line["held"] is None
    return {
        name: value
        for name, value in line.items()
        if name not in common and value not in (None, 0, {"count": 0, "objects": 0, "bytes": 0})
        if value != {"count": 0, "names": []} and value != {"waiting": 0, "removed": 0}
    }


def test_what_nobody_needs_goes_by_and_by_and_each_pass_says_so(opening: Opening) -> None:
    """The artifact is of 10 bytes in 3 objects; those of its files go in the last pass."""
    aging = opening.at("s3://bucket/a")
    aging.make("dataset", 0, run="old")
    aging.make("dataset", 7)
    Pins(aging.store, "new").add([("dataset", artifact_key("dataset", 1, {"n": 7}, {}))])
    asked = settings({"default": {"uri": "s3://bucket/a"}}, gc={"keepDays": 40, "graceHours": 48})

    def a_pass() -> dict[str, Any]:
        # The run that needs the other one is at work all the time.
        Pins(aging.store, "new").add([("dataset", artifact_key("dataset", 1, {"n": 7}, {}))])
        ((line, code),) = collect_all(asked)
        assert (code, line["store"], line["declaredAs"]) == (0, "s3://bucket/a", ["team/default"])
        return line

    assert numbers(a_pass()) == {}
    aging.sleep(39 * DAY)
    assert a_pass()["kept"] == 2
    aging.sleep(2 * DAY)
    artifact = {"count": 1, "objects": 3, "bytes": 10}
    line = a_pass()
    assert (line["kept"], numbers(line)) == (1, {"marked": artifact, "expiredPins": 1})
    aging.sleep(47)
    assert numbers(a_pass()) == {"waiting": artifact, "expiredPins": 1}
    aging.sleep(2)
    assert numbers(a_pass()) == {"withdrawn": artifact, "expiredPins": 1}
    aging.sleep(47)
    (waiting,) = numbers(a_pass()).items()
    assert (waiting[0], waiting[1]["count"], waiting[1]["objects"]) == ("waiting", 1, 2)
    aging.sleep(2)
    assert numbers(a_pass()) == {"removed": waiting[1]}
    line = a_pass()
    assert (line["kept"], numbers(line)) == (1, {})
    assert len(aging.names("artifacts/")) == 3


def test_a_pass_in_which_too_much_would_go_fails_and_withdraws_nothing(opening: Opening) -> None:
    aging = opening.at("s3://bucket")
    for number in range(FEW + 1):
        aging.make("dataset", number)
    asked = settings({"default": {"uri": "s3://bucket"}}, gc={"mostPercent": 90})
    aging.sleep(31 * DAY)
    ((line, code),) = collect_all(asked)
    assert (line["marked"]["count"], line["held"], code) == (FEW + 1, None, 0)
    aging.sleep(25)
    ((line, code),) = collect_all(asked)
    assert (line["due"]["count"], line["withdrawn"]["count"], code) == (FEW + 1, 0, 64)
    assert line["held"].startswith("21 of 21 artifacts are due")


def test_what_a_release_names_and_is_not_there_is_named(opening: Opening) -> None:
    aging = opening.at("s3://bucket")
    artifact = aging.make("dataset")
    publish(aging.store, release_of(artifact, 1))
    for name in aging.names("artifacts/"):
        aging.store.delete(name)
    ((line, code),) = collect_all(settings({"default": {"uri": "s3://bucket"}}))
    assert code == 0
    (missing,) = line["missing"]["names"]
    assert missing.startswith(f"dataset/{artifact.manifest.key}: release run-1 of d")


def test_what_is_not_ours_is_counted_and_left_alone(opening: Opening) -> None:
    aging = opening.at("s3://bucket")
    for number in range(7):
        aging.store.put(f"slides/{number}.svs", b"x")
    ((line, code),) = collect_all(settings({"default": {"uri": "s3://bucket"}}))
    assert code == 0
    names = [f"slides/{number}.svs" for number in range(5)]
    assert line["unknown"] == {"count": 7, "names": names}
    assert len(aging.names("slides/")) == 7


def test_a_store_is_gone_through_once_however_often_it_is_declared(opening: Opening) -> None:
    spaces = [
        {"name": "a", "stores": {"default": {"uri": "s3://bucket/x", "region": "eu-west-1"}}},
        {
            "name": "b",
            "stores": {
                "default": {"uri": "s3://bucket/x/"},
                "there": {"uri": "s3://bucket/x", "endpoint": "https://s3.example.org"},
                "too": {"uri": "s3://bucket/x", "endpoint": "https://s3.example.org/"},
                "more": {"uri": "s3://bucket/x/y"},
            },
        },
    ]
    content = {"namespaces": spaces, "images": IMAGES}
    asked = Settings.model_validate(content, by_alias=True, by_name=False)
    found = places(asked)
    assert [one.names for one in found] == [
        ("a/default", "b/default"),
        ("b/there", "b/too"),
        ("b/more",),
    ]
    assert found[0].config.region == "eu-west-1"
    for uri in ("s3://bucket/x", "s3://bucket/x/y"):
        opening.at(uri)
    assert [code for _, code in collect_all(asked)] == [0, 0, 0]
    assert opening.opened == ["s3://bucket/x", "s3://bucket/x", "s3://bucket/x/y"]


def test_each_store_is_reached_as_the_controller_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[S3Connection] = []

    def look(store: S3Store) -> datetime:
        seen.append(store.server._how)
        raise StoreUnavailable("seen enough")

    monkeypatch.setattr(S3Store, "now", look)
    stores = {
        "default": {
            "uri": "s3://bucket",
            "endpoint": "https://s3.example.org",
            "region": "eu-west-1",
            "credentials": str(tmp_path),
            "caFile": str(tmp_path / "ca.crt"),
        },
        "other": {"uri": "s3://other"},
    }
    ended = list(collect_all(settings(stores)))
    assert [code for _, code in ended] == [69, 69]
    assert seen == [
        S3Connection(
            endpoint="https://s3.example.org",
            region="eu-west-1",
            credentials=tmp_path,
            ca_file=tmp_path / "ca.crt",
            checksums="when_required",
        ),
        S3Connection(checksums="when_required"),
    ]


def test_a_store_that_fails_holds_up_no_other(opening: Opening) -> None:
    """One that does not answer, one in which a pin is broken, one that shows a bug, one that is
    well."""
    broken = opening.at("s3://broken").store
    broken.put(f"pins/r/use-{'0' * 64}.json", b"{")
    opening.at("s3://bug").store.list = None  # type: ignore[assignment]
    opening.at("s3://well").make("dataset", run="r")
    stores = {name: {"uri": f"s3://{name}"} for name in ("away", "broken", "bug", "well")}
    ended = list(collect_all(settings(stores)))
    assert [code for _, code in ended] == [69, 66, 70, 0]
    lines = [line for line, _ in ended]
    assert [line.get("exitCode") for line in lines] == [69, 66, 70, None]
    assert lines[0]["error"] == "s3://away does not answer by http://[redacted]@proxy"
    assert "cannot be read as a pin" in lines[1]["error"]
    assert lines[2]["error"].startswith("TypeError: ")
    assert lines[3]["kept"] == 1


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([0, 0], 0),
        ([], 0),
        ([0, 66, 64], 66),
        ([64, 66], 64),
        ([66, 0, 69, 70], 69),
        ([0, 70], 70),
    ],
)
def test_one_that_did_not_answer_is_a_reason_to_try_again(codes: list[int], expected: int) -> None:
    assert whole_code(codes) == expected


def test_how_long_things_stay_is_said_by_the_settings() -> None:
    asked = policy(settings({"default": {"uri": "s3://b"}}).gc)
    assert asked.grace == timedelta(hours=24)
    assert asked.keeping.used == timedelta(days=30)
    assert asked.keeping.awaiting == timedelta(days=365)
    assert asked.most == 0.5
    given = {"graceHours": 36, "keepDays": 3.5, "keepAwaitingDays": 1000, "mostPercent": 75}
    asked = policy(settings({"default": {"uri": "s3://b"}}, gc=given).gc)
    assert asked.grace == timedelta(hours=36)
    assert asked.keeping.used == timedelta(days=3.5)
    assert asked.keeping.awaiting == timedelta(days=1000)
    assert asked.most == 0.75


@pytest.mark.parametrize(
    "short", [{"grace_hours": 23.9}, {"keep_days": 2.9}, {"keep_awaiting_days": 0.0}]
)
def test_what_would_harm_those_at_work_is_refused(short: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        GarbageConfig(**short)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """The endpoint of an S3 server and a bucket there, of which the environment says nothing."""
    with running_s3() as endpoint:
        with monkeypatch.context() as aws:
            point_aws_at(endpoint, aws)
            name = new_bucket(endpoint)
        forget_aws(monkeypatch)
        yield endpoint, name


def keys(folder: Path) -> str:
    """Credentials as they are mounted."""
    (folder / "AWS_ACCESS_KEY_ID").write_text(Keys().access)
    (folder / "AWS_SECRET_ACCESS_KEY").write_text(Keys().secret)
    return str(folder)


def test_the_program_goes_through_real_stores(
    bucket: tuple[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda seconds: None)
    endpoint, name = bucket
    how = {"endpoint": endpoint, "credentials": keys(tmp_path)}
    file = written(
        tmp_path,
        document(
            {
                "away": {**how, "uri": f"s3://{name}/x", "endpoint": "http://127.0.0.1:9"},
                "default": {**how, "uri": f"s3://{name}/x"},
                "none": {**how, "uri": "s3://no-such-bucket/x"},
            }
        ),
    )
    connection = S3Connection(endpoint=endpoint, credentials=tmp_path)
    with contextlib.closing(S3Store(name, "x", connection)) as store:
        attempt = Attempt(store, "dataset", artifact_key("dataset", 1, {}, {}))
        attempt.add_bytes("a.bin", b"0123456789")
        assert main([str(file)]) == 69
        assert [one.partition("-")[0] for one in store.list("gc/")] == ["gc/marks/files"]
    printed, complaints = capsys.readouterr()
    away, here, none = (json.loads(line) for line in printed.splitlines())
    assert here["marked"] == {"count": 1, "objects": 1, "bytes": 10}
    assert (here["store"], here["declaredAs"]) == (f"s3://{name}/x", ["team/default"])
    assert "127.0.0.1:9" in away["error"]
    assert (away["exitCode"], none["exitCode"]) == (69, 64)
    assert "no-such-bucket" in none["error"]
    assert complaints == ""
    assert Keys().secret not in printed


def test_settings_that_cannot_be_read_are_its_first_complaint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, document({"default": {"uri": "s3://b"}}, gc={"graceHours": 1}))
    assert main([str(file)]) == 64
    assert "gc.graceHours" in capsys.readouterr().err


@pytest.mark.parametrize("tidying_fails", [False, True])
def test_the_signal_that_ends_pods_ends_it_where_it_is(
    opening: Opening, tmp_path: Path, tidying_fails: bool
) -> None:
    def signalled() -> datetime:
        try:
            signal.raise_signal(signal.SIGTERM)
            raise AssertionError("the signal was not heard")
        finally:
            if tidying_fails:
                raise StoreUnavailable("nor is it now")

    opening.at("s3://first").store.now = signalled  # type: ignore[method-assign]
    opening.at("s3://next")
    file = written(tmp_path, document({"a": {"uri": "s3://first"}, "b": {"uri": "s3://next"}}))
    before = signal.getsignal(signal.SIGTERM)
    try:
        ended: object = main([str(file)])
    except SystemExit as end:
        ended = end.code
    assert ended == 75
    assert opening.opened == ["s3://first"]
    assert signal.getsignal(signal.SIGTERM) is before
