"""`/metrics` of `hdgan run --metrics-port`: what a controller would show of the run and its
dataset, and what the stage at work shows of itself, on one page.

The process ends soon after the run has. So whoever has read the page before is given the time to
read once more how the run ended.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import replace
from http.client import HTTPException
from threading import Condition, local
from types import TracebackType
from typing import Any, Final, Self

from prometheus_client import CollectorRegistry, generate_latest

from hdgan.core.errors import HdganError, RequestError
from hdgan.core.stage import HOST_VARIABLE, PORT_VARIABLE
from hdgan.core.store import Store
from hdgan.core.telemetry.http_pages import METRICS_TYPE, Page, PageServer
from hdgan.core.telemetry.local_look import artifacts_of, local_look
from hdgan.core.telemetry.run_measures import KnownMeasures
from hdgan.core.telemetry.run_releases import Latest, dataset_looks, read_latest
from hdgan.core.telemetry.run_series import DatasetLook, LookCollector, RunLook
from hdgan.core.telemetry.run_watch import RunWatch, Standing

STAGE_SECONDS: Final = 2.0
"""Longest time for the stage's own page."""
LONGEST_WAIT_SECONDS: Final = 75.0
"""For a last look: more than Prometheus' default interval of a minute."""
OWN_HOST: Final = "127.0.0.1"
"""Where stages serve their pages to this process."""


class LocalMetrics(RunWatch):
    """Serves the page until it is closed. RequestError if it cannot."""

    def __init__(self, host: str, port: int) -> None:
        self._look: RunLook | None = None
        self._measures = KnownMeasures()
        self._latest: dict[str, Latest] = {}
        self._stage_port: int | None = None
        self._registry = CollectorRegistry()
        self._registry.register(LookCollector(self._runs, self._datasets))
        self._looked = Condition()
        self._looked_at = False
        self._last_looks = 0
        """Pages that went out and said how the run ended."""
        self._shown = local()
        try:
            self._server = PageServer(host, port, self._page, self._sent)
        except (OSError, UnicodeError) as error:
            what = (isinstance(error, OSError) and error.strerror) or error
            raise RequestError(
                f"--metrics-port {port}: cannot serve metrics on {host}: {what}. Name a free port, "
                f"or an address of this machine in {HOST_VARIABLE}"
            ) from error
        self.port = self._server.port
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self.port}/metrics"

    # What the run tells

    @property
    def variables(self) -> Mapping[str, str]:
        return {PORT_VARIABLE: "0", HOST_VARIABLE: OWN_HOST}

    def event(self, event: Mapping[str, Any]) -> bool:
        port = event.get("port")
        if event.get("event") != "log" or not isinstance(port, int):
            return False
        self._stage_port = port
        return True

    def stage_ended(self) -> None:
        self._stage_port = None

    def stands(self, standing: Standing, store: Store) -> None:
        artifacts = artifacts_of(standing)
        try:
            self._measures.read(store, artifacts.values())
            self._latest = read_latest(store, self._latest)
        except HdganError:
            pass  # the run meets the same store, and says what is wrong with it
        self._look = replace(local_look(standing), measures=self._measures.of(artifacts))

    def wait_for_last_look(self, say: Callable[[str], None]) -> None:
        """If anybody has looked before: until they have looked at what is there now, or have had
        the time to. Who has interrupted the run does not want to wait."""
        with self._looked:
            if not self._looked_at or not _settled(self._look):
                return
            say(
                f"metrics: waiting for a last look, at most {LONGEST_WAIT_SECONDS:g} s (Ctrl-C: "
                "not at all)"
            )
            self._looked.wait_for(lambda: self._last_looks > 0, LONGEST_WAIT_SECONDS)

    # What is shown

    def _runs(self) -> list[RunLook]:
        return [] if self._look is None else [self._look]

    def _datasets(self) -> list[DatasetLook]:
        look = self._look
        if look is None:
            return []
        latest = {name: one for name, one in self._latest.items() if name == look.dataset}
        return dataset_looks(look.namespace, look.store, latest)

    def _page(self, path: str) -> Page:
        if path == "/metrics":
            self._looked_at = True
            self._shown.settled = _settled(self._look)  # before what is shown, not after
            own = generate_latest(self._registry).decode()
            return Page(own + self._of_stage(path), METRICS_TYPE)
        if path == "/progress":
            return Page(self._of_stage(path) or "{}", "application/json")
        return Page("there are /metrics and /progress\n", status=404)

    def _sent(self, path: str) -> None:
        if path == "/metrics":
            with self._looked:
                self._last_looks += self._shown.settled
                self._looked.notify_all()

    def _of_stage(self, path: str) -> str:
        """The stage's own page; empty if there is none, or it does not answer."""
        port = self._stage_port
        if port is None:
            return ""
        try:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(f"http://{OWN_HOST}:{port}{path}", timeout=STAGE_SECONDS) as answer:
                return str(answer.read().decode())
        except (OSError, HTTPException, ValueError):  # it ends, or has just ended
            return ""

    def close(self) -> None:
        self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _settled(look: RunLook | None) -> bool:
    """Whether the run has come to an end that is worth knowing."""
    return look is not None and look.phase not in ("Running", "Interrupted")
