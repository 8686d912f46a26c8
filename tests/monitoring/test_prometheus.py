"""A real Prometheus reads real runs, by the command a person types, with the alerts that
`docs/alerts.yaml` has for them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
import yaml

from hdgan.core.telemetry.catalogue import ALL
from support.dashboard_queries import queries
from support.prometheus import Prometheus, free_port, running_prometheus, until
from support.promtool import check_metrics
from support.small_pipeline import HDGAN, SmallPipeline, write_run_file

SELDOM = {
    "hdgan_store_retries_total",  # a store in a folder is asked once: there, but never above 0
    "hdgan_run_drift_kid",  # only with a pinned generator
    "hdgan_run_gate_passed",  # none is set
    "hdgan_run_finish_time_seconds",
    "hdgan_run_failure_info",  # of the run that fails, below
}
ACCIDENTS = {("storage", "Failed by process"), ("storage", "Requests that fail")}
"""Panels that are empty while all goes well."""
PAIRS = 60
RULES = Path(__file__).parents[2] / "docs" / "alerts.yaml"


@dataclass(frozen=True)
class Watched:
    """Runs that are over, what they have made, and what has read them."""

    run: SmallPipeline
    prometheus: Prometheus
    port: int
    began: float
    pages: list[str]
    """What their ports have shown."""

    def artifact(self, stage: str) -> Path:
        """Folder of the files of a stage's newest artifact."""
        found = self.run.store.glob(f"artifacts/{stage}/*/manifest.json")
        manifest = max(found, key=lambda path: path.stat().st_mtime)
        (info,) = manifest.parent.glob("*/run-info.json")
        return info.parent

    def document(self, stage: str, name: str) -> dict[str, Any]:
        """A JSON file of that artifact."""
        document: dict[str, Any] = json.loads(self.artifact(stage).joinpath(name).read_text())
        return document

    def last(self, query: str) -> float:
        """The last value of the one series that a selector finds."""
        (values,) = self.prometheus.ever(query).values()
        return values[-1]


def watched_run(run: SmallPipeline, port: int, pages: list[str] | None = None) -> int:
    """The exit code of a run with its metrics on `port`; what that shows is added to pages."""
    inherited = {n: v for n, v in os.environ.items() if not n.startswith(("HDGAN_", "JOB_"))}
    command = [str(HDGAN), "run", "run.yaml", "--metrics-port", str(port), "--no-report"]
    with subprocess.Popen(
        command, cwd=run.folder, env=inherited, stdout=subprocess.PIPE, text=True
    ) as process:
        # Not to the end: the last look must be Prometheus'.
        while pages is not None and process.poll() is None and not _seen_training(pages):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
                    pages.append(page.read().decode())
            except (OSError, HTTPException):
                pass  # not up yet, or gone
            time.sleep(0.5)
        out = process.communicate(timeout=900)[0]
    assert "waiting for a last look" in out, out
    return process.returncode


def _seen_training(pages: list[str]) -> bool:
    return bool(pages) and "hdgan_training_loss" in pages[-1]


@pytest.fixture(scope="module")
def watched(
    finished_run: SmallPipeline, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    """Tiles, a training, and candidates that wait for labels; then a classifier and a dataset."""
    folder = tmp_path_factory.mktemp("watched")
    shutil.copytree(finished_run.folder, folder / "run")
    run = SmallPipeline(folder / "run")
    port, began, pages = free_port(), time.time(), list[str]()
    rules = yaml.safe_load(RULES.read_text())
    folder.joinpath("prometheus").mkdir()
    with running_prometheus(folder / "prometheus", [port], rules) as prometheus:
        write_run_file(run.run_file, {"rerun": {"tiler": "again"}, "ganTrainer": {"seed": 1}})
        assert watched_run(run, port, pages) == 3
        # Long enough to be seen twice, and with images that are left out.
        other = {"seed": 1, "dropMostUncertain": 0.5, "count": PAIRS}
        write_run_file(run.run_file, {"classifier": {"epochs": 5}, "synthesizer": other})
        assert watched_run(run, port) == 0
        yield Watched(run, prometheus, port, began, pages)


def test_all_documented_series_of_runs_and_stages_arrive(watched: Watched) -> None:
    documented = {
        name
        for metric in ALL
        for name in metric.series
        if metric.places != ("controller",) and metric.name not in SELDOM
    }
    assert documented - watched.prometheus.names() == set()


def test_they_have_the_values_that_the_artifacts_have(watched: Watched) -> None:
    run = 'run="cut"'
    test = watched.document("classifier", "scores.json")["test"]
    for name, value in test["dice"]["perClass"].items():
        assert watched.last(f'hdgan_run_dice_ratio{{{run},class="{name}"}}') == value
    assert watched.last(f"hdgan_run_macro_dice_ratio{{{run}}}") == test["dice"]["macro"]
    assert watched.last(f"hdgan_run_pairs{{{run}}}") == PAIRS
    for stage in ("classifier", "dataset"):
        seconds = watched.document(stage, "run-info.json")["seconds"]
        series = f'hdgan_run_stage_duration_seconds{{{run},stage="{stage}"}}'
        assert watched.last(series) == seconds
    kid = watched.document("gan-trainer", "evaluation.json")["kid"]["whole"]["mean"]
    found = watched.prometheus.ever(f"hdgan_run_kid{{{run}}}")
    assert kid in {value for values in found.values() for value in values}


def test_a_training_is_seen_while_it_happens(watched: Watched) -> None:
    of = 'run="cut",stage="gan-trainer"'
    assert watched.last(f"hdgan_training_images_total{{{of}}}") == 200
    steps = watched.last(f"hdgan_training_step_seconds_count{{{of}}}")
    assert 1 <= steps <= 25  # of 8 images each; the last ones may not be read
    records = watched.artifact("gan-trainer").joinpath("training.jsonl").read_text().splitlines()
    losses = [json.loads(line)["lossD"] for line in records]
    seen = watched.prometheus.ever(f'hdgan_training_loss{{{of},term="discriminator"}}')
    assert {value for values in seen.values() for value in values} <= set(losses)


def test_the_run_is_seen_to_wait_and_to_be_released(watched: Watched) -> None:
    for phase in ("Running", "AwaitingAnnotation", "Released"):
        found = watched.prometheus.ever(f'hdgan_run_phase{{run="cut",phase="{phase}"}}')
        assert max(max(values) for values in found.values()) == 1, phase
    released = watched.last('hdgan_dataset_release_timestamp_seconds{dataset="cut"}')
    assert watched.began < released < time.time()


def test_promtool_finds_nothing_to_say_of_the_page(watched: Watched) -> None:
    assert _seen_training(watched.pages)
    for page in watched.pages[:: max(1, len(watched.pages) // 10)]:
        check_metrics(page)


def test_every_query_of_the_dashboards_finds_something(watched: Watched) -> None:
    """But for those about the controller, and what only a cluster or an accident has."""
    period = {"start": str(watched.began), "end": str(time.time()), "step": "0.2"}
    empty = [
        (board, panel, query)
        for board, panel, query in queries()
        if (board, panel) not in ACCIDENTS
        and not _of_a_cluster(query)
        and not watched.prometheus.ask("query_range", query=query, **period)["result"]
    ]
    assert not empty, "\n".join(map(str, empty))


def _of_a_cluster(query: str) -> bool:
    return any(name in query for name in ("hdgan_controller_", *SELDOM, "ALERTS"))


def test_a_failure_fires_its_alert(watched: Watched, tmp_path: Path) -> None:
    shutil.copytree(watched.run.folder, tmp_path / "broken")
    broken = SmallPipeline(tmp_path / "broken")
    write_run_file(broken.run_file, {"rerun": {"candidates": "again"}})
    broken.run_file.write_text(broken.run_file.read_text().replace("name: cut", "name: broken"))
    for weights in broken.store.glob("artifacts/gan-trainer/*/*/*.safetensors"):
        weights.write_bytes(b"damaged")
    assert watched_run(broken, watched.port) == 66

    def firing() -> list[dict[str, str]]:
        found = watched.prometheus.alerts()
        return [one["labels"] for one in found if one["state"] == "firing"]

    (labels,) = until(firing, "an alert fires")
    assert {name: labels[name] for name in ("alertname", "run", "stage", "reason")} == {
        "alertname": "HdganRunFailed",
        "run": "broken",
        "stage": "candidates",
        "reason": "InputMissing",
    }
