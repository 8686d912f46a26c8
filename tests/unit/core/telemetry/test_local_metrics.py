"""The page of a local run: the run and the stage at work on one, and a last look at the end."""

from __future__ import annotations

import io
import time
import urllib.request
from pathlib import Path
from threading import Thread

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hdgan.core.errors import RequestError
from hdgan.core.local import run_local
from hdgan.core.pipeline import NodeStatus
from hdgan.core.progress_view import PlainView
from hdgan.core.run import load_run
from hdgan.core.status_file import Outcome
from hdgan.core.store import open_store
from hdgan.core.telemetry.http_pages import Page, PageServer
from hdgan.core.telemetry.local_metrics import LocalMetrics
from hdgan.core.telemetry.run_watch import Standing
from support import fake_services
from support.local_bench import Bench
from support.promtool import check_metrics
from support.runs import small_run, write_run


def page(metrics: LocalMetrics, path: str = "/metrics") -> str:
    url = f"http://127.0.0.1:{metrics.port}{path}"
    with urllib.request.urlopen(url, timeout=60) as answer:
        return str(answer.read().decode())


def values(metrics: LocalMetrics, name: str) -> dict[tuple[str, ...], float]:
    """Values of a metric by the values of its labels, that are in the order of their names."""
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page(metrics))
        for sample in family.samples
        if sample.name == name
    }


def standing(outcome: Outcome) -> Standing:
    statuses = [NodeStatus("tiler", "ready")]
    return Standing(small_run(), outcome, statuses, [], "tiler", None, {"tiler": 1}, 5.0, None)


def test_run_and_stage_are_on_one_page(tmp_path: Path) -> None:
    stage = PageServer("127.0.0.1", 0, lambda path: Page("hdgan_stage_x 1\n"))
    with LocalMetrics("127.0.0.1", 0) as metrics:
        metrics.stands(standing("Running"), open_store(str(tmp_path)))
        assert metrics.event({"event": "log", "message": "metrics", "port": stage.port})
        assert not metrics.event({"event": "log", "message": "else"})
        assert page(metrics).endswith("hdgan_stage_x 1\n")
        assert page(metrics, "/progress") == "hdgan_stage_x 1\n"
        state = values(metrics, "hdgan_run_stage_state")
        assert state == {("small", "small", "", "tiler", "running"): 1.0}
        stage.close()  # it has ended, and the run does not know yet
        assert "hdgan_run_phase" in page(metrics)
        metrics.stage_ended()
        assert "hdgan_stage_x" not in page(metrics)
        assert page(metrics, "/progress") == "{}"


def test_a_last_look_is_waited_for_where_anybody_looks_at_all(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    said: list[str] = []
    with LocalMetrics("127.0.0.1", 0) as metrics:
        metrics.stands(standing("Failed"), store)
        metrics.wait_for_last_look(said.append)
        assert said == []  # nobody has looked
    with LocalMetrics("127.0.0.1", 0) as metrics:
        metrics.stands(standing("Running"), store)
        page(metrics)
        metrics.wait_for_last_look(said.append)
        assert said == []  # the run did not come to an end
        metrics.stands(standing("Failed"), store)
        waiting = Thread(target=metrics.wait_for_last_look, args=(said.append,))
        waiting.start()
        time.sleep(0.5)
        assert waiting.is_alive()
        page(metrics)
        waiting.join(60)
        assert not waiting.is_alive()
        assert len(said) == 1
        metrics.wait_for_last_look(said.append)  # seen is seen
        assert len(said) == 2


def test_who_has_interrupted_the_run_does_not_wait(tmp_path: Path) -> None:
    with LocalMetrics("127.0.0.1", 0) as metrics:
        metrics.stands(standing("Interrupted"), open_store(str(tmp_path)))
        page(metrics)
        metrics.wait_for_last_look(pytest.fail)


def test_a_port_that_is_taken_is_said_before_anything_is_done() -> None:
    with (
        LocalMetrics("127.0.0.1", 0) as metrics,
        pytest.raises(RequestError, match=rf"--metrics-port {metrics.port}: cannot serve"),
    ):
        LocalMetrics("127.0.0.1", metrics.port)


def test_the_page_of_a_run_that_waits_and_of_one_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in fake_services.install(tmp_path).items():
        monkeypatch.setenv(name, value)
    bench, out = Bench(tmp_path), io.StringIO()

    def run(metrics: LocalMetrics) -> int:
        return run_local(
            load_run(write_run(tmp_path)),
            store_uri=bench.store_uri,
            scratch=tmp_path / "scratch",
            view=PlainView(out),
            watch=metrics,
        ).exit_code

    began = time.time()
    with LocalMetrics("127.0.0.1", 0) as metrics:
        assert run(metrics) == 3
        check_metrics(page(metrics))
        phases = values(metrics, "hdgan_run_phase")
        assert [labels for labels, value in phases.items() if value] == [
            ("small", "AwaitingAnnotation", "small", "")
        ]
        (since,) = values(metrics, "hdgan_run_awaiting_annotation_since_timestamp_seconds").values()
        assert began - 1 <= since <= time.time()
        assert values(metrics, "hdgan_run_stage_attempts")["small", "small", "", "tiler"] == 1
        assert "metrics on port" not in out.getvalue()
    time.sleep(1.1)
    with LocalMetrics("127.0.0.1", 0) as metrics:
        assert run(metrics) == 3
        again = values(metrics, "hdgan_run_awaiting_annotation_since_timestamp_seconds")
        assert list(again.values()) == [int(since)]  # it still waits: the status has seconds
    bench.annotate("train", "val", "test")
    bench.plan("classifier", "bad")
    with LocalMetrics("127.0.0.1", 0) as metrics:
        assert run(metrics) == 65
        assert values(metrics, "hdgan_run_failure_info") == {
            ("small", "DataBad", "small", "", "classifier"): 1.0
        }
