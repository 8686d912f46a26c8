"""What is left of a run that is being deleted: itself, the Jobs that were its alone, their pods."""

from __future__ import annotations

from hdgan.controller.api import JOBS, PODS, RUNS, Api, Document
from hdgan.controller.facts import MANAGED_BY, MANAGED_LABEL

MOST_NAMES = 8


class Remains:
    """Looked at again and again. Jobs that other runs own as well are none of it."""

    def __init__(self, api: Api, namespace: str, run: Document) -> None:
        self._api = api
        self._namespace = namespace
        self._name = run["metadata"]["name"]
        self._uid = run["metadata"]["uid"]
        self._own: set[str] = set()
        """Jobs that were seen to be the run's alone. Nobody else says so once they are gone."""
        self._pods: list[str] = []
        self.grace_seconds = 0.0
        """Longest time one of its pods gets to end."""

    def look(self) -> str:
        """What there is, in words; nothing once all is gone."""
        selector = f"{MANAGED_LABEL}={MANAGED_BY}"
        # Pods last: a Job that has gone may leave pods that are still ending.
        run = self._api.get(RUNS, self._namespace, self._name)
        jobs = self._api.list(JOBS, self._namespace, labelSelector=selector).items
        pods = self._api.list(PODS, self._namespace, labelSelector=selector).items
        for one in jobs:
            if _owners(one) == {self._uid}:
                self._own.add(one["metadata"]["uid"])
            elif _owners(one):
                self._own.discard(one["metadata"]["uid"])  # another run has joined it
        left_jobs = [_name(one) for one in jobs if one["metadata"]["uid"] in self._own]
        left_pods = [one for one in pods if _owners(one) & self._own]
        self._pods = [_name(one) for one in left_pods]
        for one in left_pods:
            grace = one["spec"].get("terminationGracePeriodSeconds") or 0
            self.grace_seconds = max(self.grace_seconds, float(grace))
        words = []
        if run is not None and run["metadata"]["uid"] == self._uid:
            words.append(f"DatasetRun {self._name}")
        words += _several("Job", left_jobs) + _several("pod", self._pods)
        return ", ".join(words)

    def advice(self) -> str:
        """What to do about pods that do not end."""
        if not self._pods:
            return "The cluster's garbage collector removes them: see whether it works"
        return (
            "A pod whose node does not answer stays until the node is back, or, once it is off for "
            f"certain, until you type: kubectl delete pod --namespace {self._namespace} --force "
            f"--grace-period=0 {' '.join(self._pods[:MOST_NAMES])}"
        )


def _owners(document: Document) -> set[str]:
    return {str(one["uid"]) for one in document["metadata"].get("ownerReferences") or []}


def _name(document: Document) -> str:
    return str(document["metadata"]["name"])


def _several(kind: str, names: list[str]) -> list[str]:
    shown = [f"{kind} {name}" for name in sorted(names)[:MOST_NAMES]]
    more = len(names) - MOST_NAMES
    return [*shown, f"{more} more {kind}s"] if more > 0 else shown
