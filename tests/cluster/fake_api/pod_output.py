"""What containers have written, as `kubectl logs` is given it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from cluster.fake_api import pod_states
from cluster.fake_api.api import Api
from cluster.fake_api.problems import Problem, bad_request
from cluster.fake_api.resources import PODS

Json = dict[str, Any]
Key = tuple[str, str, str]
"""Namespace, pod, container."""

_POLL_SECONDS = 0.02


class PodOutput:
    """Text by container. Tests write it with `say`."""

    def __init__(self) -> None:
        self._texts: dict[Key, str] = {}

    def say(self, namespace: str, pod: str, container: str, text: str) -> None:
        """The container writes this."""
        key = (namespace, pod, container)
        self._texts[key] = self._texts.get(key, "") + text

    def read(
        self, api: Api, namespace: str, pod: str, query: dict[str, str], left: Callable[[], bool]
    ) -> Iterator[bytes]:
        """Pieces of a log as they come; `follow` waits for more until the pod has ended.

        Problem 400 where no container is named but there are several, it is not one of the pod's,
        or it has not started.
        """
        container = _container(api.get(PODS, namespace, pod), query.get("container", ""))
        key = (namespace, pod, container)
        return self._pieces(api, key, query.get("follow") == "true", left)

    def _pieces(
        self, api: Api, key: Key, follow: bool, left: Callable[[], bool]
    ) -> Iterator[bytes]:
        given = 0
        while True:
            over = not follow or _over(api, key[0], key[1]) or left()
            text = self._texts.get(key, "")
            if text[given:]:
                yield text[given:].encode()
                given = len(text)
            if over:
                return
            time.sleep(_POLL_SECONDS)


def _container(pod: Json, asked: str) -> str:
    name = pod["metadata"]["name"]
    spec = pod["spec"]
    names = [one["name"] for one in [*(spec.get("initContainers") or []), *spec["containers"]]]
    if not asked:
        if len(names) > 1:
            raise bad_request(
                f"a container name must be specified for pod {name}, choose one of: {names}"
            )
        asked = names[0]
    if asked not in names:
        raise bad_request(f"container {asked} is not valid for pod {name}")
    states = pod.get("status", {}).get("containerStatuses") or []
    state: Json = next((one["state"] for one in states if one["name"] == asked), {})
    if pod["status"].get("phase") == "Pending" or "waiting" in state:
        reason = (state.get("waiting") or {}).get("reason") or "ContainerCreating"
        raise bad_request(f'container "{asked}" in pod "{name}" is waiting to start: {reason}')
    return asked


def _over(api: Api, namespace: str, pod: str) -> bool:
    try:
        return pod_states.is_terminal(api.get(PODS, namespace, pod))
    except Problem as problem:
        if problem.code == 404:
            return True
        raise
