"""The server, as tests use it.

with FakeApiServer() as server:
    core = kubernetes.client.CoreV1Api(server.client())
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml
from kubernetes.client import ApiClient, Configuration

from cluster.fake_api import pod_states
from cluster.fake_api.api import Api
from cluster.fake_api.collector import Collector
from cluster.fake_api.deletion import DeleteOptions
from cluster.fake_api.faults import Faults
from cluster.fake_api.handler import HttpServer
from cluster.fake_api.pod_output import PodOutput
from cluster.fake_api.problems import not_found
from cluster.fake_api.record import Requests
from cluster.fake_api.resources import PODS, Resource
from cluster.fake_api.store import Store

Json = dict[str, Any]


class FakeApiServer:
    """A Kubernetes API server on 127.0.0.1, over plain HTTP, with a garbage collector.

    `history` is how many changes are remembered for watches (older versions are 410 Gone), and
    `bookmark_seconds` how often a watch that wants bookmarks gets one. Kinds are named by their
    plural ("jobs") or, where that is not enough, by plural and group ("events.events.k8s.io").
    """

    def __init__(self, *, history: int = 1000, bookmark_seconds: float = 60.0) -> None:
        self.store = Store(history)
        self.api = Api(self.store)
        self.faults = Faults()
        self.requests = Requests()
        self.output = PodOutput()
        self.collector = Collector(self.api)
        self._http = HttpServer(self.api, self.output, self.faults, self.requests, bookmark_seconds)
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._clients: list[ApiClient] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def start(self) -> None:
        self._thread.start()
        self.collector.start()

    def stop(self) -> None:
        self.faults.clear()
        self._http.shutdown()
        self._http.drop_connections()
        self._http.server_close()
        self._thread.join()
        self.collector.stop()
        for client in self._clients:
            client.close()

    def __enter__(self) -> FakeApiServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # For clients.

    def client(self) -> ApiClient:
        """A client of the official library. It is closed with the server."""
        configuration = Configuration(host=self.url, no_proxy="127.0.0.1")
        client = ApiClient(configuration)
        self._clients.append(client)
        return client

    def kubeconfig(self, path: Path) -> Path:
        """Writes a kubeconfig for this server."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "test", "user": {"token": "no-secret"}}],
            "contexts": [
                {
                    "name": "fake",
                    "context": {"cluster": "fake", "user": "test", "namespace": "default"},
                }
            ],
        }
        path.write_text(yaml.safe_dump(config))
        return path

    # The objects themselves.

    def get(self, kind: str, namespace: str, name: str) -> Json:
        """A copy of an object. Raises `Problem` 404 when there is none."""
        return copy.deepcopy(self.api.get(self._resource(kind), namespace, name))

    def exists(self, kind: str, namespace: str, name: str) -> bool:
        return self.store.get(self._resource(kind).type_key, namespace, name) is not None

    def all(self, kind: str, namespace: str = "") -> list[Json]:
        """Copies of all objects of a kind, of one namespace or of all."""
        with self.store.lock:
            found = self.store.all(self._resource(kind).type_key)
            return [
                copy.deepcopy(value)
                for place, value in found.items()
                if not namespace or place[0] == namespace
            ]

    def create(self, manifest: Json, namespace: str = "") -> Json:
        """Creates an object as a client would, without a request that is counted."""
        group, _, version = manifest["apiVersion"].rpartition("/")
        resource = next(
            one
            for one in self.api.resources()
            if (one.group, one.version, one.kind) == (group, version, manifest["kind"])
        )
        if resource.namespaced:
            namespace = namespace or manifest["metadata"].get("namespace", "default")
        return copy.deepcopy(self.api.create(resource, namespace, manifest).body)

    def edit(self, kind: str, namespace: str, name: str, change: Callable[[Json], None]) -> Json:
        """Changes an object past all checks; whoever watches is told. `change` gets a copy."""
        resource = self._resource(kind)
        with self.store.lock:
            found = self.store.get(resource.type_key, namespace, name)
            if found is None:
                raise not_found(resource, name)
            new = copy.deepcopy(found)
            change(new)
            return copy.deepcopy(self.store.put(resource.type_key, new))

    def remove(self, kind: str, namespace: str, name: str) -> None:
        """Takes an object away at once, whatever finalizers it has."""
        self.store.remove(self._resource(kind).type_key, namespace, name)

    def forget_history(self) -> None:
        """Every version up to now is too old for watches and continued lists."""
        self.store.forget_history()

    @property
    def ignored_rules(self) -> list[str]:
        """CEL rules of the installed definitions that this server cannot check."""
        return self.api.ignored_rules()

    # Pods: what a scheduler and a kubelet would do.

    def bind_pod(self, namespace: str, name: str, node: str = "node-1") -> None:
        """The pod gets a node; from then on it ends only when told to."""
        self.api.bind(namespace, name, node)

    def run_pod(self, namespace: str, name: str, node: str = "node-1") -> None:
        """The pod has a node, and all its containers run."""
        with self.store.lock:
            if not self.get("pods", namespace, name)["spec"].get("nodeName"):
                self.bind_pod(namespace, name, node)
            self.edit("pods", namespace, name, pod_states.run)

    def end_pod(
        self,
        namespace: str,
        name: str,
        exit_code: int = 0,
        *,
        reason: str = "",
        message: str = "",
        pod_reason: str = "",
    ) -> None:
        """The pod's containers have ended like this; if it is being deleted, it goes now.

        `reason` and `message` are the container's (message: its termination message),
        `pod_reason` the pod's own, as in Evicted.
        """

        def change(pod: Json) -> None:
            pod_states.end(pod, exit_code, reason, message)
            if pod_reason:
                pod["status"]["reason"] = pod_reason

        with self.store.lock:
            pod = self.edit("pods", namespace, name, change)
            if "deletionTimestamp" in pod["metadata"]:
                self.api.delete(PODS, namespace, name, DeleteOptions(grace=0))

    def _resource(self, kind: str) -> Resource:
        found = [one for one in self.api.resources() if kind in (one.plural, one.qualified)]
        if not found:
            raise LookupError(f"there is no kind {kind!r} here")
        return found[0]
