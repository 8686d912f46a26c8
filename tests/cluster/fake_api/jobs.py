"""A world behind the API server in which Jobs get pods: a thread that a test starts.

with SimulatedJobs(server, script=lambda start: Runs(seconds=0.1, exit_code=3)):
    ...
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any

from cluster.fake_api.fates import (
    CannotStart,
    Evicted,
    Fate,
    NodeLost,
    PodStart,
    Runs,
    Script,
    Unschedulable,
    always_succeeds,
    oom_killed,
)
from cluster.fake_api.job_controller import JobController
from cluster.fake_api.kubelet import Kubelet
from cluster.fake_api.server import FakeApiServer

Json = dict[str, Any]

__all__ = [
    "CannotStart",
    "Evicted",
    "Fate",
    "NodeLost",
    "PodStart",
    "Runs",
    "Script",
    "SimulatedJobs",
    "Unschedulable",
    "always_succeeds",
    "oom_killed",
]


class SimulatedJobs:
    """Job controller, scheduler and kubelet in one thread, working on the server's own store.

    It looks after Jobs without spec.managedBy, and those whose managedBy is `managed_by`, in one
    namespace or (None) in all. `script` is asked once for each new pod, with the store locked: it
    must not call the server. The wait after a failed pod is `backoff` seconds, doubled each time
    (really 10 s). An error in the script or here is raised at the end.
    """

    def __init__(
        self,
        server: FakeApiServer,
        script: Script = always_succeeds,
        *,
        namespace: str | None = None,
        managed_by: str | None = None,
        backoff: float = 0.0,
        tick: float = 0.01,
    ) -> None:
        self.script = script
        # Every pod that was made, in order.
        self.starts: list[PodStart] = []
        self._store = server.store
        self._kubelet = Kubelet(server.api)
        self._controller = JobController(
            server.api,
            self._born,
            namespace=namespace,
            managed_by=managed_by,
            backoff=backoff,
        )
        self._tick = tick
        self._stopping = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="simulated jobs", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def __enter__(self) -> SimulatedJobs:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _born(self, job: Json, pod: Json, index: int | None, before: int) -> None:
        meta = job["metadata"]
        start = PodStart(meta["namespace"], meta["name"], index, before, pod)
        self.starts.append(start)
        self._kubelet.expect(pod, self.script(start))

    def _run(self) -> None:
        while not self._stopping.wait(self._tick):
            try:
                with self._store.lock:
                    self._controller.step()
                    self._kubelet.step()
            except Exception as error:
                self._error = error
                return
