"""What is shown when a step has failed: what somebody would type first."""

from __future__ import annotations

import json
from collections.abc import Iterable

from e2e.cluster import Cluster
from e2e.telling import complain
from hdgan.controller import api as paths
from hdgan.controller.api import ApiError

LINES = 60


def diagnose(cluster: Cluster, namespaces: Iterable[str]) -> None:
    """To stderr: runs, pods, events, the controller's log and those of pods that failed."""
    spaces = tuple(namespaces)
    for show in (_runs, _pods, _events, _logs):
        for space in spaces:
            try:
                show(cluster, space)
            except ApiError as error:
                complain(f"-- {space}: {error}")


def _runs(cluster: Cluster, space: str) -> None:
    for one in cluster.list(paths.RUNS, space):
        complain(f"-- DatasetRun {space}/{one['metadata']['name']}")
        complain(json.dumps(one.get("status") or {}, indent=1))


def _pods(cluster: Cluster, space: str) -> None:
    complain(f"-- pods of {space}")
    for one in cluster.list(paths.PODS, space):
        states = [
            f"{state['name']}: {json.dumps(state.get('state'))}"
            for kind in ("initContainerStatuses", "containerStatuses")
            for state in one["status"].get(kind) or []
        ]
        complain(f"{one['metadata']['name']} {one['status'].get('phase')} {'; '.join(states)}")


def _events(cluster: Cluster, space: str) -> None:
    complain(f"-- events of {space}")
    found = cluster.list(paths.EVENTS, space)
    found.sort(key=lambda one: str(one.get("lastTimestamp") or one.get("eventTime") or ""))
    for one in found[-LINES:]:
        what = one["involvedObject"]
        complain(
            f"{one.get('lastTimestamp') or one.get('eventTime')} {what.get('kind')}/"
            f"{what.get('name')} {one.get('reason')}: {one.get('message')}"
        )


def _logs(cluster: Cluster, space: str) -> None:
    for pod in cluster.list(paths.PODS, space):
        labels = pod["metadata"].get("labels") or {}
        controller = labels.get("app.kubernetes.io/component") == "controller"
        if not controller and pod["status"].get("phase") in ("Running", "Succeeded"):
            continue
        for container in pod["spec"]["containers"]:
            name = pod["metadata"]["name"]
            complain(f"-- log of {space}/{name}, {container['name']}")
            try:
                lines = list(cluster.api.log(space, name, container["name"], follow=False))
            except ApiError as error:
                complain(str(error))
                continue
            for line in lines[-LINES * (3 if controller else 1) :]:
                complain(line)
