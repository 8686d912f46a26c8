"""A real Prometheus for tests, where it is installed (Debian: the package `prometheus`)."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

T = TypeVar("T")

INTERVAL = "500ms"
"""Between two scrapes, and between two evaluations of rules."""


@dataclass(frozen=True)
class Prometheus:
    """A server that is up."""

    url: str

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its HTTP API. AssertionError if it says error."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=30) as answer:
            document = json.load(answer)
        assert document["status"] == "success", document
        return document["data"]

    def vector(self, query: str) -> list[tuple[dict[str, str], float]]:
        """Labels and values of an instant query."""
        data = self.ask("query", query=query)
        assert data["resultType"] in ("vector", "scalar"), data
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        return [(one["metric"], float(one["value"][1])) for one in data["result"]]

    def ever(self, query: str) -> dict[frozenset[tuple[str, str]], list[float]]:
        """All samples of a series selector, by labels: also of what has gone by now."""
        data = self.ask("query", query=f"{query}[1h]")
        return {
            frozenset((n, v) for n, v in one["metric"].items() if n not in ("__name__", "job")): [
                float(value) for _, value in one["values"]
            ]
            for one in data["result"]
        }

    def names(self) -> set[str]:
        """Names of all series it has seen."""
        return set(self.ask("label/__name__/values"))

    def alerts(self) -> list[dict[str, Any]]:
        """What is pending or firing."""
        found: list[dict[str, Any]] = self.ask("alerts")["alerts"]
        return found


@contextmanager
def running_prometheus(
    folder: Path, targets: list[int], rules: dict[str, Any] | None = None
) -> Iterator[Prometheus]:
    """A server that scrapes ports of this machine. The test is skipped where there is none."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed (Debian: apt install prometheus)")
    settings: dict[str, Any] = {
        "global": {
            "scrape_interval": INTERVAL,
            "scrape_timeout": INTERVAL,
            "evaluation_interval": INTERVAL,
        },
        "scrape_configs": [
            {
                "job_name": "hdgan",
                "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in targets]}],
            }
        ],
    }
    if rules is not None:
        folder.joinpath("rules.yaml").write_text(yaml.safe_dump(rules))
        settings["rule_files"] = ["rules.yaml"]
    folder.joinpath("prometheus.yml").write_text(yaml.safe_dump(settings))
    port = free_port()
    with folder.joinpath("log").open("w") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            server = Prometheus(f"http://127.0.0.1:{port}")
            until(lambda: _is_ready(server, process, folder / "log"), "Prometheus is up")
            yield server
        finally:
            process.terminate()
            process.wait(60)


def _is_ready(server: Prometheus, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        with urllib.request.urlopen(f"{server.url}/-/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def until(look: Callable[[], T], what: str, seconds: float = 60.0) -> T:
    """What `look` gives, once that is true."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.1)
    return found


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
