"""The harness: exit codes, events, signals and metrics of real processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hdgan.core.artifact import open_artifact
from hdgan.core.progress import RateMeter, Throttle
from hdgan.core.request import InputRef
from hdgan.core.store import open_store
from hdgan.core.work import WorkState
from support.promtool import check_metrics
from support.stage_process import TESTS, fake_request, finish, read_until, run, start


def test_a_filled_output_is_committed_and_reported(tmp_path: Path) -> None:
    request = fake_request(tmp_path, "fill")

    done = run(request, tmp_path)

    assert done.code == 0, done.stderr
    artifact = open_artifact(open_store(request.store), "fake", request.key)
    assert artifact is not None
    assert artifact.read("a.txt") == b"content"
    assert artifact.run_info()["note"] == "filled"
    assert artifact.run_info()["seconds"] >= 0
    last = done.events[-1]
    assert abs(datetime.fromisoformat(last.pop("time")) - datetime.now(UTC)) < timedelta(minutes=5)
    assert last == {
        "level": "info",
        "event": "result",
        "stage": "fake",
        "run": "test",
        "key": request.key,
        "contentDigest": artifact.content_digest,
    }


def test_a_stage_may_commit_by_itself(tmp_path: Path) -> None:
    assert run(fake_request(tmp_path, "commit"), tmp_path).code == 0


def test_saved_work_goes_when_the_artifact_is_there(tmp_path: Path) -> None:
    request = fake_request(tmp_path, "save-and-fill")
    assert run(request, tmp_path).code == 0
    store = open_store(request.store)
    assert WorkState(store, "fake", request.key, "test").latest() is None
    assert list(store.list("work/")) == []


def test_the_time_of_attempts_that_failed_is_told_with_the_artifact(tmp_path: Path) -> None:
    request = fake_request(tmp_path, "bug")
    assert run(request, tmp_path).code == 70
    assert run(request, tmp_path).code == 70
    store = open_store(request.store)
    assert len(list(store.list(f"work/fake/{request.key}/spent/"))) == 2
    assert run(request.model_copy(update={"config": {"do": "fill"}}), tmp_path).code == 0
    artifact = open_artifact(store, "fake", request.key)
    assert artifact is not None
    others = artifact.run_info()["others"]
    assert others["attempts"] == 2
    assert 0 < others["seconds"] == others["deviceSeconds"]
    assert list(store.list("work/")) == []


def test_an_artifact_that_exists_is_not_made_again(tmp_path: Path) -> None:
    request = fake_request(tmp_path, "fill")
    first = run(request, tmp_path)
    # The same key with a config that would fail: it must not be looked at.
    again = run(request.model_copy(update={"config": {"do": "bug"}}), tmp_path)

    assert again.code == 0
    assert again.events[-1]["contentDigest"] == first.events[-1]["contentDigest"]


@pytest.mark.parametrize(
    ("do", "code", "error", "words"),
    [
        ("data-error", 65, "DataError", "3 of 4 slides"),
        ("missing", 66, "InputMissing", "features"),
        ("bug", 70, "ZeroDivisionError", "a bug of the stage"),
        ("memory", 70, "MemoryError", "smaller batches"),
        ("gpu-memory", 70, "OutOfMemoryError", "out of the GPU's memory: use smaller batches"),
        ("nothing", 70, "InternalError", "without filling"),
        ("space", 69, "NoSpace", "the training tiles needs"),
    ],
)
def test_errors_become_exit_codes(
    tmp_path: Path, do: str, code: int, error: str, words: str
) -> None:
    done = run(fake_request(tmp_path, do), tmp_path)

    assert done.code == code
    assert (done.events[-1]["event"], done.events[-1]["error"]) == ("error", error)
    assert done.events[-1]["exitCode"] == code
    assert words in done.events[-1]["message"]
    assert ("Traceback" in done.stderr) == (code == 70)


def test_last_words_are_left_where_kubernetes_looks_for_them(tmp_path: Path) -> None:
    place = tmp_path / "termination-log"
    place.touch()  # as the kubelet does
    request = fake_request(tmp_path, "fill")
    done = run(request, tmp_path, HDGAN_TERMINATION_LOG=str(place))
    assert json.loads(place.read_text()) == {"contentDigest": done.events[-1]["contentDigest"]}
    bad = request.model_copy(update={"config": {"do": "data-error"}, "key": "b" * 64})
    assert run(bad, tmp_path, HDGAN_TERMINATION_LOG=str(place)).code == 65
    assert place.read_text() == "3 of 4 slides are broken"
    # Nobody's loss if there is no such place.
    nowhere = str(tmp_path / "no" / "folder")
    assert run(bad, tmp_path, HDGAN_TERMINATION_LOG=nowhere).code == 65


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stage": "other"}, "no stage 'other': fake, shared, cache"),
        ({"stage_version": 2}, "request.stageVersion: 2"),
        ({"config": {"do": "fill", "typo": 1}}, "config.typo"),
        ({"parts": 3}, "cannot be shared out"),
        ({"store": "ftp://x"}, "unknown kind of store"),
        ({"store": "file:///proc/nothing"}, "/proc/nothing"),
    ],
)
def test_invalid_requests_exit_64(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    done = run(fake_request(tmp_path, "fill", **changes), tmp_path, JOB_COMPLETION_INDEX="0")

    assert done.code == 64
    assert words in done.events[-1]["message"]


def test_a_request_that_is_no_request_names_its_fields(tmp_path: Path) -> None:
    document = json.loads(fake_request(tmp_path, "fill").model_dump_json(by_alias=True))
    del document["key"]
    document["prats"] = 1

    done = run(json.dumps(document), tmp_path)

    assert done.code == 64
    assert "key: Field required" in done.events[-1]["message"]
    assert "prats" in done.events[-1]["message"]


def test_inputs_are_checked_against_the_request(tmp_path: Path) -> None:
    source = fake_request(tmp_path, "fill")
    digest = run(source, tmp_path).events[-1]["contentDigest"]

    def reading(content_digest: str, key: str, output: str) -> Any:
        reference = InputRef(stage="fake", key=key, content_digest=content_digest)
        request = fake_request(tmp_path, "read-input", inputs={"source": reference})
        return run(request.model_copy(update={"key": output * 64}), tmp_path)

    assert reading(digest, source.key, "1").code == 0
    other = reading("0" * 64, source.key, "2")
    assert (other.code, "start the run again" in other.events[-1]["message"]) == (66, True)
    absent = reading(digest, "f" * 64, "3")
    assert (absent.code, "has no manifest" in absent.events[-1]["message"]) == (66, True)


def test_progress_is_rate_limited_and_the_last_comes_through(tmp_path: Path) -> None:
    done = run(fake_request(tmp_path, "count"), tmp_path)

    events = [event for event in done.events if event["event"] == "progress"]
    assert 2 <= len(events) <= 40  # of 2000 calls in at least a second
    assert (events[-1]["done"], events[-1]["total"], events[-1]["unit"]) == (2000, 2000, "tiles")
    assert events[-1]["rate"] > 0


def test_sigterm_saves_and_exits_75_and_metrics_are_served_until_then(tmp_path: Path) -> None:
    request = fake_request(tmp_path, "measure")
    process = start(request, tmp_path, HDGAN_METRICS_PORT="0")
    port = read_until(process, "log")["port"]
    metric = read_until(process, "metric")
    assert metric["values"] == {"kid": 0.25, "loss": "nan"}
    read_until(process, "progress")

    metrics = _get(port, "/metrics")
    check_metrics(metrics)
    labels = 'run="test",stage="fake"'
    assert f"hdgan_training_kid{{{labels}}} 0.25" in metrics
    assert f"hdgan_classifier_loss{{{labels}}} NaN" in metrics
    assert f'hdgan_stage_work_done{{{labels},unit="kimg"}} 3.0' in metrics
    assert f'hdgan_stage_work_expected{{{labels},unit="kimg"}} 12.0' in metrics
    assert f"hdgan_stage_progress_ratio{{{labels}}} 0.25" in metrics
    assert 'hdgan_store_requests_total{operation="put",outcome="ok"}' in metrics
    progress = json.loads(_get(port, "/progress"))
    assert (progress["done"], progress["total"], progress["unit"]) == (3, 12, "kimg")
    assert progress["metrics"] == {"kid": 0.25, "loss": None}
    with pytest.raises(urllib.error.HTTPError) as refused:
        _get(port, "/else")
    refused.value.close()

    process.send_signal(signal.SIGTERM)
    done = finish(process)
    assert done.code == 75, done.stderr
    assert done.events[-1]["error"] == "Stopped"
    state = WorkState(open_store(request.store), "fake", request.key, "test").latest()
    assert state is not None
    assert (state.step, state.read("state.bin")) == (7, b"weights")


def test_metrics_are_served_where_there_is_only_ipv6(tmp_path: Path) -> None:
    process = start(
        fake_request(tmp_path, "measure"),
        tmp_path,
        HDGAN_METRICS_PORT="0",
        HDGAN_METRICS_HOST="::1",
    )
    port = read_until(process, "log")["port"]
    read_until(process, "progress")
    assert json.loads(_get(port, "/progress", "[::1]"))["done"] == 3
    process.send_signal(signal.SIGTERM)
    assert finish(process).code == 75


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",  # where the port is taken
        "192.0.2.1",  # an address of nobody
        "no-such-host.invalid",
        "a" * 100,
    ],
)
def test_a_stage_that_cannot_serve_metrics_says_so_and_works(tmp_path: Path, host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        request = fake_request(tmp_path, "fill")
        done = run(request, tmp_path, HDGAN_METRICS_PORT=port, HDGAN_METRICS_HOST=host)
    assert done.code == 0, done.stderr
    (warning,) = [one for one in done.all("log") if one["level"] == "warning"]
    assert f"cannot serve them on {host} port {port}: " in warning["message"]
    assert "HDGAN_METRICS_PORT" in warning["message"]


def test_a_stage_that_does_not_stop_is_ended_after_its_grace(tmp_path: Path) -> None:
    process = start(
        fake_request(tmp_path, "deaf"), tmp_path, HDGAN_GRACE_SECONDS="0.2", HDGAN_METRICS_PORT="0"
    )
    read_until(process, "log")
    started = time.monotonic()
    process.send_signal(signal.SIGINT)

    done = finish(process)

    assert done.code == 75
    assert time.monotonic() - started < 10
    assert "HDGAN_GRACE_SECONDS" in done.events[-1]["message"]


def test_a_stage_whose_reader_has_gone_stops_by_itself(tmp_path: Path) -> None:
    process = start(fake_request(tmp_path, "count"), tmp_path)
    assert process.stdout is not None
    process.stdout.close()

    assert process.wait(timeout=30) in (0, 75)
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()


def test_parts_work_apart_and_the_commit_merges(tmp_path: Path) -> None:
    request = fake_request(tmp_path, "part", stage="shared", parts=2)
    store = open_store(request.store)
    for part in ("0", "1"):
        done = run(request, tmp_path, JOB_COMPLETION_INDEX=part)
        assert all(event["part"] == int(part) for event in done.events)
        assert (done.code, done.events[-1]["contentDigest"]) == (0, None)
    assert open_artifact(store, "shared", request.key) is None
    assert run(request, tmp_path).code == 64  # which part?
    assert run(request, tmp_path, JOB_COMPLETION_INDEX="2").code == 64

    merged = run(request.model_copy(update={"commit": True}), tmp_path)

    assert merged.code == 0
    artifact = open_artifact(store, "shared", request.key)
    assert artifact is not None
    assert artifact.names() == ["merged.txt"]
    states = [
        WorkState(store, "shared", f"{request.key}-part-0000{n}-of-00002", "test").latest()
        for n in (0, 1)
    ]
    assert [state.read("part.txt") for state in states if state] == [b"part 0", b"part 1"]


def test_a_cache_stage_needs_no_artifact(tmp_path: Path) -> None:
    done = run(fake_request(tmp_path, "nothing", stage="cache"), tmp_path)

    assert (done.code, done.events[-1]["contentDigest"]) == (0, None)


def test_rate_and_time_left_come_from_the_recent_past() -> None:
    meter = RateMeter(window=10)
    assert meter.update(0, 1000, 2000, "kimg").rate is None  # resumed at 1000: nothing known yet
    assert meter.update(1, 1002, 2000, "kimg").rate == 2
    for second in range(2, 40):
        progress = meter.update(second, 1002 + 10 * (second - 1), 2000, "kimg")
    assert progress.rate == 10
    assert progress.eta == (2000 - progress.done) / 10
    assert meter.update(41, 1, 5, "grids").rate is None  # another phase


def test_the_throttle_lets_one_through_per_interval() -> None:
    throttle = Throttle(0.25)
    assert [throttle.passes(now) for now in (0, 0.1, 0.26, 0.5, 0.51)] == [
        True, False, True, False, True,
    ]  # fmt: skip


def _get(port: int, path: str, host: str = "127.0.0.1") -> str:
    with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=5) as answer:
        text: str = answer.read().decode()
        return text


def test_a_stop_that_comes_while_libraries_are_imported_is_heard(tmp_path: Path) -> None:
    path = tmp_path / "request.json"
    path.write_text(fake_request(tmp_path, "measure").model_dump_json(by_alias=True))
    program = (
        "import hdgan.core.held_signals, time; print('held', flush=True); time.sleep(1);"
        "from support.fake_stage import fake; from hdgan.core.stage import main;"
        "main(fake('fake'))"
    )
    environment = {
        **os.environ,
        "HDGAN_REQUEST": str(path),
        "PYTHONPATH": str(TESTS),
    }
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        assert process.wait(30) == 75


def test_every_service_holds_signals_back_before_it_imports_anything_else() -> None:
    programs = sorted(TESTS.parent.glob("services/*/src/hdgan/*/__main__.py"))
    programs += sorted(TESTS.parent.glob("k8s/*/src/hdgan/*/__main__.py"))
    assert len(programs) == 7
    for path in programs:
        imports = [line for line in path.read_text().splitlines() if "import" in line[:7]]
        ours = [line for line in imports if "hdgan" in line]
        assert ours[0].startswith("import hdgan.core.held_signals"), path
        # It is imported before the program begins.
        package = path.with_name("__init__.py").read_text().splitlines()
        assert not any(line.startswith(("import ", "from ")) for line in package), path
